package pipeline_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/hedge"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/retry"
	"github.com/workerd/workerd/internal/target"
)

// hedgedKit is a pipeline that hedges after 100 ms, with budget saved up.
type hedgedKit struct {
	*pipeline.Pipeline
	breaker *breaker.Breaker
	limiter *limiter.Limiter
	hedger  *hedge.Hedger
	tries   atomic.Int64

	mu      sync.Mutex
	results map[hedge.Result]int
}

func newHedgedKit(call scripted, most, saved int) *hedgedKit {
	k := &hedgedKit{results: map[hedge.Result]int{}, hedger: hedge.New(hedge.Config{After: "100ms", Budget: 0.5}, time.Second)}
	for range 2 * saved {
		k.hedger.Begin()
	}
	k.breaker = breaker.New(breaker.Config{}.WithDefaults(), nil)
	k.limiter = limiter.New(limiter.Config{Limit: limiter.Fixed}.WithDefaults(), limiter.Rate{}, most)
	k.Pipeline = pipeline.New(pipeline.Config{Pool: "p", Timeout: time.Second, JobTimeout: time.Minute, Rules: pipeline.Rules{
		MaxAttempts: 3, MaxDeferrals: 100, MaxCrashes: 3, MaxAge: time.Hour, Backoff: retry.Policy{Initial: 5 * time.Second, Max: time.Minute, Multiplier: 2},
	}}, pipeline.Deps{
		Target: call, Limiter: k.limiter, Breaker: k.breaker, Retry: retry.New(retry.Config{MaxAttempts: 1}.WithDefaults()),
		OnTry: func(pipeline.Try) { k.tries.Add(1) }, Hedge: k.hedger,
		OnHedge: func(r hedge.Result) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.results[r]++
		},
	})
	return k
}

func (k *hedgedKit) handle(ctx context.Context) job.Outcome {
	return k.Handle(ctx, &job.Job{ID: "j", Stream: "S", Sequence: 1, Enqueued: time.Now()}, job.Record{}, nil)
}

// quiet fails unless both calls have given back what they took.
func (k *hedgedKit) quiet(t *testing.T) {
	t.Helper()
	if n := k.limiter.Stats(time.Now()).InFlight; n != 0 {
		t.Errorf("%d seats were not given back", n)
	}
}

func good() job.Result { return job.Result{Class: job.Success, Reason: job.OK, Status: 200} }

// answer after d, unless the call is given up.
func answer(ctx context.Context, d time.Duration, r job.Result) job.Result {
	select {
	case <-time.After(d):
		return r
	case <-ctx.Done():
	}
	if errors.Is(context.Cause(ctx), job.ErrTryTimeout) {
		return job.Result{Class: job.Timeout, Reason: job.TimedOut, Err: job.ErrTryTimeout}
	}
	return broken() // a target that does not know better
}

func TestHedge_theFirstSuccessCountsAndTheOtherIsGivenUp(t *testing.T) {
	tests := map[string]struct {
		first, second       time.Duration
		firstSays, thenSays job.Result
		want                hedge.Result
		action              job.Action
		took                time.Duration
		bad                 int
	}{
		"the second is sooner":     {time.Minute, 50 * time.Millisecond, good(), good(), hedge.Won, job.Done, 150 * time.Millisecond, 0},
		"the first is sooner":      {200 * time.Millisecond, time.Minute, good(), good(), hedge.Lost, job.Done, 200 * time.Millisecond, 0},
		"the first fails late":     {200 * time.Millisecond, 200 * time.Millisecond, broken(), good(), hedge.Won, job.Done, 300 * time.Millisecond, 1},
		"the second fails at once": {200 * time.Millisecond, time.Millisecond, good(), broken(), hedge.Lost, job.Done, 200 * time.Millisecond, 1},
		"a refusal decides nothing": {
			300 * time.Millisecond, time.Millisecond, good(), job.Result{Class: job.Permanent, Reason: job.Status4xx}, hedge.Lost, job.Done, 300 * time.Millisecond, 0,
		},
		"both fail":  {200 * time.Millisecond, 200 * time.Millisecond, broken(), broken(), hedge.Lost, job.Retry, 300 * time.Millisecond, 2},
		"both hang":  {time.Hour, time.Hour, good(), good(), hedge.Lost, job.Retry, time.Second, 1},
		"in vain, 2": {900 * time.Millisecond, 950 * time.Millisecond, good(), good(), hedge.Lost, job.Done, 900 * time.Millisecond, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int64
				k := newHedgedKit(func(ctx context.Context, _ target.Request) job.Result {
					if n.Add(1) == 1 {
						return answer(ctx, tt.first, tt.firstSays)
					}
					return answer(ctx, tt.second, tt.thenSays)
				}, 10, 5)
				began := time.Now()
				out := k.handle(t.Context())
				if took := time.Since(began); out.Action != tt.action || took != tt.took || out.Tries != 1 {
					t.Errorf("%s after %s and %d tries, want %s after %s and one try", out.Action, took, out.Tries, tt.action, tt.took)
				}
				if k.results[tt.want] != 1 || len(k.results) != 1 || k.tries.Load() != 2 {
					t.Errorf("%v, %d calls, want %s once and two calls", k.results, k.tries.Load(), tt.want)
				}
				if s := k.breaker.Stats(time.Now()); s.Bad != tt.bad {
					t.Errorf("the breaker counts %d of %d bad, want %d: who loses has not failed", s.Bad, s.Total, tt.bad)
				}
				k.quiet(t)
			})
		})
	}
}

func TestHedge_isDenied(t *testing.T) {
	tests := map[string]func(k *hedgedKit, j *job.Job, drain func()){
		"without budget": func(k *hedgedKit, _ *job.Job, _ func()) {
			for k.hedger.Spend() {
			}
		},
		"while draining":          func(_ *hedgedKit, _ *job.Job, drain func()) { drain() },
		"if it would be too late": func(_ *hedgedKit, j *job.Job, _ func()) { j.Deadline = time.Now().Add(150 * time.Millisecond) },
		"while the target warms up": func(k *hedgedKit, _ *job.Job, _ func()) {
			time.AfterFunc(50*time.Millisecond, func() { k.limiter.Outage(time.Now()) })
		},
		"while it has asked for time": func(k *hedgedKit, _ *job.Job, _ func()) {
			time.AfterFunc(50*time.Millisecond, func() { k.limiter.Hold(time.Now(), time.Now().Add(time.Minute)) })
		},
		"while the breaker is not closed": func(k *hedgedKit, _ *job.Job, _ func()) {
			time.AfterFunc(50*time.Millisecond, func() { _ = k.breaker.Override(breaker.MetricsOnly, time.Hour, "", time.Now()) })
		},
		"at the limit": func(k *hedgedKit, _ *job.Job, _ func()) {
			for range 9 {
				_, _ = k.limiter.Acquire(time.Now())
			}
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newHedgedKit(func(ctx context.Context, _ target.Request) job.Result {
					return answer(ctx, 300*time.Millisecond, good())
				}, 10, 5)
				draining := make(chan struct{})
				j := &job.Job{ID: "j", Enqueued: time.Now()}
				prepare(k, j, func() { time.AfterFunc(50*time.Millisecond, func() { close(draining) }) })
				if out := k.Handle(t.Context(), j, job.Record{}, draining); out.Action != job.Done || k.tries.Load() != 1 || k.results[hedge.Denied] != 1 {
					t.Errorf("%s after %d calls, %v; want done by one call, and a hedge denied", out.Action, k.tries.Load(), k.results)
				}
			})
		})
	}
}

// TestHedge_aPanicOfEitherCallLosesNothing: neither the process nor a permit.
func TestHedge_aPanicOfEitherCallLosesNothing(t *testing.T) {
	for which := range int64(2) {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int64
			k := newHedgedKit(func(ctx context.Context, _ target.Request) job.Result {
				if mine := n.Add(1); mine == which+1 {
					time.Sleep(200 * time.Millisecond)
					panic("boom")
				}
				return answer(ctx, 400*time.Millisecond, good())
			}, 10, 5)
			want := []job.Action{job.Retry, job.Done}[which]
			if out := k.handle(t.Context()); out.Action != want {
				t.Errorf("call %d panics: %s, want %s", which+1, out.Action, want)
			}
			k.quiet(t)
		})
	}
}

// TestHedge_theEndOfTheJobEndsBoth.
func TestHedge_theEndOfTheJobEndsBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newHedgedKit(func(ctx context.Context, _ target.Request) job.Result {
			<-ctx.Done()
			return job.Result{Class: job.Ignored, Err: context.Cause(ctx)}
		}, 10, 5)
		ctx, end := context.WithCancelCause(t.Context())
		time.AfterFunc(500*time.Millisecond, func() { end(job.ErrLeaseLost) })
		out := k.handle(ctx)
		if out.Action != job.Release || out.Reason != job.LeaseLost || out.Charged {
			t.Errorf("got %+v, want released uncharged", out)
		}
		k.quiet(t)
	})
}

// TestHedge_neverBeyondLimitNorBudget: whatever jobs come and however long the
// target takes, calls at once stay within the limit and hedges within the budget.
func TestHedge_neverBeyondLimitNorBudget(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		most := rapid.IntRange(1, 6).Draw(rt, "limit")
		jobs := rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 40).Draw(rt, "begin")
		took := rapid.SliceOfN(rapid.IntRange(1, 1500), 1, 20).Draw(rt, "took")
		synctest.Test(t, func(t *testing.T) {
			var n, running, firsts atomic.Int64
			k := newHedgedKit(func(ctx context.Context, _ target.Request) job.Result {
				if at := running.Add(1); at > int64(most) {
					t.Errorf("%d calls at once, the limit is %d", at, most)
				}
				defer running.Add(-1)
				i := int(n.Add(1))
				return answer(ctx, time.Duration(took[i%len(took)])*time.Millisecond, good())
			}, most, 0)
			pool := make(chan struct{}, most) // as the pools' concurrency does
			var wg sync.WaitGroup
			for _, begin := range jobs {
				wg.Go(func() {
					time.Sleep(time.Duration(begin) * time.Millisecond)
					pool <- struct{}{}
					defer func() { <-pool }()
					if out := k.handle(t.Context()); out.Tries > 0 {
						firsts.Add(1)
					}
				})
			}
			wg.Wait()
			if hedges := k.tries.Load() - firsts.Load(); 2*hedges > firsts.Load() || hedges != int64(k.results[hedge.Won]+k.results[hedge.Lost]) {
				t.Errorf("%d hedges (%v) of %d calls, want at most half", hedges, k.results, firsts.Load())
			}
			k.quiet(t)
		})
	})
}
