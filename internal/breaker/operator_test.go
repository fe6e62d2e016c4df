package breaker_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/breaker"
)

func TestInvariant12_disabledNeverRejectsNorCounts(t *testing.T) {
	stories(t, true, func(w *world, d dice) {
		w.override(breaker.Disabled, time.Minute)
		before := w.stats()
		for range 30 {
			if !w.acquire() {
				w.t.Fatalf("disabled refused a call")
			}
			w.done(len(w.held)-1, breaker.Bad, 0)
		}
		if diff := cmp.Diff(before, w.stats()); diff != "" {
			w.t.Fatalf("disabled counted (-before +after):\n%s", diff)
		}
	})
}

func TestInvariant12_metricsOnlyNeverRejectsAndCountsWhatABreakerWouldHaveDone(t *testing.T) {
	type call struct{ observed, acting breaker.Permit }
	rapid.Check(t, func(t *rapid.T) {
		d := roll(t)
		cfg := randomConfig(d)
		now := time.Unix(0, 0)
		opened, refused := uint64(0), uint64(0)
		observer := breaker.New(cfg, nil)
		acting := breaker.New(cfg, func(c breaker.Change) {
			if c.To == breaker.Open {
				opened++
			}
		})
		acting.Stats(now)
		if err := observer.Override(breaker.MetricsOnly, 1000*time.Hour, "", now); err != nil {
			t.Fatal(err)
		}
		var calls []call
		for range 150 {
			switch d(5) {
			case 0, 1:
				o, err := observer.Acquire(now)
				if err != nil {
					t.Fatalf("metrics_only refused: %v", err)
				}
				r, err := acting.Acquire(now)
				if err != nil {
					refused++
				}
				calls = append(calls, call{o, r})
			case 2, 3:
				if n := len(calls); n > 0 {
					v := breaker.Verdict(d(4))
					calls[n-1].observed.Done(now, v, 0)
					calls[n-1].acting.Done(now, v, 0) // the zero permit if it was refused
					calls = calls[:n-1]
				}
			case 4:
				now = now.Add(pick(d, time.Millisecond, time.Second, 7*time.Second, time.Minute))
			}
			s := observer.Stats(now)
			r := acting.Stats(now)
			if s.WouldOpen != opened || s.WouldReject != refused || s.Total != r.Total || s.Bad != r.Bad || s.Rejected != 0 {
				t.Fatalf("metrics_only saw %+v, a breaker opened %d times, refused %d calls and is at %+v", s, opened, refused, r)
			}
		}
	})
}

func TestInvariant14_overrideAndResetMakeEarlierPermitsStaleAndOverridesExpire(t *testing.T) {
	stories(t, true, func(w *world, d dice) {
		w.reset()
		w.held = nil
		for range 3 {
			w.acquire()
		}
		state, ttl := pick(d, breaker.ForcedOpen, breaker.Disabled, breaker.MetricsOnly), pick(d, time.Second, time.Hour)
		w.override(state, ttl)
		stale := w.stats().Stale
		for len(w.held) > 0 {
			w.done(0, breaker.Bad, 0)
		}
		if s := w.stats(); s.Stale != stale+3 || s.State != state {
			w.t.Fatalf("three earlier permits made %d stale results in %v", s.Stale-stale, s.State)
		}
		w.wait(ttl - 1)
		if s := w.stats(); s.State != state {
			w.t.Fatalf("%v ended early", state)
		}
		w.wait(1)
		if s := w.stats(); s.State != breaker.Closed || s.Reason != breaker.OverrideExpired || s.Opens != 0 {
			w.t.Fatalf("%v ended in %+v", state, s)
		}
	})
}

func TestOverride_refusesWhatIsNoOverrideAndDefaultsItsTTL(t *testing.T) {
	now := time.Unix(0, 0)
	b := breaker.New(breaker.Config{}, nil)
	before := b.Stats(now)
	for _, s := range []breaker.State{breaker.Closed, breaker.Open, breaker.HalfOpen, 99} {
		if err := b.Override(s, time.Minute, "", now); err == nil {
			t.Errorf("override to %v is allowed", s)
		}
	}
	if err := b.Override(breaker.ForcedOpen, -1, "", now); err == nil {
		t.Error("a negative ttl is allowed")
	}
	if diff := cmp.Diff(before, b.Stats(now)); diff != "" {
		t.Errorf("a refused override changed (-before +after):\n%s", diff)
	}
	if err := b.Override(breaker.ForcedOpen, 0, "maintenance", now); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(now); s.Until.Sub(now) != breaker.DefaultTTL || s.Note != "maintenance" {
		t.Errorf("override without ttl: %+v", s)
	}
}
