package admin_test

import (
	"net/http"
	"testing"

	"github.com/workerd/workerd/internal/admin"
)

func TestHealth_answersInWordsAndStatus(t *testing.T) {
	well := calmDay()
	ill := &fake{live: well.live, ready: []admin.Check{{Name: "nats", OK: true}, {Name: "shutdown", Message: "since 6s"}, {Name: "consumers"}}}
	dead := &fake{live: []admin.Check{{Name: "pools", Message: "line one\nline two\x1b[0m"}}, ready: well.ready}
	for _, c := range []struct {
		path   string
		f      *fake
		status int
		body   string
	}{
		{"/livez", well, 200, "ok\n"},
		{"/readyz", well, 200, "ok\n"},
		{"/healthz", well, 200, "ok\n"},
		{"/readyz?verbose", well, 200, "[+]nats ok\n[+]consumers ok: 4 of 4\nreadyz check passed\n"},
		{"/-/ready?verbose=1", well, 200, "[+]nats ok\n[+]consumers ok: 4 of 4\nreadyz check passed\n"},
		{"/healthz?verbose", well, 200, "[+]pools ok\n[+]nats ok\n[+]consumers ok: 4 of 4\nhealthz check passed\n"},
		{"/readyz?verbose&exclude=nats", well, 200, "[+]consumers ok: 4 of 4\nreadyz check passed\n"},
		{"/readyz", ill, 503, "[+]nats ok\n[-]shutdown failed: since 6s\n[-]consumers failed\nreadyz check failed\n"},
		{"/-/ready", ill, 503, "[+]nats ok\n[-]shutdown failed: since 6s\n[-]consumers failed\nreadyz check failed\n"},
		{"/readyz?exclude=shutdown&exclude=consumers", ill, 200, "ok\n"},
		{"/livez", ill, 200, "ok\n"},
		{"/-/healthy", ill, 200, "ok\n"},
		{"/livez", dead, 503, "[-]pools failed: line one line two\ufffd[0m\nlivez check failed\n"},
		{"/-/healthy", dead, 503, "[-]pools failed: line one line two\ufffd[0m\nlivez check failed\n"},
		{"/healthz?exclude=pools", dead, 200, "ok\n"},
	} {
		s := visit(t, c.f, admin.Config{})
		res, body := s.ask(http.MethodGet, c.path, nil)
		if res.StatusCode != c.status || body != c.body {
			t.Errorf("%s: %s, %q, want %d, %q", c.path, res.Status, body, c.status, c.body)
		}
		if res, body := s.ask(http.MethodHead, c.path, nil); res.StatusCode != c.status || body != "" {
			t.Errorf("HEAD %s: %s, %q, want %d and nothing", c.path, res.Status, body, c.status)
		}
	}
}
