package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/pprof" // it registers on the default mux too, which nobody serves
	"strings"
	"time"
)

// routes by path. Each answers GET and HEAD; controls (see [parseControl]) are
// apart from them, as their paths have names in them.
func (s *Server) routes(loopback bool) map[string]http.Handler {
	r := map[string]http.Handler{
		"/":              http.HandlerFunc(s.page),
		"/livez":         health("livez", s.backend.Live),
		"/readyz":        health("readyz", s.backend.Ready),
		"/healthz":       health("healthz", s.backend.Live, s.backend.Ready),
		"/-/healthy":     health("livez", s.backend.Live),
		"/-/ready":       health("readyz", s.backend.Ready),
		"/metrics":       s.metrics,
		"/api/v1/status": http.HandlerFunc(s.status),
		"/version":       http.HandlerFunc(s.version),
	}
	maps.Copy(r, staticFiles())
	if s.cfg.Pprof {
		g := guard{token: s.cfg.Token, loopback: loopback}
		r["/debug/pprof/"] = g.wrap(pprof.Index)
		for path, h := range map[string]http.HandlerFunc{"cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace} {
			r["/debug/pprof/"+path] = g.wrap(h)
		}
		for _, profile := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
			r["/debug/pprof/"+profile] = g.wrap(pprof.Index)
		}
	}
	return r
}

// handler is all that happens to a request before its route answers.
func (s *Server) handler(loopback bool) http.Handler {
	routes := s.routes(loopback)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protect(w.Header())
		timeout := writeTimeout
		if strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
			timeout = profileTimeout
		}
		// Not supported by a recorder in tests, which has no time to lose.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout))
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		route, ok := routes[r.URL.Path]
		control, controls := parseControl(r.URL.Path)
		switch {
		case loopback && !hostAllowed(r.Host):
			fail(w, r, http.StatusForbidden, "this listener is on a loopback address and answers to localhost, 127.0.0.1 and [::1] only; "+
				"set admin.listen to another address to allow other names")
		case controls:
			guard{token: s.cfg.Token, loopback: loopback}.wrap(s.control(control)).ServeHTTP(w, r)
		case !ok:
			fail(w, r, http.StatusNotFound, "no such page; see / or /api/v1/status")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			fail(w, r, http.StatusMethodNotAllowed, "use GET or HEAD")
		default:
			route.ServeHTTP(w, r)
		}
	})
}

// protect sets what keeps a browser from doing more than showing the answer.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// hostAllowed tells whether a Host header names this machine. A web page that
// points a DNS name of its own at 127.0.0.1 sends that name. None at all is
// sent by simple probes, and by no browser.
func hostAllowed(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "" || isLoopbackName(host)
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	status := s.backend.Status()
	status.Complete()
	answer(w, r, status)
}

func (s *Server) version(w http.ResponseWriter, r *http.Request) {
	status := s.backend.Status()
	answer(w, r, struct {
		Version   string `json:"version"`
		Revision  string `json:"revision,omitempty"`
		GoVersion string `json:"go_version,omitempty"`
	}{status.Version, status.Revision, status.GoVersion})
}

// answer writes JSON, whole or not at all.
func answer(w http.ResponseWriter, r *http.Request, v any) {
	body, err := marshal(v)
	if err != nil {
		fail(w, r, http.StatusInternalServerError, fmt.Sprintf("the answer could not be written as JSON: %v", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	write(w, http.StatusOK, body)
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// write sends a response. An error means that the client has gone.
func write(w http.ResponseWriter, status int, body []byte) {
	w.WriteHeader(status)
	_, _ = w.Write(body) // see above
}

// problem is an error as RFC 9457 has it.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail"`
	Instance string `json:"instance"`
}

// fail answers with a problem document.
func fail(w http.ResponseWriter, r *http.Request, status int, detail string) {
	body, err := marshal(problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Instance: r.URL.Path})
	if err != nil {
		panic("admin: strings that are no JSON: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/problem+json")
	write(w, status, body)
}
