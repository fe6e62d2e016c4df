package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// canaries are secrets that must never be seen again. Each has a beginning of
// its own, so that a part of it gives it away, too.
func canaries() map[string]string {
	return map[string]string{
		"the URL's user info": "canaryURL-4f1c7d2e9b", "nats.password": "canaryPassword-77ab21", "admin.token": "canaryToken-0b5de3f1",
		"a header": "canaryHeader-93e1f4aa", "a query": "canaryQuery-5d02c81b",
	}
}

// checkNoCanary looks for secrets in what was shown.
func checkNoCanary(t *testing.T, where, shown string) {
	t.Helper()
	for name, secret := range canaries() {
		if at := strings.Index(shown, secret[:len(secret)-4]); at >= 0 {
			t.Errorf("%s shows the secret of %s: …%.120q…", where, name, shown[max(0, at-60):])
		}
	}
}

// secretConfig holds every canary, and a target for each kind of trouble.
func secretConfig(n *natsProcess, admin string, targets map[string]string) string {
	s := canaries()
	at := strings.Replace(n.url(), "nats://", "nats://someone:"+s["the URL's user info"]+"@", 1)
	var b strings.Builder
	fmt.Fprintf(&b, "nats: {url: %q, user: app, password: %q}\nadmin: {listen: %q, token: %q}\nlog: {format: json, job: all, level: debug}\n",
		at, s["nats.password"], admin, s["admin.token"])
	b.WriteString("drain: {timeout: 5s, flush_timeout: 1s}\ntargets:\n")
	for name, url := range targets {
		fmt.Fprintf(&b, "  %s: {http: {url: %q, headers: {Authorization: %q}}, timeout: 1s, retry: {initial_backoff: 10ms}, breaker: {consecutive_failures: 3}}\n",
			name, url+"?key="+s["a query"], "Bearer "+s["a header"])
	}
	b.WriteString("pools:\n")
	for name := range targets {
		fmt.Fprintf(&b, "  %s: {target: %s, stream: JOBS, subjects: {normal: [jobs.%s.>]}, redelivery: {max_attempts: 2, initial_backoff: 100ms, max_backoff: 100ms}}\n", name, name, name)
	}
	return b.String()
}

// TestSecrets_areNowhereToBeSeen: not in the log, whatever goes wrong; not on
// the page, in the API, in metrics, in what the commands print; not in the
// stacks of a process that is told to crash.
func TestSecrets_areNowhereToBeSeen(t *testing.T) {
	n := startNATS(t)
	c := connect(t, n)
	echo := startEcho(t)
	admin := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	closed := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	file := filepath.Join(t.TempDir(), "workerd.yaml")
	cfg := secretConfig(n, admin, map[string]string{
		"echo": "http://" + echo + "/", "refused": "http://" + closed + "/", "notls": "https://" + echo + "/",
		"nohost": "http://does-not-exist.invalid/", "hang": "http://" + echo + "/hang", "reset": "http://" + echo + "/reset",
	})
	if err := os.WriteFile(file, []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	s := canaries()
	nobody := "nats://someone:" + s["the URL's user info"] + "@" + closed
	for _, args := range [][]string{
		{"check", file},
		{"show", file},
		{"show", "--format", "json", file},
		{"publish", "--server", nobody, "--password", s["nats.password"], "jobs.a"},
		{"healthcheck", file},
	} {
		out, _ := exec.Command(binary, args...).CombinedOutput() // some fail, which is what they are to talk about
		if len(out) == 0 {
			t.Errorf("workerd %s says nothing", args[0])
		}
		checkNoCanary(t, "workerd "+args[0], string(out))
	}
	w := spawn(t, admin, binary, "run", file)
	w.awaitReady()
	for _, pool := range []string{"echo", "refused", "notls", "nohost", "hang", "reset"} {
		c.publish("jobs."+pool+".x", pool, 3)
	}
	await(t, 60*time.Second, "jobs have failed in every way", func() bool {
		said := w.stderr.String()
		return containsAll(said, []string{`"reason":"status_5xx"`, `"reason":"connect"`, `"reason":"tls"`, `"reason":"dns"`, `"reason":"timeout"`, `"reason":"reset"`})
	})
	for _, path := range []string{"/", "/page.js", "/metrics", "/api/v1/status", "/readyz", "/healthz", "/livez", "/nothing"} {
		_, body := w.get(path)
		checkNoCanary(t, path, body)
	}
	n.kill()
	await(t, 20*time.Second, "the outage is spoken of", func() bool { return strings.Contains(w.stderr.String(), "lost the connection to NATS") })
	n.start()
	await(t, 30*time.Second, "the connection is back", func() bool { return strings.Contains(w.stderr.String(), "reconnected to NATS") })
	w.signal(syscall.SIGQUIT) // the runtime prints all stacks and dies
	w.wait(20 * time.Second)
	if !strings.Contains(w.stderr.String(), "goroutine ") {
		t.Error("there is no crash to look into")
	}
	checkNoCanary(t, "the log", w.stderr.String())
	for _, m := range c.letters() {
		checkNoCanary(t, "a dead letter", m)
	}
}

// startEcho is a downstream that says in its errors all it was told.
func startEcho(t *testing.T) string {
	d := startDownstream(t, ok)
	d.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/hang":
			<-r.Context().Done()
		case "/reset":
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "bad credentials: %s", r.Header.Get("Authorization"))
	})
	return d.addr
}

// letters returns the headers of the dead letters, as text.
func (c *client) letters() []string {
	c.t.Helper()
	var all []string
	s, err := c.js.Stream(c.t.Context(), "WORKERD_DLQ")
	if err != nil {
		c.t.Fatal(err)
	}
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(c.t.Context(), seq)
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, fmt.Sprint(m.Header))
	}
	return all
}
