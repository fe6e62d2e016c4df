// Package pipeline is what happens to one job: calls to the target through
// retry, limiter, breaker and timeout, and the judgement of what they mean.
//
//	may it run at all? ─► retry( seat( breaker permit( timeout( target call )))) ─► judge ─► Outcome
//
// It guarantees:
//  1. Every job gets exactly one Outcome, whatever it, the target or a panic does.
//  2. Every seat and every breaker permit is returned, with what the call says
//     of the target.
//  3. A job that is expired or cannot be read is never sent.
//
// It settles nothing and keeps no jobs; who waits and who runs is the pool's part.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/retry"
	"github.com/workerd/workerd/internal/target"
)

// Config of a pipeline, put together from those of its pool and target.
type Config struct {
	Pool string
	// Timeout of one call.
	Timeout time.Duration
	// JobTimeout of all calls of an attempt and the waits between them.
	JobTimeout time.Duration
	// Rules by which an attempt is judged.
	Rules Rules
}

// Try is one call to the target, for whoever watches.
type Try struct {
	Job    *job.Job
	Result job.Result
	Took   time.Duration
}

// Deps are a pipeline's collaborators. All are required.
type Deps struct {
	Target  target.Target
	Limiter *limiter.Limiter
	Breaker *breaker.Breaker
	Retry   *retry.Loop
	// OnTry is called after every call, from the job's goroutine. It must not block.
	OnTry func(Try)
}

// Pipeline handles jobs. Any number of goroutines may use it at once.
type Pipeline struct {
	cfg  Config
	deps Deps
}

// New returns a pipeline.
func New(cfg Config, deps Deps) *Pipeline { return &Pipeline{cfg, deps} }

// Handle runs one attempt of a job. ctx ends with a cause when the job has to
// be given up; no new call is begun once draining is closed. It never panics.
func (p *Pipeline) Handle(ctx context.Context, j *job.Job, before job.Record, draining <-chan struct{}) (out job.Outcome) {
	a := attempt{p: p, job: j, before: before}
	defer func() {
		if v := recover(); v != nil {
			a.last = job.Result{Class: job.Panicked, Reason: job.PanicReason, Err: &PanicError{v, debug.Stack()}}
			out = a.judge(time.Now())
		}
	}()
	if out, stop := p.cfg.Rules.Refuse(j, before, time.Now()); stop {
		return out
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.JobTimeout, job.ErrJobTimeout)
	defer cancel()
	a.tries, a.stop, a.rest = p.deps.Retry.Do(ctx, draining, a.try)
	a.cause = context.Cause(ctx)
	return a.judge(time.Now())
}

// PanicError is a panic in workerd's own code, turned into data.
type PanicError struct {
	Value any
	Stack []byte
}

// Error tells the value; the stack is for whoever asks.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// attempt is one run of a job through the pipeline. It belongs to one goroutine.
type attempt struct {
	p      *Pipeline
	job    *job.Job
	before job.Record

	last  job.Result
	calls int // made; tries refused by the breaker do not count
	tries int
	stop  retry.Stop
	rest  time.Duration
	cause error // why ctx ended, nil if it did not
}

// try makes one call if limiter and breaker permit, and tells the retry loop
// whether another could help.
func (a *attempt) try(ctx context.Context, n int) retry.Verdict {
	began := time.Now()
	seat, permit, err := a.p.enter(began)
	if err != nil {
		// A refusal must not hide what the calls before it said.
		if a.calls == 0 {
			a.last = refusal(err)
		}
		return retry.Verdict{}
	}
	a.calls++
	a.last = job.Result{Class: job.Panicked}
	defer func() { // also after a panic: a permit that is kept would wedge the breaker
		took := time.Since(began)
		says := row(a.last.Class)
		if a.last.Class == job.Throttled && a.last.RetryAfter > 0 {
			a.p.deps.Limiter.Hold(began, began.Add(took+a.last.RetryAfter))
		}
		permit.Done(began.Add(took), says.breaker, a.last.RetryAfter)
		seat.Done(began.Add(took), says.load)
		a.p.deps.OnTry(Try{Job: a.job, Result: a.last, Took: took})
	}()
	call, cancel := context.WithTimeoutCause(ctx, a.p.cfg.Timeout, job.ErrTryTimeout)
	defer cancel()
	a.last = a.p.deps.Target.Call(call, target.Request{
		Job: a.job, Pool: a.p.cfg.Pool, Attempt: a.before.Attempts + 1, Try: n, Timeout: a.p.cfg.Timeout,
	})
	a.last.RetryAfter = spread(a.last.RetryAfter, rand.Float64())
	return verdict(a.last)
}

// enter takes a seat of the limiter and a permit of the breaker, or says who
// refuses. The caller returns both.
func (p *Pipeline) enter(now time.Time) (limiter.Seat, breaker.Permit, error) {
	seat, err := p.deps.Limiter.Acquire(now)
	if err != nil {
		return limiter.Seat{}, breaker.Permit{}, err
	}
	permit, err := p.deps.Breaker.Acquire(now)
	if err != nil {
		seat.Done(now, limiter.Ignored)
		return limiter.Seat{}, breaker.Permit{}, err
	}
	return seat, permit, nil
}

// spread adds up to a tenth to what a target has asked for, so that not all
// whom it has told the same come back at the same time.
func spread(wait time.Duration, u float64) time.Duration {
	return wait + time.Duration(u*float64(wait/10))
}

// refusal is the result of a call that limiter or breaker did not permit.
func refusal(err error) job.Result {
	r := job.Result{Class: job.Rejected, Reason: job.BreakerOpen, Err: err}
	if open, ok := errors.AsType[*breaker.OpenError](err); ok {
		r.RetryAfter = open.RetryAfter
	}
	if refused, ok := errors.AsType[*limiter.RefusedError](err); ok {
		r.Reason, r.RetryAfter = job.Reason(refused.Reason), refused.RetryAfter
	}
	return r
}

func (a *attempt) judge(now time.Time) job.Outcome {
	out := a.p.cfg.Rules.Judge(Attempt{
		Last: a.last, Stop: a.stop, Rest: a.rest, Cause: a.cause, Before: a.before, Enqueued: a.job.Enqueued,
	}, now, rand.Float64())
	out.Tries, out.Last = a.calls, a.last
	return out
}
