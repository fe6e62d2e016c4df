package admin_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/secret"
)

func (s site) post(path, body string, edit func(*http.Request)) (*http.Response, string) {
	s.Helper()
	return s.ask(http.MethodPost, path, func(r *http.Request) {
		r.Body, r.ContentLength = http.NoBody, 0
		if body != "" {
			r.Body, r.ContentLength = readCloser{strings.NewReader(body)}, int64(len(body))
		}
		if edit != nil {
			edit(r)
		}
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func TestControl_isCarriedOutWithTimeAndReason(t *testing.T) {
	f := &fake{}
	s := visit(t, f, admin.Config{})
	for path, body := range map[string]string{
		"/api/v1/pools/mail/pause":       `{"for": "10m", "reason": "deploy"}`,
		"/api/v1/targets/mailer/open":    `{"for": "1h"}`,
		"/api/v1/targets/mailer/auto":    "",
		"/api/v1/targets/mailer/degrade": `{"at": "2999-01-31T02:00:00Z"}`,
	} {
		if res, text := s.post(path, body, nil); res.StatusCode != http.StatusOK || !strings.Contains(text, `"done": true`) {
			t.Errorf("%s: %d %s", path, res.StatusCode, text)
		}
	}
	want := admin.Control{Verb: admin.PausePool, Name: "mail", For: 10 * time.Minute, Reason: "deploy"}
	for _, c := range f.controls {
		if c.Verb == admin.PausePool && c != want {
			t.Errorf("got %+v, want %+v", c, want)
		}
		if c.Verb == admin.Degrade && !c.At.Equal(time.Date(2999, 1, 31, 2, 0, 0, 0, time.UTC)) {
			t.Errorf("got %+v, want it at the time given", c)
		}
	}
	if len(f.controls) != 4 {
		t.Errorf("%d controls were carried out, want 4", len(f.controls))
	}
}

func TestControl_saysWhatIsWrong(t *testing.T) {
	s := visit(t, &fake{}, admin.Config{})
	for _, c := range []struct {
		path, body, want string
		status           int
	}{
		{"/api/v1/pools/nobody/pause", "", "unknown name", http.StatusNotFound},
		{"/api/v1/pools/never/pause", "", "cannot be done", http.StatusConflict},
		{"/api/v1/pools/mail/open", "", "no such page", http.StatusNotFound},
		{"/api/v1/pools//pause", "", "no such page", http.StatusNotFound},
		{"/api/v1/pools/mail/pause", `{"for": "soon"}`, `"soon" is not allowed`, http.StatusBadRequest},
		{"/api/v1/pools/mail/pause", `{"for": "-1s"}`, "is not allowed", http.StatusBadRequest},
		{"/api/v1/pools/mail/pause", `{"at": "2999-01-31T02:00:00Z"}`, "only degrade can be planned", http.StatusBadRequest},
		{"/api/v1/targets/mailer/degrade", `{"at": "02:00"}`, "use a time like", http.StatusBadRequest},
		{"/api/v1/targets/mailer/degrade", `{"at": "2001-01-31T02:00:00Z"}`, "is over", http.StatusBadRequest},
		{"/api/v1/pools/mail/pause", `{"four": "1s"}`, "unknown field", http.StatusBadRequest},
		{"/api/v1/pools/mail/pause", `{"reason": "` + strings.Repeat("x", 201) + `"}`, "200 or less", http.StatusBadRequest},
	} {
		if res, text := s.post(c.path, c.body, nil); res.StatusCode != c.status || !strings.Contains(strings.ReplaceAll(text, `\"`, `"`), c.want) {
			t.Errorf("%s %s: %d %s, want %d %s", c.path, c.body, res.StatusCode, text, c.status, c.want)
		}
	}
	if res, _ := s.ask(http.MethodGet, "/api/v1/pools/mail/pause", nil); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
}

func TestControl_isForThoseWhoMayDoMoreThanLook(t *testing.T) {
	f := &fake{}
	s := visit(t, f, admin.Config{Token: secret.Secret("a token of some length")})
	for name, c := range map[string]struct {
		edit func(*http.Request)
		want int
	}{
		"no token":          {nil, http.StatusUnauthorized},
		"wrong token":       {func(r *http.Request) { r.Header.Set("Authorization", "Bearer no") }, http.StatusUnauthorized},
		"another web page":  {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden},
		"another host name": {func(r *http.Request) { r.Host = "evil.example" }, http.StatusForbidden},
		"the token":         {func(r *http.Request) { r.Header.Set("Authorization", "Bearer a token of some length") }, http.StatusOK},
	} {
		if res, text := s.post("/api/v1/pools/mail/pause", "", c.edit); res.StatusCode != c.want {
			t.Errorf("%s: %d %s, want %d", name, res.StatusCode, text, c.want)
		}
	}
	if len(f.controls) != 1 {
		t.Errorf("%d controls were carried out, want 1", len(f.controls))
	}
}
