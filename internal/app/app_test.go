package app_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/app"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/natstest"
)

func TestMain(m *testing.M) {
	// The server leaves these behind when it is stopped while it makes a stream.
	// One that is not stopped at all is found by its other goroutines.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).syncBlocks"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// kit is a broker with a stream JOBS and a downstream.
type kit struct {
	t      *testing.T
	broker *natstest.Broker
	js     jetstream.JetStream
	down   *httptest.Server
	calls  atomic.Int64
	answer atomic.Int64 // status; 0: wait until the caller gives up

	mu      sync.Mutex            // for decide
	decide  func(body string) int // instead of answer, if set before the start
	breaker string                // what is configured
	retry   string
	pool    string // what is configured beside
}

func newKit(t *testing.T) *kit { return newKitOn(t, natstest.Start(t)) }

func newKitOn(t *testing.T, b *natstest.Broker) *kit {
	_, js := b.Connect()
	k := &kit{t: t, broker: b, js: js, breaker: "{open_for: 1h}", retry: "{max_attempts: 1}", pool: "redelivery: {initial_backoff: 50ms}"}
	k.answer.Store(http.StatusOK)
	k.down = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.calls.Add(1)
		body, _ := io.ReadAll(r.Body)
		status := int(k.answer.Load())
		if k.decide != nil {
			status = k.decide(string(body))
		}
		if status == 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(k.down.Close)
	return k
}

func (k *kit) publish(n int) {
	k.t.Helper()
	for i := range n {
		if _, err := k.js.Publish(k.t.Context(), "jobs.a", fmt.Appendf(nil, "%d", i)); err != nil {
			k.t.Fatal(err)
		}
	}
}

func (k *kit) left() uint64 {
	s, err := k.js.Stream(context.Background(), "JOBS")
	if err != nil {
		return 0
	}
	return s.CachedInfo().State.Msgs
}

// daemon is a workerd in this process.
type daemon struct {
	*app.App
	t            *testing.T
	log          lockedBuffer
	drain, hurry context.CancelFunc
	done         chan error
}

func (d *daemon) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(&d.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// load reads a configuration with one pool and the given lines more.
func (k *kit) load(more string) *config.File {
	k.t.Helper()
	text := fmt.Sprintf(`
nats: {url: %q}
targets: {t: {http: {url: %q}, breaker: %s, retry: %s}}
pools: {p: {target: t, stream: JOBS, subjects: {normal: ["jobs.>"]}, concurrency: 4, %s}}
%s`, k.broker.URL(), k.down.URL, k.breaker, k.retry, k.pool, more)
	if !strings.Contains(more, "admin:") {
		text += "\nadmin: {listen: \"127.0.0.1:0\"}"
	}
	file, problems := config.Load("test.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if file == nil {
		k.t.Fatal(problems)
	}
	return file
}

func (k *kit) start(more string) *daemon {
	k.t.Helper()
	return k.run(k.load(more))
}

func (k *kit) run(cfg *config.File) *daemon {
	k.t.Helper()
	return k.runOn(cfg, app.Stage{})
}

func (k *kit) runOn(cfg *config.File, stage app.Stage) *daemon {
	k.t.Helper()
	d := &daemon{t: k.t, done: make(chan error, 1)}
	var err error
	if d.App, err = app.New(cfg, app.Options{Log: d.logger(), Version: "test", Stage: stage}); err != nil {
		k.t.Fatal(err)
	}
	var drain, hurry context.Context
	drain, d.drain = context.WithCancel(context.Background())
	hurry, d.hurry = context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { d.done <- d.Run(drain, hurry) })
	k.t.Cleanup(func() { d.drain(); d.hurry(); running.Wait() })
	return d
}

const described = `streams: {JOBS: {subjects: ["jobs.>"]}}`

// stop drains and returns what Run returned.
func (d *daemon) stop() error {
	d.t.Helper()
	d.drain()
	return d.end()
}

func (d *daemon) end() error {
	d.t.Helper()
	select {
	case err := <-d.done:
		return err
	case <-time.After(15 * time.Second):
		d.t.Fatal("Run does not return")
		return nil
	}
}

// await polls: what others do sends no events.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(15 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within 15 s", what)
		}
	}
}

func (d *daemon) awaitReady() {
	d.t.Helper()
	await(d.t, "ready", func() bool { return d.Status().Ready })
}

func (d *daemon) get(path string) (int, string) {
	d.t.Helper()
	resp, err := http.Get("http://" + d.Addr().String() + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (d *daemon) metrics() string {
	d.t.Helper()
	_, body := d.get("/metrics")
	return body
}

func TestApp_doesItsJobsAndCountsThem(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	d := k.start(described)
	d.awaitReady()
	k.publish(100)
	await(t, "all jobs are done", func() bool { return d.Status().Pools[0].Jobs.OK == 100 })
	await(t, "the stream is empty", func() bool { return k.left() == 0 })
	for _, want := range []string{
		`workerd_jobs_completed_total{outcome="ok",pool="p"} 100`, `workerd_pool_in_flight{pool="p"} 0`, "workerd_ready 1", "workerd_nats_connected 1",
	} {
		if got := d.metrics(); !strings.Contains(got, want+"\n") {
			t.Errorf("metrics do not say %s", want)
		}
	}
	if calls := k.calls.Load(); calls != 100 {
		t.Errorf("%d calls, want 100", calls)
	}
	if err := d.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func TestApp_openBreakerStopsPullingAndIsTheReason(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.answer.Store(http.StatusServiceUnavailable)
	d := k.start(described)
	d.awaitReady()
	k.publish(200)
	var p admin.Pool
	await(t, "the pool is held", func() bool { p = d.Status().Pools[0]; return p.State == admin.PoolHeld })
	await(t, "what was in flight has ended", func() bool { return d.Status().Pools[0].InFlight == 0 })
	if !strings.Contains(p.Why, "breaker of t is open") {
		t.Errorf("why: %q", p.Why)
	}
	if calls := k.calls.Load(); calls > 4+5 {
		t.Errorf("%d calls, want no more than the five that opened the breaker and what ran beside them", calls)
	}
	if !d.Status().Ready {
		t.Error("an open breaker makes the replica unready")
	}
	if err := d.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if left := k.left(); left != 200 {
		t.Errorf("%d jobs in the stream, want all 200", left)
	}
}

func TestApp_saysWhatItIsWaitingFor(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	d := k.start("")
	const want = "stream JOBS does not exist: create it, or describe it under streams"
	await(t, "the missing stream is named", func() bool {
		s := d.Status()
		return !s.Ready && strings.Contains(fmt.Sprint(s.Checks), want) && strings.Contains(s.Pools[0].Why, "JOBS")
	})
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	d.awaitReady()
}

func TestApp_leavesAStreamAsItIsAndSaysSo(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	if _, err := k.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs.>"}, MaxAge: time.Hour}); err != nil {
		t.Fatal(err)
	}
	d := k.start(described)
	d.awaitReady()
	await(t, "the difference is logged", func() bool {
		return strings.Contains(d.log.String(), "stream differs from the configuration") && strings.Contains(d.log.String(), "max_age is 1h0m0s")
	})
	s, err := k.js.Stream(t.Context(), "JOBS")
	if err != nil || s.CachedInfo().Config.MaxAge != time.Hour {
		t.Errorf("the stream was changed: %+v, %v", s.CachedInfo().Config, err)
	}
}

func TestApp_interruptsWhatDoesNotEndAndHandsItBack(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.answer.Store(0)
	d := k.start(described + "\ndrain: {timeout: 1s}")
	d.awaitReady()
	k.publish(4)
	await(t, "the jobs run", func() bool { return d.Status().Pools[0].InFlight == 4 })
	if err := d.stop(); !errors.Is(err, app.ErrIncomplete) || !strings.Contains(err.Error(), "interrupted and handed back: 4") {
		t.Errorf("stopped with %v", err)
	}
	k.answer.Store(http.StatusOK)
	next := k.start(described)
	await(t, "the next one does them", func() bool { return next.Status().Pools[0].Jobs.OK == 4 })
}

func TestApp_hurryCutsTheWaitShort(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.answer.Store(0)
	d := k.start(described + "\ndrain: {timeout: 1h}")
	d.awaitReady()
	k.publish(1)
	await(t, "the job runs", func() bool { return d.Status().Pools[0].InFlight == 1 })
	d.drain()
	await(t, "the drain waits", func() bool { s := d.Status(); return s.Drain != nil && s.Drain.Phase == "drain" })
	if s := d.Status(); s.Ready || s.Drain.Running != 1 {
		t.Errorf("while draining: ready %v, %+v", s.Ready, s.Drain)
	}
	d.hurry()
	if err := d.end(); !errors.Is(err, app.ErrIncomplete) {
		t.Errorf("stopped with %v", err)
	}
	await(t, "the hurry is logged", func() bool { return strings.Contains(d.log.String(), "hurrying") })
}

func TestApp_endsWithoutABroker(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	d := k.start(described + "\ndrain: {timeout: 2s}")
	d.awaitReady()
	k.broker.Stop()
	await(t, "it has noticed", func() bool { return !d.Status().NATS.Connected })
	if err := d.stop(); err != nil {
		t.Errorf("stopped with %v, though nothing was open", err)
	}
}

func TestApp_twoInOneProcessShareNothing(t *testing.T) {
	t.Parallel()
	k, other := newKit(t), newKit(t)
	a, b := k.start(described), other.start(described)
	k.publish(10)
	other.publish(20)
	await(t, "both do their own", func() bool { return a.Status().Pools[0].Jobs.OK == 10 && b.Status().Pools[0].Jobs.OK == 20 })
	if k.calls.Load() != 10 || other.calls.Load() != 20 {
		t.Errorf("%d and %d calls", k.calls.Load(), other.calls.Load())
	}
}

func TestNew_takesOverASocketThatAKilledProcessLeft(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	path := filepath.Join(t.TempDir(), "admin.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	busy := k.load("admin: {listen: \"unix:" + path + "\"}")
	if _, err := app.New(busy, app.Options{Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("somebody listens, and New returns %v", err)
	}
	left.SetUnlinkOnClose(false)
	_ = left.Close()
	d := k.start(described + "\nadmin: {listen: \"unix:" + path + "\"}")
	d.awaitReady()
}

func TestNew_leavesNothingBehindWhenItFails(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, more := range map[string]string{
		"address already in use":    fmt.Sprintf("admin: {listen: %q}", taken.Addr()),
		"no such file or directory": "",
	} {
		cfg := k.load(more)
		if more == "" {
			cfg.NATS.Creds = "/nonexistent.creds"
		}
		if _, err := app.New(cfg, app.Options{Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
}
