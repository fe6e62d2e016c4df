package app_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/app"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

// consumer of the one pool.
func (k *kit) consumer() *jetstream.ConsumerInfo {
	k.t.Helper()
	c, err := k.js.Consumer(k.t.Context(), "JOBS", "p-normal")
	if err != nil {
		k.t.Fatal(err)
	}
	info, err := c.Info(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	return info
}

// TestInvariant41_notReadyBeforeTheFirstJobGoesBackAndNoPullAfterwards: when a
// job is given back nobody can be told any more that this replica takes jobs;
// and what is published from then on is for others.
func TestInvariant41_notReadyBeforeTheFirstJobGoesBackAndNoPullAfterwards(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.pool = "prefetch: 4"
	finish := make(chan struct{})
	k.decide = func(string) int { <-finish; return http.StatusOK }
	var d atomic.Pointer[daemon]
	var back, early atomic.Int64
	started := k.runOn(k.load(described), app.Stage{OnReport: func(r pool.Report) {
		if r.Outcome.Action != job.Release {
			return
		}
		back.Add(1)
		for _, check := range d.Load().Ready() {
			if check.Name == "shutdown" && check.OK {
				early.Add(1)
			}
		}
	}})
	d.Store(started)
	started.awaitReady()
	k.publish(8)
	await(t, "4 jobs run and 4 wait", func() bool { p := started.Status().Pools[0]; return p.InFlight == 4 && p.Waiting == 4 })
	started.drain()
	await(t, "what waits is handed back", func() bool { return back.Load() == 4 })
	if n := early.Load(); n > 0 {
		t.Errorf("%d jobs went back while it was ready", n)
	}
	await(t, "the phase drain", func() bool { return started.Status().Drain.Phase == "drain" })
	before := k.consumer().Delivered.Consumer
	k.publish(20)
	if info := k.consumer(); info.NumWaiting != 0 || info.Delivered.Consumer != before {
		t.Errorf("%d requests wait, %d deliveries more, want none", info.NumWaiting, info.Delivered.Consumer-before)
	}
	close(finish)
	if err := started.end(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if calls, left := k.calls.Load(), k.left(); calls != 4 || left != 24 {
		t.Errorf("%d calls, %d jobs left; want 4 and 24", calls, left)
	}
}

// TestInvariant42_whatWasHeldIsNotWaitedFor: the lease is an hour, but whatever
// a worker held when it was told to stop (running, waiting for a permit, waiting
// for its next try) is done by the next one now.
func TestInvariant42_whatWasHeldIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.retry = "{max_attempts: 3, initial_backoff: 1m, max_backoff: 1m, jitter: none}"
	k.pool = "prefetch: 4, ack_wait: 1h"
	next := make(chan struct{})
	k.decide = func(body string) int {
		select {
		case <-next:
			return http.StatusOK
		default:
		}
		if body == "0" {
			return http.StatusInternalServerError // from now on it waits for its next try
		}
		return 0
	}
	was := k.start(described + "\ndrain: {timeout: 2s, flush_timeout: 1s}")
	was.awaitReady()
	k.publish(12)
	await(t, "4 jobs run, one of them waits to try again, and 4 wait", func() bool {
		p := was.Status().Pools[0]
		return p.InFlight == 4 && p.Waiting == 4 && k.calls.Load() == 4
	})
	if err := was.stop(); !errors.Is(err, app.ErrIncomplete) {
		t.Errorf("stopped with %v, want that it says what it left", err)
	}
	close(next)
	k.start(described).awaitReady()
	await(t, "all but the one that waits for its next try are done", func() bool { return k.left() <= 1 })
}

// TestInvariant43_itLivesWhateverIsDown: targets, their health checks, the
// broker and with it the bucket of attempts. And whoever asks is answered while
// a health check hangs.
func TestInvariant43_itLivesWhateverIsDown(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	var hangs atomic.Int64
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			hangs.Add(1)
			defer hangs.Add(-1)
			<-r.Context().Done()
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(down.Close)
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	file, problems := config.Load("test.yaml", []byte(`
nats: {url: "`+k.broker.URL()+`"}
targets:
  t:
    http: {url: "`+down.URL+`/jobs"}
    timeout: 1m
    breaker: {open_for: 100ms, max_open_for: 1m, probe_timeout: 1h}
    probe: {path: /healthz, timeout: 10m}
    fallback: [{publish: parked.x, on: [open]}]
    degrade_when: {unhealthy: 1}
pools: {p: {target: t, stream: JOBS, subjects: {normal: [jobs.>]}, concurrency: 2, redelivery: {initial_backoff: 50ms}}}
drain: {timeout: 1s}
admin: {listen: "127.0.0.1:0"}`), func(string) (string, bool) { return "", false })
	if file == nil {
		t.Fatal(problems)
	}
	d := k.run(file)
	d.awaitReady()
	k.publish(20)
	await(t, "the breaker is open, and both that ask hang", func() bool {
		return hangs.Load() == 2 && d.Status().Targets[0].Breaker.State != admin.BreakerClosed
	})
	says := func(path string, want int) string {
		t.Helper()
		code, body := d.get(path)
		if code != want {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
		return body
	}
	says("/livez", http.StatusOK)
	says("/readyz", http.StatusOK) // no other replica would do better
	says("/healthz", http.StatusOK)
	if hangs.Load() != 2 {
		t.Error("somebody waited for a health check")
	}
	k.broker.Stop()
	await(t, "it has noticed", func() bool { code, _ := d.get("/readyz"); return code == http.StatusServiceUnavailable })
	says("/livez", http.StatusOK)
	if body := says("/readyz", http.StatusServiceUnavailable); !strings.Contains(body, "[-]nats failed: ") {
		t.Errorf("/readyz does not say why: %s", body)
	}
	d.hurry()
	_ = d.stop() // what it left without a broker is another test's
}
