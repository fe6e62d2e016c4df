package breaker_test

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/breaker"
)

func TestInvariant15_sixtyFourGoroutinesKeepEveryPromise(t *testing.T) {
	ops := 100_000
	if testing.Short() {
		ops = 2_000
	}
	cfg := breaker.Config{
		ConsecutiveFailures: 3, OpenFor: 100 * time.Millisecond, MaxOpenFor: time.Second,
		HalfOpenCalls: 3, HalfOpenConcurrent: 2, ProbeTimeout: time.Second,
	}
	var generation, told, telling atomic.Uint64
	b := breaker.New(cfg, func(c breaker.Change) {
		if telling.Add(1) != 1 || generation.Swap(c.Generation) >= c.Generation {
			t.Errorf("change %+v came out of order or beside another", c)
		}
		told.Add(1)
		telling.Add(^uint64(0))
	})
	var clock atomic.Int64 // of all, in nanoseconds
	start := time.Unix(0, 0)
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := range ops {
				now := start.Add(time.Duration(clock.Add(int64(10 * time.Microsecond))))
				hammer(t, b, now, g*ops+i)
			}
		})
	}
	wg.Wait()
	s := b.Stats(start.Add(time.Duration(clock.Load()) + time.Hour))
	if s.Probes != 0 || told.Load() == 0 {
		t.Errorf("after all: %+v, %d changes told", s, told.Load())
	}
}

// hammer does the n-th thing. Failures come in bursts, so that all states are
// passed through.
func hammer(t *testing.T, b *breaker.Breaker, now time.Time, n int) {
	switch n % 97 {
	case 0:
		if s := b.Stats(now); s.Probes > 2 || s.Probes+s.Proven > 3 {
			t.Errorf("%d probes, %d proven", s.Probes, s.Proven)
		}
	case 1:
		b.Credit(now)
	case 2:
		select {
		case <-b.Changed():
		default:
		}
	}
	if n%50_021 == 0 {
		if err := b.Override(breaker.MetricsOnly, time.Millisecond, "stress", now); err != nil {
			t.Error(err)
		}
	}
	p, err := b.Acquire(now)
	if err != nil {
		return
	}
	v := breaker.Good
	if now.UnixMilli()%1000 < 20 {
		v = breaker.Bad
	}
	p.Done(now, v, 0)
}

// event is a call as seen from outside: between its begin and its end it took
// effect.
type event struct {
	op         int // 0 acquire, 1 done good, 2 done bad, 3 credit
	begin, end int64
	granted    bool
	credit     int
	who        int
}

// TestInvariant15_historiesAreLinearizable runs few goroutines at a standstill
// of time and looks for an order of their calls, compatible with when they
// began and ended, in which the model answers the same.
func TestInvariant15_historiesAreLinearizable(t *testing.T) {
	cfg := breaker.Config{ConsecutiveFailures: 2, OpenJitter: -1, HalfOpenCalls: 2, HalfOpenConcurrent: 2}
	for round := range 300 {
		now := time.Unix(0, 0)
		b := breaker.New(cfg, nil)
		m := newModel(cfg)
		b.Stats(now)
		at := time.Duration(0)
		if round%2 == 0 { // begin half open
			for range 2 {
				p, _ := b.Acquire(now)
				p.Done(now, breaker.Bad, 0)
				m.done(0, m.acquire(0), breaker.Bad, 0)
			}
			at = time.Minute
			b.Stats(now.Add(at))
			m.tick(at)
		}
		history := record(b, now.Add(at), round)
		if !linearizable(m, history, make([]*modelPermit, 3), at) {
			t.Fatalf("round %d: no order of these calls makes sense: %+v", round, history)
		}
	}
}

func record(b *breaker.Breaker, now time.Time, round int) []event {
	var tick atomic.Int64
	perWho := make([][]event, 3)
	var wg sync.WaitGroup
	for who := range perWho {
		wg.Go(func() {
			for i := range 2 {
				e := event{op: 0, begin: tick.Add(1), who: who}
				p, err := b.Acquire(now)
				e.end, e.granted = tick.Add(1), err == nil
				d := event{op: 1 + (round/2+who+i)%3%2, begin: tick.Add(1), who: who, granted: e.granted}
				p.Done(now, breaker.Verdict(d.op-1), 0)
				d.end = tick.Add(1)
				c := event{op: 3, begin: tick.Add(1), who: who}
				c.credit, _ = b.Credit(now)
				c.end = tick.Add(1)
				perWho[who] = append(perWho[who], e, d, c)
			}
		})
	}
	wg.Wait()
	var all []event
	for _, events := range perWho {
		all = append(all, events...)
	}
	return all
}

// linearizable tries each event that may have come first, and so on.
func linearizable(m *model, rest []event, permits []*modelPermit, now time.Duration) bool {
	if len(rest) == 0 {
		return true
	}
	firstEnd := int64(math.MaxInt64)
	for _, e := range rest {
		firstEnd = min(firstEnd, e.end)
	}
	for i, e := range rest {
		if e.begin > firstEnd {
			continue
		}
		next, held := m.clone(), append([]*modelPermit(nil), permits...)
		if !explains(next, e, held, now) {
			continue
		}
		others := append(append([]event(nil), rest[:i]...), rest[i+1:]...)
		if linearizable(next, others, held, now) {
			return true
		}
	}
	return false
}

func explains(m *model, e event, permits []*modelPermit, now time.Duration) bool {
	switch e.op {
	case 0:
		permits[e.who] = m.acquire(now)
		return (permits[e.who] != nil) == e.granted
	case 3:
		return m.credit() == e.credit
	}
	if p := permits[e.who]; p != nil {
		m.done(now, &modelPermit{model: m, epoch: p.epoch, probe: p.probe, start: p.start}, breaker.Verdict(e.op-1), 0)
	}
	return true
}
