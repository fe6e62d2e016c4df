package pipeline_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/retry"
	"github.com/workerd/workerd/internal/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a target that answers as a function says.
type scripted func(ctx context.Context, r target.Request) job.Result

func (s scripted) Call(ctx context.Context, r target.Request) job.Result { return s(ctx, r) }
func (scripted) Close()                                                  {}

// kit is a pipeline around a scripted target, with a breaker that opens at the
// second failure in a row.
type kit struct {
	*pipeline.Pipeline
	breaker *breaker.Breaker
	limiter *limiter.Limiter

	mu    sync.Mutex
	tries []pipeline.Try
}

func newKit(call scripted, change func(*pipeline.Config, *breaker.Config)) *kit {
	k := &kit{}
	cfg := pipeline.Config{Pool: "p", Timeout: time.Second, JobTimeout: time.Minute, Rules: pipeline.Rules{
		MaxAttempts: 3, MaxDeferrals: 100, MaxCrashes: 3, MaxAge: time.Hour, Backoff: retry.Policy{Initial: 5 * time.Second, Max: time.Minute, Multiplier: 2},
	}}
	guard := breaker.Config{ConsecutiveFailures: -1}
	if change != nil {
		change(&cfg, &guard)
	}
	k.breaker = breaker.New(guard.WithDefaults(), nil)
	loop := retry.New(retry.Config{})
	loop.RetryAfter = func() time.Duration {
		if n, until := k.breaker.Credit(time.Now()); n == 0 {
			return time.Until(until)
		}
		return 0
	}
	k.limiter = limiter.New(limiter.Config{}.WithDefaults(), limiter.Rate{}, 10)
	k.Pipeline = pipeline.New(cfg, pipeline.Deps{Target: call, Limiter: k.limiter, Breaker: k.breaker, Retry: loop, OnTry: func(t pipeline.Try) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.tries = append(k.tries, t)
	}})
	return k
}

func (k *kit) handle(ctx context.Context, draining <-chan struct{}) job.Outcome {
	return k.Handle(ctx, &job.Job{ID: "j", Stream: "S", Sequence: 1, Enqueued: time.Now()}, job.Record{Attempts: 1}, draining)
}

func broken() job.Result {
	return job.Result{Class: job.Failure, Reason: job.Status5xx, Status: 503, Err: errors.New("503 from the target")}
}

func TestHandle_triesAgainAtOnceThenGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []target.Request
		k := newKit(func(_ context.Context, r target.Request) job.Result { seen = append(seen, r); return broken() }, nil)
		out := k.handle(t.Context(), nil)
		if out.Action != job.Retry || !out.Charged || out.Tries != 3 || out.Last.Status != 503 || out.After < 5*time.Second {
			t.Errorf("got %+v, want a charged retry after three calls", out)
		}
		if len(seen) != 3 || len(k.tries) != 3 {
			t.Fatalf("%d calls, %d reported, want 3", len(seen), len(k.tries))
		}
		for i, r := range seen {
			if r.Try != i+1 || r.Attempt != 2 || r.Pool != "p" || r.Timeout != time.Second {
				t.Errorf("call %d was %+v", i+1, r)
			}
		}
	})
}

func TestHandle_successAfterATransientFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		out := newKit(func(context.Context, target.Request) job.Result {
			if n++; n == 1 {
				return broken()
			}
			return job.Result{Class: job.Success, Reason: job.OK, Status: 200}
		}, nil).handle(t.Context(), nil)
		if out.Action != job.Done || out.Tries != 2 || out.Err != nil {
			t.Errorf("got %+v, want done at the second call", out)
		}
	})
}

func TestHandle_aPanicIsAnOutcomeAndReturnsItsPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKit(func(context.Context, target.Request) job.Result { panic("boom") }, nil)
		for range 100 {
			out := k.handle(t.Context(), nil)
			if out.Action != job.Retry || out.Reason != job.PanicReason || !out.Charged {
				t.Fatalf("got %+v, want a charged retry", out)
			}
			if p, ok := errors.AsType[*pipeline.PanicError](out.Err); !ok || p.Value != "boom" || !strings.Contains(string(p.Stack), "pipeline_test") {
				t.Fatalf("the error %v does not lead to the panic", out.Err)
			}
			if k.breaker.Stats(time.Now()).State != breaker.Closed {
				return // a panic counts against the target, so the breaker has opened: every permit came back
			}
		}
		t.Error("a hundred panics did not open the breaker")
	})
}

func TestHandle_openBreakerParksWithoutACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		k := newKit(func(context.Context, target.Request) job.Result { calls++; return broken() }, func(_ *pipeline.Config, b *breaker.Config) { b.ConsecutiveFailures = 2 })
		first := k.handle(t.Context(), nil)
		if first.Action != job.Retry || first.Tries != 2 {
			t.Errorf("got %+v, want a retry after the two calls that opened the breaker", first)
		}
		out := k.handle(t.Context(), nil)
		if out.Action != job.Park || out.Reason != job.BreakerOpen || out.Charged || out.Tries != 0 || out.After <= 0 || out.Err == nil {
			t.Errorf("got %+v, want parked until the breaker lets through again", out)
		}
		if calls != 2 {
			t.Errorf("%d calls, want 2: an open breaker is not called through", calls)
		}
	})
}

func TestHandle_aCallIsBoundByTheTimeoutAndTheJobByIts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var causes []error
		hang := scripted(func(ctx context.Context, _ target.Request) job.Result {
			<-ctx.Done()
			causes = append(causes, context.Cause(ctx))
			if errors.Is(context.Cause(ctx), job.ErrTryTimeout) {
				return job.Result{Class: job.Timeout, Reason: job.TimedOut, Err: context.Cause(ctx)}
			}
			return job.Result{Class: job.Ignored, Err: context.Cause(ctx)}
		})
		began := time.Now()
		out := newKit(hang, func(c *pipeline.Config, _ *breaker.Config) { c.JobTimeout = 1500 * time.Millisecond }).handle(t.Context(), nil)
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("took %s, want at most the job's 1.5s", took)
		}
		if out.Action != job.Retry || out.Reason != job.TimedOut || !out.Charged {
			t.Errorf("got %+v, want a charged retry", out)
		}
		if len(causes) == 0 || !errors.Is(causes[0], job.ErrTryTimeout) {
			t.Errorf("calls ended with %v, want the first with the call's timeout", causes)
		}
	})
}

func TestHandle_theEndOfTheJobReachesTheCall(t *testing.T) {
	for _, cause := range []error{job.ErrInterrupted, job.ErrLeaseLost} {
		synctest.Test(t, func(t *testing.T) {
			k := newKit(func(ctx context.Context, _ target.Request) job.Result {
				<-ctx.Done()
				return job.Result{Class: job.Ignored, Err: context.Cause(ctx)}
			}, func(c *pipeline.Config, _ *breaker.Config) { c.Timeout = time.Hour })
			ctx, end := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { end(cause) })
			out := k.handle(ctx, nil)
			if out.Action != job.Release || out.Charged || !errors.Is(out.Err, cause) {
				t.Errorf("%v: got %+v, want released uncharged", cause, out)
			}
			if s := k.breaker.Stats(time.Now()); s.Bad != 0 {
				t.Errorf("%v: the target was blamed for our own end: %+v", cause, s)
			}
		})
	}
}

func TestHandle_drainStartsNoFurtherCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		draining := make(chan struct{})
		calls := 0
		out := newKit(func(context.Context, target.Request) job.Result {
			if calls++; calls == 1 {
				close(draining)
			}
			return broken()
		}, nil).handle(t.Context(), draining)
		if calls != 1 || out.Action != job.Defer || out.Charged || out.After <= 0 {
			t.Errorf("%d calls, got %+v; want one call, given back uncharged with the rest of its wait", calls, out)
		}
	})
}

func TestHandle_whatMustNotRunIsNotSent(t *testing.T) {
	k := newKit(func(context.Context, target.Request) job.Result { panic("was sent") }, nil)
	now := time.Now()
	for name, j := range map[string]*job.Job{
		"invalid": {Invalid: errors.New("payload too large"), Enqueued: now},
		"expired": {Deadline: now.Add(-time.Second), Enqueued: now},
		"old":     {Enqueued: now.Add(-2 * time.Hour)},
	} {
		if out := k.Handle(t.Context(), j, job.Record{}, nil); out.Action != job.DeadLetter || out.Tries != 0 || out.Err == nil {
			t.Errorf("%s: got %+v, want a dead letter without a call", name, out)
		}
	}
}

// TestHandle_noCallBeginsAfterTheDeadline, be it the first or another one of
// the attempt (found by sim).
func TestHandle_noCallBeginsAfterTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		calls := 0
		k := newKit(func(context.Context, target.Request) job.Result {
			if calls++; time.Since(began) >= 10*time.Millisecond {
				t.Errorf("call %d began %s after the job, whose deadline is 10 ms", calls, time.Since(began))
			}
			time.Sleep(10 * time.Millisecond) // and not less: the wait before another call may be short by chance
			return broken()
		}, nil)
		j := &job.Job{ID: "j", Enqueued: began, Deadline: began.Add(10*time.Millisecond - 1)}
		if out := k.Handle(t.Context(), j, job.Record{}, nil); out.Action != job.Retry || out.Tries != 1 || out.Reason != job.Status5xx {
			t.Errorf("got %+v, want the failure of the one call", out)
		}
	})
}
