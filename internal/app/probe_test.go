package app_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/workerd/workerd/internal/config"
)

// TestProbe_findsOutWithoutAJob: the target is down, then well again. No job is
// spent in between, and the metrics tell the two apart.
func TestProbe_findsOutWithoutAJob(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	var well atomic.Bool
	var jobs, asked atomic.Int64
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count := &jobs
		if r.URL.Path == "/healthz" {
			count = &asked
		}
		count.Add(1)
		if !well.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(down.Close)
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	k.publish(20)
	file, problems := config.Load("test.yaml", []byte(`
nats: {url: "`+k.broker.URL()+`"}
targets:
  t:
    http: {url: "`+down.URL+`/jobs"}
    retry: {max_attempts: 1}
    breaker: {open_for: 100ms, max_open_for: 1s}
    probe: {path: /healthz, interval: 500ms}
pools: {p: {target: t, stream: JOBS, subjects: {normal: [jobs.>]}, concurrency: 2, redelivery: {initial_backoff: 50ms}}}
admin: {listen: "127.0.0.1:0"}`), func(string) (string, bool) { return "", false })
	if file == nil {
		t.Fatal(problems)
	}
	d := k.run(file)
	await(t, "some probes", func() bool { return asked.Load() >= 4 })
	if n := jobs.Load(); n > 7 { // five to open the breaker, and what was in flight
		t.Errorf("%d jobs were spent, besides %d probes", n, asked.Load())
	}
	await(t, "the pool says that a probe is next", func() bool {
		_, text := d.get("/api/v1/status")
		return strings.Contains(text, "next probe of /healthz in ")
	})
	well.Store(true)
	await(t, "all jobs are done", func() bool { return k.left() == 0 })
	_, text := d.get("/metrics")
	for _, want := range []string{`workerd_probes_total{result="ok",target="t"} 1`, `workerd_probes_total{result="status_5xx",target="t"} `, `workerd_target_attempts_total{result="ok",target="t"} 20`} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if err := d.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}
