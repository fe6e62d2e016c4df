package breaker_test

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/breaker"
)

func TestRegression_listenerMayUseTheBreaker(t *testing.T) {
	var g *target
	var seen []breaker.State
	g = newTarget(t, breaker.Config{}, func(c breaker.Change) {
		seen = append(seen, c.To)
		g.Stats(c.At)
		g.Credit(c.At)
		g.Changed()
		if c.To == breaker.Open {
			g.Reset(c.At) // the change this makes is told after this one
			if len(seen) != 1 {
				t.Errorf("told %v while telling", seen)
			}
		}
	})
	g.call(5, breaker.Bad)
	if diff := cmp.Diff([]breaker.State{breaker.Open, breaker.Closed}, seen); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	g.want(breaker.Closed, breaker.WasReset)
}

func TestRegression_listenerThatPanicsOrExitsHarmsNobody(t *testing.T) {
	told := 0
	g := newTarget(t, breaker.Config{}, func(c breaker.Change) {
		if told++; c.To == breaker.HalfOpen {
			runtime.Goexit()
		}
		panic("listener")
	})
	g.call(5, breaker.Bad)
	g.after(5 * time.Second)
	var wg sync.WaitGroup
	wg.Go(func() { g.Credit(g.now) })
	wg.Wait()
	g.call(3, breaker.Good)
	g.want(breaker.Closed, breaker.Recovered)
	if s := g.Stats(g.now); told != 3 || s.ListenerPanics != 2 {
		t.Errorf("told %d changes, %d panics; want 3 and 2", told, s.ListenerPanics)
	}
}

func TestRegression_slowListenerHoldsUpNobodyAndLosesNoOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var told []breaker.State
		b := breaker.New(breaker.Config{ConsecutiveFailures: 1}, func(c breaker.Change) {
			<-release
			told = append(told, c.To)
		})
		var wg sync.WaitGroup
		trip := func() {
			p, _ := b.Acquire(time.Now())
			p.Done(time.Now(), breaker.Bad, 0)
		}
		wg.Go(trip)
		synctest.Wait() // the listener hangs
		b.Reset(time.Now())
		if s := b.Stats(time.Now()); s.State != breaker.Closed {
			t.Errorf("state %v", s.State)
		}
		trip()
		close(release)
		wg.Wait()
		if diff := cmp.Diff([]breaker.State{breaker.Open, breaker.Closed, breaker.Open}, told); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
	})
}

func TestRegression_hungListenerCostsBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var told []uint64
		b := breaker.New(breaker.Config{}, func(c breaker.Change) {
			<-release
			told = append(told, c.Generation)
		})
		now := time.Now()
		flip := func() {
			_ = b.Override(breaker.ForcedOpen, 0, "", now)
			b.Reset(now)
		}
		var wg sync.WaitGroup
		wg.Go(flip)
		synctest.Wait()
		for range 1000 {
			flip()
		}
		lost := b.Stats(now).LostChanges
		close(release)
		wg.Wait()
		if len(told) != 1+256 || lost == 0 { // the hung one and the kept ones
			t.Errorf("told %d, lost %d", len(told), lost)
		}
	})
}
