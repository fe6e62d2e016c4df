package breaker_test

import (
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/breaker"
)

// roll draws from rapid.
func roll(t *rapid.T) dice {
	return func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "die") }
}

// stories runs many random stories; each gets a world of its own, which
// already compares itself with the model after every step.
func stories(t *testing.T, operator bool, each func(w *world, d dice)) {
	rapid.Check(t, func(t *rapid.T) {
		d := roll(t)
		w := newWorld(t, randomConfig(d))
		for range 5 + d(60) {
			w.step(d, operator)
		}
		each(w, d)
	})
}

func TestInvariant01_permitIsGrantedIffThereIsCredit(t *testing.T) {
	stories(t, true, func(w *world, d dice) {
		for range 20 {
			n, _ := w.b.Credit(w.at())
			if s := w.stats().State; (s == breaker.Open || s == breaker.ForcedOpen) && n != 0 {
				w.t.Fatalf("credit %d while %v", n, s)
			}
			if got := w.acquire(); got != (n > 0) {
				w.t.Fatalf("credit was %d, acquired: %v", n, got)
			}
			w.step(d, true)
		}
	})
}

func TestInvariant02_halfOpenProbesStayWithinTheirBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := roll(t)
		cfg := randomConfig(d)
		cfg.ConsecutiveFailures = 1
		w := newWorld(t, cfg)
		for range 80 {
			w.step(d, false)
			s := w.stats()
			if s.Probes > cfg.HalfOpenConcurrent || s.Probes+s.Proven > cfg.HalfOpenCalls {
				t.Fatalf("%d probes run and %d are proven, allowed are %d at once and %d in all", s.Probes, s.Proven, cfg.HalfOpenConcurrent, cfg.HalfOpenCalls)
			}
		}
	})
}

func TestInvariant03_resultOfAnotherEpochOnlyCountsAsStale(t *testing.T) {
	stories(t, true, func(w *world, d dice) {
		w.reset()
		w.acquire()
		if d(2) == 0 {
			w.override(pick(d, breaker.ForcedOpen, breaker.Disabled, breaker.MetricsOnly), time.Minute)
		} else {
			w.reset()
		}
		before := w.stats()
		w.done(len(w.held)-1, pick(d, breaker.Good, breaker.Bad, breaker.Throttled, breaker.Ignored), time.Hour)
		before.Stale++
		if diff := cmp.Diff(before, w.stats()); diff != "" {
			w.t.Fatalf("a stale result changed (-want +got):\n%s", diff)
		}
	})
}

func TestInvariant04_abandonedPermitsNeverWedgeTheBreaker(t *testing.T) {
	stories(t, true, func(w *world, d dice) {
		bound := w.cfg.MaxOpenFor + w.cfg.ProbeTimeout + time.Minute // a minute is the longest override here
		for range 5 {
			for range 5 {
				w.acquire() // never done
			}
			w.now += bound
			w.wait(0)
			w.now += bound
			if n, _ := w.b.Credit(w.at()); n == 0 {
				w.t.Fatalf("no credit after %v: %+v", 2*bound, w.stats())
			}
			w.m.tick(w.now)
		}
	})
}

func TestInvariant06_afterQuiescenceNoProbeIsInFlight(t *testing.T) {
	stories(t, true, func(w *world, d dice) {
		for len(w.held) > 0 {
			w.done(d(len(w.held)), pick(d, breaker.Good, breaker.Bad, breaker.Throttled, breaker.Ignored), 0)
		}
		if s := w.stats(); s.Probes != 0 {
			w.t.Fatalf("%d probes in flight with no permit held", s.Probes)
		}
	})
}

func TestInvariant06_deferredDoneCoversReturnPanicAndGoexit(t *testing.T) {
	now := time.Unix(0, 0)
	for name, end := range map[string]func(){"return": func() {}, "panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		b := breaker.New(breaker.Config{ConsecutiveFailures: 1, OpenJitter: -1}, nil)
		call := func(now time.Time) {
			defer func() { _ = recover() }()
			p, err := b.Acquire(now)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			defer p.Done(now, breaker.Bad, 0)
			end()
		}
		for i := range 2 { // once closed, once half open
			var wg sync.WaitGroup
			wg.Go(func() { call(now.Add(time.Duration(i) * time.Minute)) })
			wg.Wait()
		}
		if s := b.Stats(now.Add(time.Minute)); s.State != breaker.Open || s.Reason != breaker.ProbeFailed || s.Probes != 0 {
			t.Errorf("%s: %v (%v) with %d probes in flight", name, s.State, s.Reason, s.Probes)
		}
	}
}

func TestInvariant07_ignoredResultChangesNothingAndReturnsThePermit(t *testing.T) {
	stories(t, false, func(w *world, d dice) {
		before := w.facts()
		if !w.acquire() {
			return
		}
		w.done(len(w.held)-1, breaker.Ignored, time.Hour)
		if diff := cmp.Diff(before, w.facts()); diff != "" {
			w.t.Fatalf("an ignored result changed (-want +got):\n%s", diff)
		}
	})
}

func TestInvariant08_windowTotalsEqualAFilteredListOfCalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := roll(t)
		cfg := randomConfig(d)
		cfg.ConsecutiveFailures, cfg.MinCalls, cfg.SlowCall = -1, 100_000, time.Second
		cfg.FailureRate, cfg.SlowCallRate, cfg.Throttled = 1, 1, breaker.ThrottledRate
		w := newWorld(t, cfg)
		if cfg.WindowCalls > 0 {
			w.acquire()
			w.done(0, breaker.Good, 0) // a count window smaller than min_calls may open
		}
		for range 100 {
			w.step(d, false)
			if s := w.stats(); s.Bad > s.Total || s.Slow > s.Total || min(s.Total, s.Bad, s.Slow) < 0 {
				t.Fatalf("%d bad and %d slow of %d", s.Bad, s.Slow, s.Total)
			}
		}
	})
}

func TestInvariant09_changesFormAPathAreAlternatingAndInOrder(t *testing.T) {
	legal := map[[2]breaker.State]bool{
		{breaker.Closed, breaker.Open}: true, {breaker.Open, breaker.HalfOpen}: true,
		{breaker.HalfOpen, breaker.Open}: true, {breaker.HalfOpen, breaker.Closed}: true,
	}
	stories(t, true, func(w *world, _ dice) {
		now := w.stats()
		state, generation := breaker.Closed, uint64(0)
		for _, c := range w.changes {
			byOperator := c.Reason == breaker.Overridden || c.Reason == breaker.WasReset || c.Reason == breaker.OverrideExpired
			if c.From != state || c.To == c.From || c.Generation <= generation || !(byOperator || legal[[2]breaker.State{c.From, c.To}]) {
				w.t.Fatalf("after %v (generation %d) came %+v", state, generation, c)
			}
			if (c.Wait != 0) != !c.Until.IsZero() || c.Bad > c.Total || c.Slow > c.Total {
				w.t.Fatalf("inconsistent change %+v", c)
			}
			state, generation = c.To, c.Generation
		}
		if now.State != state || now.Generation < generation {
			w.t.Fatalf("last change led to %v, state is %v", state, now.State)
		}
	})
}

func TestInvariant10_replayGivesTheSameStatesWhateverTheListenerDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		story := rapid.SliceOfN(rapid.Byte(), 20, 300).Draw(t, "story")
		var b *breaker.Breaker
		listeners := map[string]func(breaker.Change){
			"none":      nil,
			"panicking": func(breaker.Change) { panic("listener") },
			"re-entrant": func(c breaker.Change) {
				b.Stats(c.At)
				b.Credit(c.At)
				b.Changed()
			},
		}
		want := replay(story, &b, nil)
		for name, listener := range listeners {
			if diff := cmp.Diff(want, replay(story, &b, listener)); diff != "" {
				t.Fatalf("with a %s listener (-want +got):\n%s", name, diff)
			}
		}
	})
}

// replay plays a story without a model and returns the state after each step.
func replay(story []byte, b **breaker.Breaker, listener func(breaker.Change)) []breaker.Stats {
	d := func(n int) int {
		if len(story) == 0 {
			return 0
		}
		v := int(story[0]) % n
		story = story[1:]
		return v
	}
	*b = breaker.New(randomConfig(d), listener)
	now := time.Unix(0, 0)
	var permits []breaker.Permit
	var seen []breaker.Stats
	for len(story) > 0 {
		switch d(6) {
		case 0, 1, 2:
			if p, err := (*b).Acquire(now); err == nil {
				permits = append(permits, p)
			}
		case 3, 4:
			if n := len(permits); n > 0 {
				permits[n-1].Done(now, breaker.Verdict(d(4)), 0)
				permits = permits[:n-1]
			}
		case 5:
			now = now.Add(pick(d, time.Millisecond, time.Second, 7*time.Second, time.Minute))
		}
		s := (*b).Stats(now)
		s.ListenerPanics = 0
		seen = append(seen, s)
	}
	return seen
}

func TestInvariant11_timeThatJumpsNeverPanicsNorLengthensAWait(t *testing.T) {
	const year = 365 * 24 * time.Hour
	rapid.Check(t, func(t *rapid.T) {
		d := roll(t)
		cfg := randomConfig(d).WithDefaults()
		b := breaker.New(cfg, nil)
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var permits []breaker.Permit
		for range 100 {
			now = now.Add(pick(d, 0, 0, 0, time.Second, time.Minute, 10*year, -10*year, 250*year, -250*year, -time.Second, -time.Minute))
			if p, err := b.Acquire(now); err == nil {
				permits = append(permits, p)
			}
			if n := len(permits); n > 0 && d(2) == 0 {
				permits[d(n)].Done(now, breaker.Verdict(d(4)), 0)
			}
			if d(20) == 0 {
				_ = b.Override(pick(d, breaker.ForcedOpen, breaker.Disabled, breaker.MetricsOnly), time.Minute, "", now)
			}
			if s := b.Stats(now); s.State == breaker.Open && s.Until.Sub(now) > cfg.MaxOpenFor+10*time.Second {
				t.Fatalf("%v left of a wait of at most %v", s.Until.Sub(now), cfg.MaxOpenFor)
			}
		}
		for range 2 { // an override or a lease, then a wait
			b.Credit(now)
			now = now.Add(max(time.Minute, cfg.MaxOpenFor, cfg.ProbeTimeout) + 10*time.Second)
		}
		if n, _ := b.Credit(now); n == 0 {
			t.Fatalf("no credit after all waits are over: %+v", b.Stats(now))
		}
	})
}

func TestInvariant11_extremeTimesDoNotPanic(t *testing.T) {
	b := breaker.New(breaker.Config{ConsecutiveFailures: 1}, nil)
	for _, now := range []time.Time{
		time.Now(), {}, time.Time{}.Add(-1), time.Unix(math.MaxInt64, 0), time.Unix(math.MinInt64, 0), time.Now().AddDate(10_000, 0, 0), time.Now(), {},
	} {
		p, _ := b.Acquire(now)
		p.Done(now, breaker.Good, math.MaxInt64)
		p, _ = b.Acquire(now)
		p.Done(now, breaker.Bad, math.MinInt64)
		b.Credit(now)
		b.Stats(now)
	}
}
