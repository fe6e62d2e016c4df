package app_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/config"
)

// ward is a target with a health check, and a workerd that asks it.
type ward struct {
	*daemon
	kit           *kit
	well          atomic.Bool
	asked, called atomic.Int64
}

// newWard starts a workerd whose one target has the given lines more.
func newWard(t *testing.T, more string) *ward {
	t.Helper()
	w := &ward{kit: newKit(t)}
	w.well.Store(true)
	down := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		count := &w.called
		if r.URL.Path == "/healthz" {
			count = &w.asked
		}
		count.Add(1)
		if !w.well.Load() {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(down.Close)
	w.kit.broker.Stream(w.kit.js, "JOBS", "jobs.>")
	file, problems := config.Load("test.yaml", []byte(`
nats: {url: "`+w.kit.broker.URL()+`"}
targets:
  t:
    http: {url: "`+down.URL+`/jobs"}
    retry: {max_attempts: 1}
    breaker: {consecutive_failures: 1000, failure_rate: 1, min_calls: 1000}
    fallback: [{cache: 1h}, {reply: {body: "instead"}}]
    `+more+`
pools: {p: {target: t, stream: JOBS, subjects: {normal: [jobs.>]}, concurrency: 2, results: {subjects: [_INBOX.>]}}}
admin: {listen: "127.0.0.1:0"}`), func(string) (string, bool) { return "", false })
	if file == nil {
		t.Fatal(problems)
	}
	w.daemon = w.kit.run(file)
	w.awaitReady()
	return w
}

func (w *ward) target() admin.Target {
	s := w.Status()
	s.Complete()
	return s.Targets[0]
}

func (w *ward) awaitDegraded(by string) {
	w.t.Helper()
	await(w.t, "degraded by "+by, func() bool {
		d := w.target().Degraded
		if by == "" {
			return d == nil
		}
		return d != nil && d.On && d.By == by
	})
}

// TestDegrade_byItsHealthChecks: a target that says that it is not well is not
// called, whoever looks can see why, and it is called again when it is well.
func TestDegrade_byItsHealthChecks(t *testing.T) {
	t.Parallel()
	w := newWard(t, "probe: /healthz\n    degrade_when: {unhealthy: 2, interval: 500ms}")
	w.kit.publish(5)
	await(t, "its own jobs", func() bool { return w.kit.left() == 0 })
	if n := w.called.Load(); n != 5 {
		t.Errorf("%d calls for 5 jobs", n)
	}
	w.well.Store(false)
	w.awaitDegraded(admin.ByHealth)
	if why, want := w.target().Why, "ends when /healthz is answered well 2 times in a row"; !strings.Contains(why, want) || !strings.Contains(why, "health checks in a row were not good, the last: status_5xx") {
		t.Errorf("it says %q, want why, and %q", why, want)
	}
	w.kit.publish(7)
	await(t, "jobs done by the fallback", func() bool { return w.kit.left() == 0 })
	if n := w.called.Load(); n != 5 {
		t.Errorf("the target was called %d times more", n-5)
	}
	for _, want := range []string{
		`workerd_target_degraded{target="t"} 1`, `workerd_fallbacks_total{result="ok",step="cache",target="t"} 5`,
		`workerd_fallbacks_total{result="ok",step="static",target="t"} 2`,
	} {
		if text := w.metrics(); !strings.Contains(text, "\n"+want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if _, page := w.get("/"); !strings.Contains(page, "degraded") || !strings.Contains(page, "its jobs go straight to the fallback of t") {
		t.Error("the page does not say so")
	}
	await(t, "the log says so", func() bool { return strings.Contains(w.log.String(), "target is degraded") })
	w.well.Store(true)
	w.awaitDegraded("")
	w.kit.publish(3)
	await(t, "its own jobs again", func() bool { return w.kit.left() == 0 && w.called.Load() > 5 })
	await(t, "the log says that it is over", func() bool { return strings.Contains(w.log.String(), "target is not degraded any more") })
	if err := w.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// TestDegrade_byTheRateOfFallbacks: most jobs need the fallback anyway, so the
// target gets none for a while, and then few at first.
func TestDegrade_byTheRateOfFallbacks(t *testing.T) {
	t.Parallel()
	w := newWard(t, "degrade_when: {fallback_rate: 0.5, min_jobs: 10, for: 2s}")
	w.well.Store(false)
	w.kit.publish(40)
	w.awaitDegraded(admin.ByRate)
	var since time.Time
	if d := w.target().Degraded; d != nil {
		since = d.Since
	}
	await(t, "all jobs done", func() bool { return w.kit.left() == 0 })
	calls := w.called.Load()
	if d := w.target().Degraded; d != nil && d.Since.Equal(since) && calls > 12 { // ten, and two that were under way
		t.Errorf("%d calls", calls)
	}
	w.well.Store(true)
	w.awaitDegraded("")
	w.kit.publish(10)
	await(t, "called again", func() bool { return w.kit.left() == 0 && w.called.Load() > calls })
	if err := w.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// TestDegrade_whatAnOperatorSays: planned, shown, and taken back; and taking it
// back also ends what began by itself.
func TestDegrade_whatAnOperatorSays(t *testing.T) {
	t.Parallel()
	w := newWard(t, "probe: /healthz\n    degrade_when: {unhealthy: 1, interval: 10m}")
	do := func(c admin.Control) {
		t.Helper()
		c.Name = "t"
		if err := w.Control(c); err != nil {
			t.Fatal(err)
		}
	}
	do(admin.Control{Verb: admin.Degrade, At: time.Now().Add(time.Hour), For: time.Hour, Reason: "night"})
	if why := w.target().Why; !strings.HasPrefix(why, "will be degraded in ") {
		t.Errorf("it says %q", why)
	}
	do(admin.Control{Verb: admin.Degrade, For: time.Hour, Reason: "deploy"})
	if why := w.target().Why; !strings.Contains(why, `by an operator ("deploy")`) {
		t.Errorf("it says %q", why)
	}
	do(admin.Control{Verb: admin.Restore})
	w.awaitDegraded("")
	if err := w.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}
