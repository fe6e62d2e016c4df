package app_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/workerd/workerd/internal/config"
)

// TestRoutes_aDeadTargetDoesNotStopTheOthers, with a broker and HTTP: of the jobs
// of one pool those for one region find it down. The others are done meanwhile, the
// status says what waits for whom, and in the end nothing is dead.
func TestRoutes_aDeadTargetDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	var well atomic.Bool
	var us atomic.Int64
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		us.Add(1)
		if !well.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(down.Close)
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	file, problems := config.Load("test.yaml", []byte(`
nats: {url: "`+k.broker.URL()+`"}
targets:
  eu: {http: {url: "`+k.down.URL+`"}}
  us: {http: {url: "`+down.URL+`"}, retry: {max_attempts: 1}, breaker: {open_for: 3s, max_open_for: 3s}}
pools:
  hooks:
    target: eu
    stream: JOBS
    subjects: {normal: [jobs.>]}
    concurrency: 4
    redelivery: {initial_backoff: 100ms, max_backoff: 1s}
    routes: [{subject: "jobs.*.us", target: us}]
admin: {listen: "127.0.0.1:0"}`), func(string) (string, bool) { return "", false })
	if file == nil {
		t.Fatal(problems)
	}
	const others, dead = 200, 100
	for range dead {
		for _, subject := range []string{"jobs.a.eu", "jobs.b.eu", "jobs.a.us"} {
			if _, err := k.js.Publish(t.Context(), subject, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := k.run(file)
	await(t, "jobs of the healthy target", func() bool { return k.calls.Load() == others && k.left() == dead })
	if n := us.Load(); n > 30 {
		t.Errorf("the dead target was called %d times", n)
	}
	await(t, "the status says what waits", func() bool {
		s := d.Status()
		s.Complete()
		p := s.Pools[0]
		return strings.Join(p.Targets, " ") == "eu us" && p.Parked > 0 && strings.Contains(p.Why, "jobs in hand wait for their target")
	})
	for _, want := range []string{`workerd_pool_info{pool="hooks",target="eu"} 1`, `workerd_pool_info{pool="hooks",target="us"} 1`, `workerd_pool_parked{pool="hooks"} `} {
		if text := d.metrics(); !strings.Contains(text, "\n"+want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	well.Store(true)
	await(t, "everything done", func() bool { return k.left() == 0 })
	if n := k.calls.Load(); n != others {
		t.Errorf("%d calls of the healthy target for %d jobs", n, others)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	if s, err := k.js.Stream(t.Context(), "WORKERD_DLQ"); err == nil && s.CachedInfo().State.Msgs > 0 {
		t.Errorf("%d dead letters", s.CachedInfo().State.Msgs)
	}
}
