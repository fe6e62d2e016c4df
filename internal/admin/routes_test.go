package admin_test

import (
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/workerd/workerd/internal/admin"
)

// paths and the content types they answer with.
func paths() map[string]string {
	const text, js = "text/plain; charset=utf-8", "application/json"
	return map[string]string{
		"/": "text/html; charset=utf-8", "/?part=main": "text/html; charset=utf-8",
		"/livez": text, "/readyz": text, "/healthz": text, "/-/healthy": text, "/-/ready": text, "/metrics": text,
		"/api/v1/status": js, "/version": js,
		"/page.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml",
	}
}

func TestServer_everyRouteAnswersGetAndHeadAndNothingElse(t *testing.T) {
	s := visit(t, calmDay(), admin.Config{})
	for path, contentType := range paths() {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
			res, body := s.ask(method, path, nil)
			switch method {
			case "GET", "HEAD":
				if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != contentType || (body == "") != (method == "HEAD") {
					t.Errorf("%s %s: %s, %q, %d bytes", method, path, res.Status, res.Header.Get("Content-Type"), len(body))
				}
			default:
				isProblem(t, res, body, http.StatusMethodNotAllowed)
				if allow := res.Header.Get("Allow"); allow != "GET, HEAD" {
					t.Errorf("%s %s: Allow is %q", method, path, allow)
				}
			}
		}
	}
}

func isProblem(t *testing.T, res *http.Response, body string, status int) {
	t.Helper()
	var p struct {
		Type, Title, Detail, Instance string
		Status                        int
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Errorf("%s: %v in %q", res.Request.URL, err, body)
	}
	if res.StatusCode != status || p.Status != status || p.Type != "about:blank" || p.Title != http.StatusText(status) || p.Detail == "" ||
		p.Instance != res.Request.URL.Path || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %s: %s, %+v, %q, want a problem document of status %d", res.Request.Method, res.Request.URL, res.Status, p, res.Header.Get("Content-Type"), status)
	}
}

func TestServer_whatIsNotThereIsAProblem(t *testing.T) {
	s := visit(t, calmDay(), admin.Config{})
	for _, path := range []string{"/index.html", "/page.html", "/livez/", "/api/v1/", "/api/v2/status", "/../metrics", "//metrics", "/debug/pprof/", "/debug/pprof/heap"} {
		res, body := s.ask(http.MethodGet, path, nil)
		isProblem(t, res, body, http.StatusNotFound)
	}
}

func TestServer_everyAnswerForbidsTheBrowserToDoMore(t *testing.T) {
	s := visit(t, calmDay(), admin.Config{})
	for path := range paths() {
		for _, method := range []string{"GET", "POST"} {
			res, _ := s.ask(method, path, nil)
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
				"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
			} {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s %s: %s is %q, want %q", method, path, name, got, want)
				}
			}
			csp := res.Header.Get("Content-Security-Policy")
			if !strings.HasPrefix(csp, "default-src 'self';") || strings.Contains(csp, "unsafe") {
				t.Errorf("%s %s: policy is %q", method, path, csp)
			}
			if res.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s %s: other origins may read it", method, path)
			}
		}
	}
}

func TestServer_onLoopbackAnswersToLoopbackNamesOnly(t *testing.T) {
	s := visit(t, calmDay(), admin.Config{})
	for host, allowed := range map[string]bool{
		"localhost": true, "localhost:8422": true, "LOCALHOST": true, "localhost.": true, "workerd.localhost:1": true,
		"127.0.0.1": true, "127.0.0.1:8422": true, "127.9.9.9": true, "[::1]": true, "[::1]:8422": true, "[::ffff:127.0.0.1]:1": true,
		"evil.example": false, "evil.example:8422": false, "localhost.evil.example": false, "evillocalhost": false,
		"127.0.0.1.evil.example": false, "127.0.0.1.nip.io:8422": false, "0.0.0.0": false, "10.0.0.1": false, "[::]": false,
		"2130706433": false, "0x7f.1": false, "127.1": false, "[fe80::1]": false,
	} {
		for path := range paths() {
			res, body := s.ask(http.MethodGet, path, func(r *http.Request) { r.Host = host })
			if allowed && res.StatusCode != http.StatusOK {
				t.Errorf("Host %q, %s: %s, want 200", host, path, res.Status)
			}
			if !allowed && res.StatusCode == http.StatusOK {
				t.Errorf("Host %q, %s: answered", host, path)
			} else if !allowed && res.StatusCode != http.StatusBadRequest { // net/http refuses malformed ones by itself
				isProblem(t, res, body, http.StatusForbidden)
			}
		}
	}
}

func TestServer_elsewhereAnswersToAnyName(t *testing.T) {
	l := listen(t)
	start(t, newServer(calmDay(), admin.Config{}), elsewhere{l})
	s := site{t, l.Addr().String(), client(t)}
	if res, _ := s.ask(http.MethodGet, "/livez", func(r *http.Request) { r.Host = "worker-7.internal" }); res.StatusCode != http.StatusOK {
		t.Errorf("%s, want 200", res.Status)
	}
}

func TestServer_profilesAreGuarded(t *testing.T) {
	const token = "0123456789abcdef"
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	for _, c := range []struct {
		name     string
		cfg      admin.Config
		loopback bool
		edit     func(*http.Request)
		want     int
	}{
		{"off", admin.Config{Token: token}, true, bearer(token), 404},
		{"loopback needs no token", admin.Config{Pprof: true}, true, nil, 200},
		{"a page of another site", admin.Config{Pprof: true}, true, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		{"our own page", admin.Config{Pprof: true}, true, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") }, 200},
		{"elsewhere without a token", admin.Config{Pprof: true}, false, nil, 403},
		{"elsewhere with an empty token", admin.Config{Pprof: true}, false, bearer(""), 403},
		{"token missing", admin.Config{Pprof: true, Token: token}, true, nil, 401},
		{"token wrong", admin.Config{Pprof: true, Token: token}, false, bearer(token + "x"), 401},
		{"token under another scheme", admin.Config{Pprof: true, Token: token}, false, func(r *http.Request) { r.SetBasicAuth("", token) }, 401},
		{"token right", admin.Config{Pprof: true, Token: token}, false, bearer(token), 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := listen(t)
			s := site{t, l.Addr().String(), client(t)}
			if c.loopback {
				start(t, newServer(calmDay(), c.cfg), l)
			} else {
				start(t, newServer(calmDay(), c.cfg), elsewhere{l})
			}
			for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=1", "/debug/pprof/cmdline", "/debug/pprof/symbol"} {
				res, body := s.ask(http.MethodGet, path, c.edit)
				if c.want == http.StatusOK && res.StatusCode != http.StatusOK {
					t.Errorf("%s: %s, want 200", path, res.Status)
				}
				if c.want != 200 {
					isProblem(t, res, body, c.want)
				}
			}
			if res, _ := s.ask(http.MethodGet, "/livez", nil); res.StatusCode != http.StatusOK {
				t.Errorf("/livez: %s, health must not need a token", res.Status)
			}
		})
	}
}

func TestServer_statusIsTheWholeDocument(t *testing.T) {
	golden(t, "testdata/status.json", visit(t, outage(), admin.Config{}).get("/api/v1/status"))
}

func TestServer_statusOfNothingHasEmptyListsNotNull(t *testing.T) {
	s := visit(t, &fake{}, admin.Config{})
	if body := s.get("/api/v1/status"); strings.Contains(body, "null") {
		t.Errorf("null in %s", body)
	}
}

func TestServer_statusThatIsNoJSONIsAProblem(t *testing.T) {
	f := calmDay()
	f.status.Pools[0].JobsPerSecond = new(math.NaN())
	s := visit(t, f, admin.Config{})
	res, body := s.ask(http.MethodGet, "/api/v1/status", nil)
	isProblem(t, res, body, http.StatusInternalServerError)
	if res, _ := s.ask(http.MethodGet, "/", nil); res.StatusCode != http.StatusOK {
		t.Errorf("the page: %s, want 200", res.Status)
	}
}

func TestServer_versionAndMetrics(t *testing.T) {
	s := visit(t, calmDay(), admin.Config{})
	want := "{\n  \"version\": \"v0.1.0\",\n  \"revision\": \"0123abcd\",\n  \"go_version\": \"go1.26\"\n}\n"
	if got := s.get("/version"); got != want {
		t.Errorf("/version: %s", got)
	}
	if got := s.get("/metrics"); got != "workerd_ready 1\n" {
		t.Errorf("/metrics: %s", got)
	}
}
