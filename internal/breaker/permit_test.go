package breaker_test

import (
	"math"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/breaker"
)

func TestPermit_secondDoneAndZeroPermitDoNothing(t *testing.T) {
	g := newTarget(t, breaker.Config{ConsecutiveFailures: 2}, nil)
	p := g.permit()
	p.Done(g.now, breaker.Bad, 0)
	p.Done(g.now, breaker.Bad, 0)
	(&breaker.Permit{}).Done(g.now, breaker.Bad, 0)
	g.want(breaker.Closed, breaker.Started)
}

func TestPermit_copyOfAProbeCountsOnce(t *testing.T) {
	g := newTarget(t, breaker.Config{HalfOpenCalls: 2, HalfOpenConcurrent: 2}, nil)
	g.call(5, breaker.Bad)
	p := g.after(5 * time.Second).permit()
	copied := *p
	p.Done(g.now, breaker.Good, 0)
	copied.Done(g.now, breaker.Good, 0)
	g.want(breaker.HalfOpen, breaker.WaitOver)
	if s := g.Stats(g.now); s.Proven != 1 || s.Stale != 0 {
		t.Errorf("%d proven, %d stale; want 1 and 0", s.Proven, s.Stale)
	}
}

func TestAcquireDone_allocatesNothing(t *testing.T) {
	for name, cfg := range map[string]breaker.Config{"time": {}, "count": {WindowCalls: 100}} {
		g := newTarget(t, cfg, nil)
		g.Credit(g.now)
		if n := testing.AllocsPerRun(1000, func() {
			p, _ := g.Acquire(g.now)
			p.Done(g.now, breaker.Good, 0)
		}); n != 0 {
			t.Errorf("%s window: %v allocations", name, n)
		}
	}
}

func TestChanged_isClosedWheneverCreditMayHaveGrown(t *testing.T) {
	g := newTarget(t, breaker.Config{}, nil)
	changed := g.Changed()
	expect := func(what string, want bool) {
		t.Helper()
		select {
		case <-changed:
			if !want {
				t.Errorf("closed after %s", what)
			}
		default:
			if want {
				t.Errorf("not closed after %s", what)
			}
		}
		g.Credit(g.now) // lets time have its effect
		changed = g.Changed()
	}
	g.Credit(g.now)
	expect("the first call", true)
	g.call(4, breaker.Bad)
	expect("four failures", false)
	g.call(1, breaker.Bad)
	expect("opening", true)
	g.after(5 * time.Second).Credit(g.now)
	expect("the wait", true)
	p := g.permit()
	expect("taking a probe", false)
	p.Done(g.now, breaker.Ignored, 0)
	expect("giving the probe back", true)
	g.SetConfig(g.now, breaker.Config{HalfOpenConcurrent: 2})
	expect("more probes", true)
	g.Reset(g.now)
	expect("a reset", true)
}

func TestCredit_saysHowManyAndUntilWhen(t *testing.T) {
	g := newTarget(t, breaker.Config{HalfOpenCalls: 3, HalfOpenConcurrent: 2, ProbeTimeout: 15 * time.Second}, nil)
	check := func(n int, until time.Duration) {
		t.Helper()
		gotN, gotUntil := g.Credit(g.now)
		if gotN != n || until == 0 != gotUntil.IsZero() || until != 0 && gotUntil.Sub(g.now) != until {
			t.Errorf("credit %d until %v, want %d in %v", gotN, gotUntil, n, until)
		}
	}
	check(math.MaxInt, 0)
	g.call(5, breaker.Bad)
	check(0, 5*time.Second)
	g.after(5 * time.Second)
	check(2, 0)
	a := g.permit()
	check(1, 15*time.Second)
	b := g.after(time.Second).permit()
	check(0, 14*time.Second)
	a.Done(g.now, breaker.Good, 0)
	check(1, 15*time.Second)
	b.Done(g.now, breaker.Good, 0)
	check(1, 0)
}
