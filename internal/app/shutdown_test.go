package app_test

import (
	"errors"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/app"
)

// phases returns the phases of the shutdown as they were logged.
func (d *daemon) phases() (names []string) {
	for _, m := range regexp.MustCompile(`msg="shutdown phase [^"]*" phase=(\w+)`).FindAllStringSubmatch(d.log.String(), -1) {
		names = append(names, m[1])
	}
	return names
}

// TestApp_drains in order: what waits goes back at once, what runs may finish,
// and the admin listener answers to the end.
func TestApp_drains(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.pool = "prefetch: 4"
	finish := make(chan struct{})
	k.decide = func(string) int { <-finish; return http.StatusOK }
	d := k.start(described)
	d.awaitReady()
	k.publish(20)
	await(t, "4 jobs run and 4 wait", func() bool { p := d.Status().Pools[0]; return p.InFlight == 4 && p.Waiting == 4 })
	d.drain()
	await(t, "what waits is handed back", func() bool {
		s := d.Status()
		return s.Drain != nil && s.Drain.Phase == "drain" && s.Drain.HandedBack == 4
	})
	s := d.Status()
	if s.Drain.Running != 4 || s.Drain.AtStart != 4 || s.Drain.Interrupted != 0 || s.Pools[0].State != admin.PoolDraining {
		t.Errorf("while draining: %+v, %+v", s.Drain, s.Pools[0])
	}
	if !s.Pools[0].Since.Equal(s.Drain.Since) {
		t.Errorf("the pool is draining since %v, the drain began %v", s.Pools[0].Since, s.Drain.Since)
	}
	if code, body := d.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "shutting down") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	select {
	case <-d.Drained():
		t.Error("it is said to be drained while jobs run")
	default:
	}
	close(finish)
	if err := d.end(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	<-d.Drained()
	if got, want := d.phases(), []string{"announce", "stop", "drain", "interrupt", "flush", "close", "admin"}; !slices.Equal(got, want) {
		t.Errorf("phases %v, want %v", got, want)
	}
	if !strings.Contains(d.log.String(), "handed_back=4 interrupted=0 clean=true") {
		t.Error("the log does not say how it went")
	}
	if calls, left := k.calls.Load(), k.left(); calls != 4 || left != 16 {
		t.Errorf("%d calls, %d jobs left; want 4 and 16", calls, left)
	}
}

// TestApp_drainOfAHeldPoolIsTimedFromItsBeginning: it was held for longer.
func TestApp_drainOfAHeldPoolIsTimedFromItsBeginning(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.answer.Store(http.StatusServiceUnavailable)
	d := k.start(described + "\ndrain: {pre_stop_delay: 1s}")
	d.awaitReady()
	k.publish(10)
	await(t, "the pool is held", func() bool { return d.Status().Pools[0].State == admin.PoolHeld })
	await(t, "what was in flight has ended", func() bool { return d.Status().Pools[0].InFlight == 0 })
	held := d.Status().Pools[0].Since
	d.drain()
	await(t, "the pool drains", func() bool {
		s := d.Status()
		return s.Pools[0].State == admin.PoolDraining && s.Pools[0].Since.Equal(s.Drain.Since) && s.Drain.Since.After(held)
	})
	d.hurry()
	if err := d.end(); err != nil {
		t.Errorf("stopped with %v\n%s", err, d.log.String())
	}
}

// TestApp_endsInTimeWithoutABroker although a job runs to its end meanwhile: it
// cannot be confirmed, and the exit says so.
func TestApp_endsInTimeWithoutABroker(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	finish := make(chan struct{})
	k.decide = func(string) int { <-finish; return http.StatusOK }
	d := k.start(described + "\ndrain: {timeout: 2s}")
	d.awaitReady()
	k.publish(2)
	await(t, "the jobs run", func() bool { return d.Status().Pools[0].InFlight == 2 })
	k.broker.Stop()
	await(t, "it has noticed", func() bool { return !d.Status().NATS.Connected })
	close(finish)
	await(t, "the jobs are done", func() bool { return d.Status().Pools[0].Jobs.OK == 2 })
	err := d.stop()
	if !errors.Is(err, app.ErrIncomplete) || !strings.Contains(err.Error(), "2 settlements are not confirmed") {
		t.Errorf("stopped with %v", err)
	}
}

// TestApp_endsInTimeThoughADeadLetterWaitsForTheBroker, which stays away.
func TestApp_endsInTimeThoughADeadLetterWaitsForTheBroker(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	finish := make(chan struct{})
	k.decide = func(string) int { <-finish; return http.StatusUnprocessableEntity }
	d := k.start(described + "\ndrain: {timeout: 2s}")
	d.awaitReady()
	k.publish(1)
	await(t, "the job runs", func() bool { return d.Status().Pools[0].InFlight == 1 })
	k.broker.Stop()
	await(t, "it has noticed", func() bool { return !d.Status().NATS.Connected })
	close(finish)
	if err := d.stop(); !errors.Is(err, app.ErrIncomplete) {
		t.Errorf("stopped with %v", err)
	}
	k.broker.Restart()
	if left := k.left(); left != 1 {
		t.Errorf("%d jobs in the stream, want it still there", left)
	}
}

func TestApp_hurryBeforeTheDrainSkipsAllWaiting(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.answer.Store(0)
	d := k.start(described + "\ndrain: {timeout: 1h, pre_stop_delay: 5m}")
	d.awaitReady()
	k.publish(1)
	await(t, "the job runs", func() bool { return d.Status().Pools[0].InFlight == 1 })
	d.hurry()
	if err := d.stop(); !errors.Is(err, app.ErrIncomplete) || !strings.Contains(err.Error(), "interrupted and handed back: 1") {
		t.Errorf("stopped with %v", err)
	}
}

// TestApp_jobThatWaitsToTryAgainIsHandedBack, and counted as such.
func TestApp_jobThatWaitsToTryAgainIsHandedBack(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.retry = "{max_attempts: 2, initial_backoff: 1m, max_backoff: 1m, jitter: none}"
	k.answer.Store(http.StatusInternalServerError)
	d := k.start(described)
	d.awaitReady()
	k.publish(1)
	await(t, "the first call has failed", func() bool { return d.Status().Targets[0].Failed == 1 })
	if err := d.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if !strings.Contains(d.log.String(), "handed_back=1 interrupted=0 clean=true") {
		t.Error("the job is not counted as handed back")
	}
	if calls, left := k.calls.Load(), k.left(); calls != 1 || left != 1 {
		t.Errorf("%d calls, %d jobs left", calls, left)
	}
}

// TestApp_rollingRestartRunsNothingTwice: the old replica drains under load
// while the new one takes over.
func TestApp_rollingRestartRunsNothingTwice(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.pool = "prefetch: 8"
	var mu sync.Mutex
	runs := map[string]int{}
	k.decide = func(body string) int {
		mu.Lock()
		defer mu.Unlock()
		runs[body]++
		return http.StatusOK
	}
	was := k.start(described)
	was.awaitReady()
	const jobs = 600
	var publishing sync.WaitGroup
	publishing.Go(func() { k.publish(jobs) })
	for range 3 {
		next := k.start(described)
		next.awaitReady()
		if err := was.stop(); err != nil {
			t.Errorf("stopped with %v", err)
		}
		was = next
	}
	publishing.Wait()
	await(t, "the stream is empty", func() bool { return k.left() == 0 })
	mu.Lock()
	defer mu.Unlock()
	for body, n := range runs {
		if n != 1 {
			t.Errorf("job %s ran %d times", body, n)
		}
	}
	if len(runs) != jobs {
		t.Errorf("%d jobs ran, want %d", len(runs), jobs)
	}
}

// valve is a proxy that can stop passing anything on, as a broker does whose
// host is frozen: nothing is refused, nothing is answered.
type valve struct {
	net.Listener
	to     string
	frozen atomic.Bool
	thaw   chan struct{}
	piping sync.WaitGroup
}

func newValve(t *testing.T, to string) *valve {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{Listener: l, to: to, thaw: make(chan struct{})}
	v.piping.Go(v.accept)
	t.Cleanup(func() { l.Close(); close(v.thaw); v.piping.Wait() })
	return v
}

func (v *valve) accept() {
	for {
		c, err := v.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", v.to)
		if err != nil {
			c.Close()
			continue
		}
		v.piping.Go(func() { v.pipe(c, up) })
		v.piping.Go(func() { v.pipe(up, c) })
	}
}

func (v *valve) pipe(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if v.frozen.Load() {
			<-v.thaw
			return
		}
		if err != nil {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// TestApp_endsInTimeWithABrokerThatDoesNotAnswer: the phases bound it, whatever
// a call to the broker waits for.
func TestApp_endsInTimeWithABrokerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	v := newValve(t, strings.TrimPrefix(k.broker.URL(), "nats://"))
	finish := make(chan struct{})
	k.decide = func(string) int { <-finish; return http.StatusOK }
	cfg := k.load(described + "\ndrain: {timeout: 2s}")
	cfg.NATS.URL = "nats://" + v.Addr().String()
	d := k.run(cfg)
	d.awaitReady()
	k.publish(1)
	await(t, "the job runs", func() bool { return d.Status().Pools[0].InFlight == 1 })
	v.frozen.Store(true)
	close(finish)
	await(t, "the job is done", func() bool { return d.Status().Pools[0].Jobs.OK == 1 })
	if err := d.stop(); !errors.Is(err, app.ErrIncomplete) || !strings.Contains(err.Error(), "1 settlements are not confirmed") {
		t.Errorf("stopped with %v", err)
	}
	if strings.Contains(d.log.String(), "left behind") {
		t.Error("a phase was left behind")
	}
}
