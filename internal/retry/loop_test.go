package retry_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/retry"
)

// result is what Do returned, and how long it took.
type result struct {
	tries      int
	stop       retry.Stop
	rest, took time.Duration
}

func do(ctx context.Context, l *retry.Loop, draining <-chan struct{}, verdicts ...retry.Verdict) result {
	began := time.Now()
	tries, stop, rest := l.Do(ctx, draining, func(_ context.Context, n int) retry.Verdict {
		return verdicts[min(n, len(verdicts))-1]
	})
	return result{tries, stop, rest, time.Since(began)}
}

// steady waits 1s, 2s, 4s, 4s… and never runs out of budget.
func steady() *retry.Loop {
	return &retry.Loop{
		MaxAttempts: 3,
		Policy:      retry.Policy{Initial: time.Second, Max: 4 * time.Second, Multiplier: 2},
		Rand:        func() float64 { return 0.5 },
	}
}

// inBubble hides a test's deadline from rapid, which must not be asked for in
// a bubble.
type inBubble struct{ rapid.TB }

func again() retry.Verdict { return retry.Verdict{Again: true} }

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func empty() *retry.Budget {
	b := retry.NewBudget(retry.Config{BudgetMax: 1, BudgetMinPerSecond: -1})
	b.Withdraw(time.Now(), retry.Whole)
	return b
}

func TestLoop_everyReasonToStop(t *testing.T) {
	const s = time.Second
	for name, c := range map[string]struct {
		verdicts []retry.Verdict
		prepare  func(l *retry.Loop, deadline *time.Duration, draining *chan struct{})
		want     result
	}{
		"final at once":          {[]retry.Verdict{{Success: true}}, nil, result{1, retry.Final, 0, 0}},
		"final is the zero":      {[]retry.Verdict{{}}, nil, result{1, retry.Final, 0, 0}},
		"final after a retry":    {[]retry.Verdict{again(), {}}, nil, result{2, retry.Final, 0, s}},
		"attempts, last unslept": {[]retry.Verdict{again()}, nil, result{3, retry.Attempts, 0, 3 * s}},
		"pushback":               {[]retry.Verdict{{Again: true, Pushback: true}}, nil, result{1, retry.Pushback, 0, 0}},
		"hint is waited for":     {[]retry.Verdict{{Again: true, Hint: 3 * s}, {}}, nil, result{2, retry.Final, 0, 3*s + 150*time.Millisecond}},
		"short hint changes nothing": {
			[]retry.Verdict{{Again: true, Hint: s / 2}, {}}, nil, result{2, retry.Final, 0, s},
		},
		"handoff": {[]retry.Verdict{{Again: true, Hint: 10 * s}}, nil, result{1, retry.Handoff, 10*s + s/2, 0}},
		"handoff of a hint without end": {
			[]retry.Verdict{{Again: true, Hint: 1<<63 - 1}}, nil, result{1, retry.Handoff, 1<<63 - 1, 0},
		},
		"deadline before the next try": {
			[]retry.Verdict{again()},
			func(_ *retry.Loop, deadline *time.Duration, _ *chan struct{}) { *deadline = s + 9*time.Millisecond },
			result{1, retry.Deadline, s, 0},
		},
		"deadline that leaves 10ms": {
			[]retry.Verdict{again(), {}},
			func(_ *retry.Loop, deadline *time.Duration, _ *chan struct{}) { *deadline = s + 10*time.Millisecond },
			result{2, retry.Final, 0, s},
		},
		"draining": {
			[]retry.Verdict{again()},
			func(_ *retry.Loop, _ *time.Duration, draining *chan struct{}) { *draining = closedChannel() },
			result{1, retry.Draining, s, 0},
		},
		"open": {
			[]retry.Verdict{again()},
			func(l *retry.Loop, _ *time.Duration, _ *chan struct{}) {
				l.RetryAfter = func() time.Duration { return 1 }
			},
			result{1, retry.Open, s, 0},
		},
		"closed breaker": {
			[]retry.Verdict{again(), {}},
			func(l *retry.Loop, _ *time.Duration, _ *chan struct{}) {
				l.RetryAfter = func() time.Duration { return 0 }
			},
			result{2, retry.Final, 0, s},
		},
		"budget": {
			[]retry.Verdict{again()},
			func(l *retry.Loop, _ *time.Duration, _ *chan struct{}) { l.Budget = empty() },
			result{1, retry.NoBudget, s, 0},
		},
		"max attempts 0 is 1": {
			[]retry.Verdict{again()},
			func(l *retry.Loop, _ *time.Duration, _ *chan struct{}) { l.MaxAttempts = 0 },
			result{1, retry.Attempts, 0, 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, deadline, draining := steady(), time.Hour, (chan struct{})(nil)
				if c.prepare != nil {
					c.prepare(l, &deadline, &draining)
				}
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				if got := do(ctx, l, draining, c.verdicts...); got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
			})
		})
	}
}

// TestLoop_reasonsAreLookedForInOrder gives all reasons at once and takes
// them away one by one.
func TestLoop_reasonsAreLookedForInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		cancel()
		ctx, draining := dead, closedChannel()
		l := steady()
		l.MaxAttempts, l.Budget = 1, empty()
		l.RetryAfter = func() time.Duration { return time.Second }
		v := retry.Verdict{Pushback: true, Hint: time.Minute}
		order := []func(){
			func() { v.Again = true },
			func() { l.MaxAttempts = 3 },
			func() { v.Pushback = false },
			func() { v.Hint = 0 },
			func() { ctx, cancel = context.WithCancel(t.Context()); cancel() },
			func() { draining = nil },
			func() { l.RetryAfter = nil },
			func() { l.Budget = nil },
			func() {},
		}
		for i, remove := range order {
			if got := do(ctx, l, draining, v); got.stop != retry.Stops()[i] || got.tries != 1 || got.took != 0 {
				t.Errorf("got %+v, want %s", got, retry.Stops()[i])
			}
			remove()
		}
	})
}

func TestInvariant18_sleepEndsAtOnceAndIsRefunded(t *testing.T) {
	for _, c := range []struct {
		stop retry.Stop
		end  func(cancel context.CancelFunc, draining chan struct{})
	}{
		{retry.Cancelled, func(cancel context.CancelFunc, _ chan struct{}) { cancel() }},
		{retry.Draining, func(_ context.CancelFunc, draining chan struct{}) { close(draining) }},
	} {
		t.Run(string(c.stop), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				draining := make(chan struct{})
				l := steady()
				l.Budget = retry.NewBudget(retry.Config{BudgetMinPerSecond: -1})
				time.AfterFunc(300*time.Millisecond, func() { c.end(cancel, draining) })
				want := result{1, c.stop, 700 * time.Millisecond, 300 * time.Millisecond}
				if got := do(ctx, l, draining, again()); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				if s := l.Budget.Stats(time.Now()); s.Tokens != 100 || s.Granted != 1 || s.Refunded != 1 {
					t.Errorf("an interrupted sleep was paid for: %+v", s)
				}
			})
		})
	}
}

func TestLoop_noTryFollowsAnEndInTheSameInstant(t *testing.T) {
	for range 50 { // select picks at random
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			draining := make(chan struct{})
			time.AfterFunc(time.Second, func() { cancel(); close(draining) })
			l := steady()
			got := do(ctx, l, draining, again())
			if late := got.tries == 2 && got.took == time.Second; got.tries != 1 && !late {
				t.Fatalf("got %+v", got)
			}
		})
	}
	// Deterministically: the end has come before the sleep.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := steady()
	l.Policy.Initial = 0
	for range 50 {
		if got := do(ctx, l, nil, again()); got.tries != 1 || got.stop != retry.Cancelled {
			t.Fatalf("a try was begun after the end: %+v", got)
		}
	}
}

func TestInvariant16_sleepsAreOneLessThanTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			l := retry.New(retry.Config{MaxAttempts: rapid.IntRange(1, 10).Draw(r, "max"), Budget: -1})
			l.Rand = func() float64 { return rapid.Float64Range(0, 0.99).Draw(r, "u") }
			var starts []time.Time
			tries, stop, _ := l.Do(t.Context(), nil, func(_ context.Context, n int) retry.Verdict {
				if starts = append(starts, time.Now()); n != len(starts) {
					r.Fatalf("try %d is called %d", len(starts), n)
				}
				return retry.Verdict{Again: rapid.IntRange(0, 9).Draw(r, "again") > 0}
			})
			ended := time.Now()
			if tries != len(starts) || tries > l.MaxAttempts {
				r.Fatalf("%d tries counted, %d made, %d allowed", tries, len(starts), l.MaxAttempts)
			}
			if stop == retry.Attempts && tries != l.MaxAttempts {
				r.Fatalf("stopped by attempts after %d of %d", tries, l.MaxAttempts)
			}
			for i := range starts[1:] {
				if d := starts[i+1].Sub(starts[i]); d <= 0 || d > l.Policy.Max {
					r.Fatalf("slept %s before try %d", d, i+2)
				}
			}
			if !ended.Equal(starts[len(starts)-1]) {
				r.Fatalf("slept %s after the last try", ended.Sub(starts[len(starts)-1]))
			}
		})
	})
}

func TestInvariant18_noSleepPassesTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			l := retry.New(retry.Config{MaxAttempts: 100, Budget: -1})
			timeout := time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(r, "timeout"))
			deadline := time.Now().Add(timeout)
			ctx, cancel := context.WithDeadline(t.Context(), deadline)
			defer cancel()
			l.Do(ctx, nil, func(_ context.Context, n int) retry.Verdict {
				if left := time.Until(deadline); n > 1 && left < 10*time.Millisecond {
					r.Fatalf("try %d starts with %s left", n, left)
				}
				return retry.Verdict{Again: true, Hint: time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(r, "hint"))}
			})
			if time.Now().After(deadline) {
				r.Fatalf("ended %s after the deadline", time.Since(deadline))
			}
		})
	})
}

func TestInvariant22_retryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			l := retry.New(retry.Config{MaxAttempts: 2, Budget: -1})
			u := rapid.Float64Range(0, 0.999).Draw(r, "u")
			l.Rand = func() float64 { return u }
			hint := time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(r, "hint"))
			got := do(t.Context(), l, nil, retry.Verdict{Again: true, Hint: hint})
			waited := max(got.took, got.rest)
			if waited < hint || waited > max(l.Policy.Max, hint+hint/10) {
				r.Fatalf("hint %s: %+v", hint, got)
			}
			if long := waited > l.Policy.Max; long != (got.stop == retry.Handoff) {
				r.Fatalf("hint %s, cap %s: %+v", hint, l.Policy.Max, got)
			}
		})
	})
}

func TestInvariant20_firstTriesNeverConsultTheBudget(t *testing.T) {
	l := steady()
	l.Budget = empty()
	for range 1000 {
		if got := do(t.Context(), l, nil, retry.Verdict{}); got.tries != 1 || got.stop != retry.Final {
			t.Fatalf("got %+v", got)
		}
	}
	if s := l.Budget.Stats(time.Now()); s.Granted != 1 || s.Refused != 0 {
		t.Errorf("a first try has asked the budget: %+v", s)
	}
}

func TestLoop_successPaysAndRetriesCost(t *testing.T) {
	for name, c := range map[string]struct {
		first retry.Verdict
		want  float64
	}{
		"failure":    {again(), 50 - 1 + 0.1},
		"throttling": {retry.Verdict{Again: true, Throttled: true}, 50 - 0.5 + 0.1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := retry.New(retry.Config{BudgetMinPerSecond: -1})
				for range 50 {
					l.Budget.Withdraw(time.Now(), retry.Whole)
				}
				do(t.Context(), l, nil, c.first, retry.Verdict{Success: true})
				if got := l.Budget.Stats(time.Now()).Tokens; got != c.want {
					t.Errorf("%v tokens are left, want %v", got, c.want)
				}
			})
		})
	}
}

func TestLoop_outageLeavesTheTrickle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := retry.New(retry.Config{BudgetMax: 10})
		var retries atomic.Int64
		began := time.Now()
		var jobs sync.WaitGroup
		for range 20 {
			jobs.Go(func() {
				for time.Since(began) < time.Minute {
					tries, _, _ := l.Do(t.Context(), nil, func(context.Context, int) retry.Verdict {
						time.Sleep(100 * time.Millisecond) // in the bubble: a call
						return again()
					})
					retries.Add(int64(tries - 1))
				}
			})
		}
		jobs.Wait()
		if most := int64(10 + time.Since(began).Seconds()); retries.Load() > most || retries.Load() < most/2 {
			t.Errorf("%d retries in %s, want up to %d", retries.Load(), time.Since(began), most)
		}
	})
}

func TestLoop_tryGetsTheContextAndItsPanicPasses(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "value")
	defer func() {
		if v := recover(); v != "boom" {
			t.Errorf("recovered %v", v)
		}
	}()
	steady().Do(ctx, nil, func(ctx context.Context, _ int) retry.Verdict {
		if ctx.Value(key{}) != "value" {
			t.Error("another context")
		}
		panic("boom")
	})
}

func TestLoop_stopsAreAClosedSet(t *testing.T) {
	want := []retry.Stop{"final", "attempts", "pushback", "handoff", "deadline", "draining", "open", "budget", "cancelled"}
	if !slices.Equal(retry.Stops(), want) {
		t.Errorf("got %v, want %v", retry.Stops(), want)
	}
}

func TestLoop_raceOf64(t *testing.T) {
	l := retry.New(retry.Config{InitialBackoff: time.Millisecond, MaxBackoff: time.Millisecond, BudgetMax: 1_000_000})
	ctx, cancel := context.WithCancelCause(t.Context())
	draining := make(chan struct{})
	var most atomic.Int64
	var clients sync.WaitGroup
	for range 64 {
		clients.Go(func() {
			for range 30 {
				tries, _, rest := l.Do(ctx, draining, func(context.Context, int) retry.Verdict {
					return retry.Verdict{Success: rand.IntN(2) == 0, Again: rand.IntN(2) == 0, Throttled: rand.IntN(2) == 0}
				})
				if rest < 0 || rest > time.Millisecond {
					t.Errorf("rest %s", rest)
				}
				most.Store(max(most.Load(), int64(tries)))
			}
		})
	}
	close(draining)
	cancel(errors.New("enough"))
	clients.Wait()
	if most.Load() > 3 {
		t.Errorf("%d tries", most.Load())
	}
}

func BenchmarkLoop_success(b *testing.B) {
	l := retry.New(retry.Config{})
	ctx, draining := b.Context(), make(chan struct{})
	try := func(context.Context, int) retry.Verdict { return retry.Verdict{Success: true} }
	b.ReportAllocs()
	for b.Loop() {
		l.Do(ctx, draining, try)
	}
}

func BenchmarkPolicy_delay(b *testing.B) {
	p := retry.Config{}.Policy()
	for b.Loop() {
		p.Delay(3, 0.5)
	}
}
