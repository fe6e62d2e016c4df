package sim

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/job"
)

// seed decides everything in a scenario.
type seed uint64

// chance is a number in [0, 1) that belongs to what it is about: texts, and
// whole numbers.
func (s seed) chance(about ...any) float64 {
	x := uint64(s)*0x9e3779b97f4a7c15 + 0x6a09e667f3bcc908
	mix := func(v uint64) {
		x ^= v
		x *= 0xff51afd7ed558ccd
		x ^= x >> 32
		x *= 0xc4ceb9fe1a85ec53
		x ^= x >> 29
	}
	for _, a := range about {
		switch a := a.(type) {
		case int:
			mix(uint64(a))
		case string:
			h := uint64(14695981039346656037)
			for i := range len(a) {
				h = (h ^ uint64(a[i])) * 1099511628211
			}
			mix(h)
		default:
			panic(fmt.Sprintf("sim: chance about a %T", a))
		}
	}
	return float64(x>>11) / (1 << 53)
}

// between is a whole number from low to high.
func (s seed) between(low, high int, about ...any) int {
	return low + int(s.chance(about...)*float64(high-low+1))
}

// span is a duration from low to high.
func (s seed) span(low, high time.Duration, about ...any) time.Duration {
	return low + time.Duration(s.chance(about...)*float64(high-low))
}

// world is one scenario while it runs.
type world struct {
	t       *testing.T
	seed    seed
	began   time.Time
	log     *slog.Logger
	history lockedText

	layer  layer
	broker broker
	down   *downstream
	shape  shape

	burials sync.WaitGroup // of replicas that died

	mu       sync.Mutex
	acked    map[string]bool // ids the stream has taken
	dropped  map[string]bool // by a policy that says so
	answered map[string]int  // how often by a fixed answer
	charged  map[string]int  // how many attempts of a job failed
	replicas []*replica      // all there ever were
	faults   []fault         // what has happened
	over     bool            // nobody dies any more
}

// shape of a scenario.
type shape struct {
	jobs        int
	replicas    int
	pools       int
	concurrency int
	prefetch    int
	burst       int
	ackWait     time.Duration
	drain       time.Duration
	faults      int
	theme       []string      // kinds of faults, if not all happen
	length      time.Duration // over which jobs arrive and faults happen
}

// perCall is about how long a call takes on average.
const perCall = 60 * time.Millisecond

// shapeOf a scenario: from a fraction to more than all of what its replicas can
// do in its time.
func shapeOf(l layer, s seed) shape {
	sh := shape{
		replicas:    1 + int(7.99*s.chance("replicas")*s.chance("replicas too")),
		pools:       1 + int(5.99*s.chance("pools")*s.chance("pools too")),
		concurrency: s.between(1, 32, "concurrency"),
		prefetch:    []int{0, 0, 4, 16}[s.between(0, 3, "prefetch")],
		burst:       s.between(1, 200, "burst"),
		ackWait:     s.span(2*time.Second, 30*time.Second, "ack_wait"),
		drain:       s.span(200*time.Millisecond, 12*time.Second, "drain"),
		faults:      s.between(0, 30, "faults"),
		length:      s.span(20*time.Second, 90*time.Second, "length"),
	}
	if u := s.chance("theme"); u < 0.5 {
		sh.theme = themes(l)[int(2*u*float64(len(themes(l))))]
		sh.replicas = max(2, sh.replicas) // or nobody would take what another cannot keep
		sh.pools = min(2, sh.pools)
		sh.ackWait = s.span(2*time.Second, 10*time.Second, "ack_wait")
	}
	capacity := float64(sh.replicas*sh.pools*sh.concurrency) * float64(sh.length/perCall)
	most := 1500.
	if l == fakeLayer && sh.theme == nil {
		most = 6000
	}
	sh.jobs = int(max(50, min(most, capacity*(0.1+s.chance("load")))))
	return sh
}

// lockedText is the log of a scenario, shown if it fails.
type lockedText struct {
	mu    sync.Mutex
	lines []byte
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 1 << 20 // the last of it
	if l.lines = append(l.lines, p...); len(l.lines) > 2*most {
		l.lines = append([]byte(nil), l.lines[len(l.lines)-most:]...)
	}
	return len(p), nil
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.lines)
}

func newWorld(t *testing.T, l layer, s seed, dir string) *world {
	w := &world{t: t, layer: l, seed: s, began: time.Now(), acked: make(map[string]bool), dropped: make(map[string]bool), answered: make(map[string]int), charged: make(map[string]int), shape: shapeOf(l, s)}
	w.log = slog.New(slog.NewTextHandler(&w.history, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: w.shortTime}))
	if w.broker = newFake(s); l == realLayer {
		w.broker = newRealBroker(t, dir)
	}
	w.down = newDownstream(w)
	return w
}

func (w *world) shortTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Duration("at", a.Value.Time().Sub(w.began).Round(time.Millisecond))
	}
	return a
}

func (w *world) note(format string, args ...any) {
	w.log.Info("scenario", "what", fmt.Sprintf(format, args...))
}

// subject of a pool's jobs of a priority.
func subject(pool int, priority string) string { return fmt.Sprintf("jobs.%d.%s", pool, priority) }

func priorities() []string { return []string{"critical", "high", "normal", "low"} }

// publish sends all jobs over the length of the scenario. A job counts once
// the stream has acknowledged it; it is sent again until that.
func (w *world) publish(ctx context.Context) {
	gap := w.shape.length / time.Duration(w.shape.jobs)
	burst := w.shape.burst
	next := time.NewTimer(0)
	defer next.Stop()
	for i := 0; i < w.shape.jobs; i += burst {
		select {
		case <-next.C:
		case <-ctx.Done():
			w.t.Errorf("seed %d: the publisher did not get rid of its jobs", w.seed)
			return
		}
		var sending sync.WaitGroup
		for k := i; k < min(i+burst, w.shape.jobs); k++ {
			sending.Go(func() { w.send(ctx, k) })
		}
		sending.Wait()
		next.Reset(gap * time.Duration(burst))
	}
}

func (w *world) send(ctx context.Context, n int) {
	id := fmt.Sprintf("job-%d", n)
	pool := w.poolOf(id)
	msg := &nats.Msg{
		Subject: subject(pool, priorities()[w.seed.between(0, 3, id, "priority")]),
		Data:    w.payload(id), Header: nats.Header{job.HeaderMsgID: {id}, "X-Kept": {id}},
	}
	if t := w.tenant(id); t != "" {
		msg.Header.Set(job.HeaderKey, t)
	}
	switch u := w.seed.chance(id, "header"); {
	case u < 0.01:
		msg.Header.Set(job.HeaderTTL, w.seed.span(100*time.Millisecond, 20*time.Second, id, "ttl").String())
	case w.hasty(id):
		msg.Header.Set(job.HeaderTTL, w.seed.span(50*time.Millisecond, 800*time.Millisecond, id, "ttl").String())
	case u < 0.022:
		msg.Header.Set(job.HeaderTTL, "soon")
	}
	for ctx.Err() == nil {
		if w.broker.store(ctx, msg) == nil {
			w.mu.Lock()
			w.acked[id] = true
			w.mu.Unlock()
			return
		}
		pause(ctx, 200*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
