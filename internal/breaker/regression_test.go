package breaker_test

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/breaker"
)

// Faults found in other breakers. None may come up in this one.

// target is a breaker with a clock of its own and short words for the tests.
type target struct {
	*breaker.Breaker
	t   *testing.T
	now time.Time
}

func newTarget(t *testing.T, cfg breaker.Config, onChange func(breaker.Change)) *target {
	cfg.OpenJitter = -1
	return &target{breaker.New(cfg, onChange), t, time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)}
}

func (g *target) permit() *breaker.Permit {
	g.t.Helper()
	p, err := g.Acquire(g.now)
	if err != nil {
		g.t.Fatalf("acquire: %v", err)
	}
	return &p
}

func (g *target) call(n int, v breaker.Verdict) {
	g.t.Helper()
	for range n {
		g.permit().Done(g.now, v, 0)
	}
}

func (g *target) after(d time.Duration) *target {
	g.now = g.now.Add(d)
	return g
}

func (g *target) want(s breaker.State, why breaker.Reason) {
	g.t.Helper()
	if got := g.Stats(g.now); got.State != s || got.Reason != why {
		g.t.Fatalf("state is %v (%v), want %v (%v)", got.State, got.Reason, s, why)
	}
}

func TestRegression_staleSuccessDoesNotClose(t *testing.T) {
	g := newTarget(t, breaker.Config{HalfOpenCalls: 1}, nil)
	old := g.permit()
	g.call(5, breaker.Bad)
	g.after(5 * time.Second)
	probe := g.permit()
	old.Done(g.now, breaker.Good, 0)
	g.want(breaker.HalfOpen, breaker.WaitOver)
	probe.Done(g.now, breaker.Bad, 0)
	g.want(breaker.Open, breaker.ProbeFailed)
}

func TestRegression_staleResultsMintNoPermits(t *testing.T) {
	g := newTarget(t, breaker.Config{HalfOpenCalls: 3, HalfOpenConcurrent: 3}, nil)
	old := []*breaker.Permit{g.permit(), g.permit(), g.permit(), g.permit()}
	g.call(5, breaker.Bad)
	g.after(5 * time.Second)
	for range 3 {
		g.permit()
	}
	for _, p := range old {
		p.Done(g.now, breaker.Ignored, 0)
		if _, err := g.Acquire(g.now); !errors.Is(err, breaker.ErrHalfOpenFull) {
			t.Fatalf("a fourth probe: %v", err)
		}
	}
}

func TestRegression_lateFailureDoesNotExtendOpen(t *testing.T) {
	g := newTarget(t, breaker.Config{}, nil)
	old := g.permit()
	g.call(5, breaker.Bad)
	until := g.Stats(g.now).Until
	old.Done(g.after(4*time.Second).now, breaker.Bad, time.Hour)
	if got := g.Stats(g.now).Until; !got.Equal(until) {
		t.Errorf("open until %v, was %v", got, until)
	}
}

func TestRegression_probeThatNeverReturnsDoesNotWedge(t *testing.T) {
	g := newTarget(t, breaker.Config{ProbeTimeout: 15 * time.Second}, nil)
	g.call(5, breaker.Bad)
	hung := g.after(5 * time.Second).permit()
	g.after(15*time.Second-1).want(breaker.HalfOpen, breaker.WaitOver)
	g.after(1).want(breaker.Open, breaker.ProbeTimeout)
	g.after(10 * time.Second) // the second wait is twice the first
	hung.Done(g.now, breaker.Good, 0)
	g.call(3, breaker.Good)
	g.want(breaker.Closed, breaker.Recovered)
}

func TestRegression_probeThatPanicsOrExitsDoesNotWedge(t *testing.T) {
	for name, die := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			g := newTarget(t, breaker.Config{}, nil)
			g.call(5, breaker.Bad)
			g.after(5 * time.Second)
			var wg sync.WaitGroup
			wg.Go(func() {
				defer func() { _ = recover() }()
				defer g.permit().Done(g.now, breaker.Bad, 0)
				die()
			})
			wg.Wait()
			g.want(breaker.Open, breaker.ProbeFailed)
			g.after(10*time.Second).call(3, breaker.Good)
			g.want(breaker.Closed, breaker.Recovered)
		})
	}
}

func TestRegression_cancelledProbeNeitherClosesNorWedges(t *testing.T) {
	g := newTarget(t, breaker.Config{HalfOpenCalls: 1}, nil)
	g.call(5, breaker.Bad)
	g.after(5 * time.Second)
	for range 100 {
		g.call(1, breaker.Ignored)
		g.want(breaker.HalfOpen, breaker.WaitOver)
	}
	g.call(1, breaker.Good)
	g.want(breaker.Closed, breaker.Recovered)
}

func TestRegression_halfOpenIsBoundedWhileProbesRun(t *testing.T) {
	g := newTarget(t, breaker.Config{HalfOpenCalls: 10, HalfOpenConcurrent: 2}, nil)
	g.call(5, breaker.Bad)
	g.after(5 * time.Second)
	var granted atomic.Int32
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if _, err := g.Acquire(g.now); err == nil {
				granted.Add(1)
			}
		})
	}
	wg.Wait()
	if granted.Load() != 2 {
		t.Errorf("%d of 64 callers may probe at once, want 2", granted.Load())
	}
}

func TestRegression_oneLuckyProbeDoesNotClose(t *testing.T) {
	g := newTarget(t, breaker.Config{}, nil)
	g.call(5, breaker.Bad)
	g.after(5*time.Second).call(2, breaker.Good)
	g.want(breaker.HalfOpen, breaker.WaitOver)
	g.call(1, breaker.Bad)
	g.want(breaker.Open, breaker.ProbeFailed)
}

func TestRegression_justReopenedIsNotPutBackToHalfOpen(t *testing.T) {
	g := newTarget(t, breaker.Config{}, nil)
	g.call(5, breaker.Bad)
	g.after(5*time.Second).call(1, breaker.Bad)
	if _, err := g.Acquire(g.now); !errors.Is(err, breaker.ErrOpen) {
		t.Errorf("acquire right after a failed probe: %v", err)
	}
}

func TestRegression_percentagesAreExact(t *testing.T) {
	g := newTarget(t, breaker.Config{FailureRate: 0.57, MinCalls: 100, ConsecutiveFailures: -1}, nil)
	g.call(43, breaker.Good)
	g.call(57, breaker.Bad) // 57.0/100*100 is 56.99999999999999
	g.want(breaker.Open, breaker.FailureRate)
}

func TestRegression_failuresOfAYearAgoDoNotCount(t *testing.T) {
	g := newTarget(t, breaker.Config{ConsecutiveFailures: -1, MinCalls: 3}, nil)
	for range 10 {
		g.call(2, breaker.Bad)
		g.after(100 * 24 * time.Hour)
	}
	g.want(breaker.Closed, breaker.Started)
}

func TestRegression_resultCountsWhenItCompletes(t *testing.T) {
	g := newTarget(t, breaker.Config{ConsecutiveFailures: -1}, nil)
	long := g.permit()
	g.after(time.Hour)
	long.Done(g.now, breaker.Bad, 0)
	if s := g.Stats(g.now); s.Total != 1 || s.Bad != 1 {
		t.Errorf("a call of an hour is counted as %d bad of %d", s.Bad, s.Total)
	}
}

func TestRegression_statsForgetWithoutACall(t *testing.T) {
	g := newTarget(t, breaker.Config{}, nil)
	g.call(4, breaker.Bad)
	if s := g.Stats(g.after(30 * time.Second).now); s.Total != 0 || s.Consecutive != 4 {
		t.Errorf("after a window: %d in it, %d in a row; want 0 and 4", s.Total, s.Consecutive)
	}
}

func TestRegression_clockSetBackKeepsTheWaitAsItWas(t *testing.T) {
	for _, back := range []time.Duration{time.Nanosecond, 10 * time.Second, 11 * time.Second, time.Hour, 10 * 365 * 24 * time.Hour} {
		g := newTarget(t, breaker.Config{}, nil)
		g.call(5, breaker.Bad)
		g.after(-back).want(breaker.Open, breaker.ConsecutiveFailures)
		_, until := g.Credit(g.now)
		if left := until.Sub(g.now); left > 5*time.Second+10*time.Second {
			t.Errorf("set back by %v: %v left of a wait of 5s", back, left)
		}
		g.now = until
		g.want(breaker.HalfOpen, breaker.WaitOver)
	}
}

func TestRegression_clockSetBackKeepsLeasesAndWindows(t *testing.T) {
	g := newTarget(t, breaker.Config{ProbeTimeout: 15 * time.Second}, nil)
	g.call(4, breaker.Bad)
	g.after(-time.Hour).want(breaker.Closed, breaker.Started)
	if s := g.Stats(g.after(30 * time.Second).now); s.Total != 0 {
		t.Errorf("%d calls in a window that has passed", s.Total)
	}
	g.call(1, breaker.Bad)
	g.after(5 * time.Second).permit()
	g.after(-time.Hour).want(breaker.HalfOpen, breaker.WaitOver)
	g.after(15*time.Second).want(breaker.Open, breaker.ProbeTimeout)
	if err := g.Override(breaker.MetricsOnly, time.Minute, "", g.now); err != nil {
		t.Fatal(err)
	}
	g.call(5, breaker.Bad)
	g.after(-time.Hour).want(breaker.MetricsOnly, breaker.Overridden)
	g.after(5*time.Second).call(1, breaker.Bad)
	if s := g.Stats(g.now); s.WouldOpen != 2 {
		t.Errorf("the shadow opened %d times, want 2", s.WouldOpen)
	}
	g.after(time.Minute).want(breaker.Closed, breaker.OverrideExpired)
}

func TestRegression_callersOutOfOrderDoNotMakeTimeRunFaster(t *testing.T) {
	g := newTarget(t, breaker.Config{}, nil)
	g.call(5, breaker.Bad)
	for range 10_000 {
		g.after(time.Millisecond).want(breaker.Open, breaker.ConsecutiveFailures)
		g.after(-time.Millisecond).want(breaker.Open, breaker.ConsecutiveFailures)
	}
	g.after(5*time.Second-1).want(breaker.Open, breaker.ConsecutiveFailures)
	g.after(1).want(breaker.HalfOpen, breaker.WaitOver)
}

func TestRegression_replicasDoNotProbeInStep(t *testing.T) {
	now := time.Unix(0, 0)
	seen := map[time.Duration]bool{}
	note := func(c breaker.Change) {
		if c.To != breaker.Open {
			return
		}
		seen[c.Wait] = true
		if c.Wait < 4*time.Second || c.Wait > 5*time.Second {
			t.Errorf("wait %v, want 4s to 5s", c.Wait)
		}
	}
	for range 10 { // replicas
		b := breaker.New(breaker.Config{OpenMultiplier: 1, ConsecutiveFailures: 1}, note)
		for range 10 { // openings
			p, err := b.Acquire(now)
			if err != nil {
				t.Fatal(err)
			}
			p.Done(now, breaker.Bad, 0)
			now = now.Add(5 * time.Second)
		}
	}
	if len(seen) < 95 {
		t.Errorf("100 waits, %d different", len(seen))
	}
}
