// Package pipeline is what happens to one job: calls to the target through
// retry, limiter, breaker and timeout, and the judgement of what they mean.
//
//	may it run at all? ─► retry( seat( breaker permit( timeout( target call )))) ─► fallback ─► judge ─► Outcome
//
// It guarantees:
//  1. Every job gets exactly one Outcome, whatever it, the target or a panic does.
//  2. Every seat and every breaker permit is returned, with what the call says
//     of the target.
//  3. A job that is expired or cannot be read is never sent.
//  4. A hedge is a second call of the same try, under the guards of the target;
//     it stays within its budget, and the one of the two that is not used is
//     ended before the try is.
//  5. What a fallback does counts for the guards of whom it calls, never for
//     those of the target; if it fails, what the target said of the job stands.
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
	"github.com/workerd/workerd/internal/cache"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/hedge"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/retry"
	"github.com/workerd/workerd/internal/target"
)

// Config of a pipeline, put together from those of its pool and target.
type Config struct {
	Pool string
	// Target is its name.
	Target string
	// Timeout of one call.
	Timeout time.Duration
	// JobTimeout of all calls of an attempt and the waits between them.
	JobTimeout time.Duration
	// Rules by which an attempt is judged.
	Rules Rules
	// Keep is how many bytes of the target's answers the cache wants, if there
	// is a step for it; KeepResult how many are wanted of any answer to a job that
	// names somebody to be told. 0: none.
	Keep, KeepResult int
}

// Try is one call to the target, for whoever watches.
type Try struct {
	Job    *job.Job
	Result job.Result
	Took   time.Duration
}

// Deps are a pipeline's collaborators. Those of a fallback may be missing; all
// others are required.
type Deps struct {
	Target  target.Target
	Limiter *limiter.Limiter
	Breaker *breaker.Breaker
	Retry   *retry.Loop
	// OnTry is called after every call to the target, from the goroutine that
	// made it. It must not block.
	OnTry func(Try)
	// Hedge makes a second call where the first is late; nil: never. OnHedge is
	// told of each, and must not block.
	Hedge   *hedge.Hedger
	OnHedge func(hedge.Result)

	// Fallback is the chain of steps taken, in this order, when the target did
	// not do the job.
	Fallback []Step
	// Cache of a chain that has a step for it.
	Cache *cache.Cache
	// Park publishes a job to a subject; it returns once a stream has it.
	Park func(ctx context.Context, subject string, j Job, why job.Outcome) error
	// Degrade is the switch that leads straight to it.
	Degrade *fallback.Switch
	// OnStep is called after every step, from the job's goroutine. It must not block.
	OnStep func(StepDone)
	// OnSaid is told what the target said last of each job that it was called
	// for, before any step. It must not block; nil: nobody wants to know.
	OnSaid func(job.Result)
}

// Lane is a target with what guards it, as seen by a call.
type Lane struct {
	Target  target.Target
	Limiter *limiter.Limiter
	Breaker *breaker.Breaker
	// Timeout of one call.
	Timeout time.Duration
	// Degrade is the switch that says that the target is not to be called; nil: it
	// always may be.
	Degrade *fallback.Switch
	// OnTry is called after every call, OnHedge after every call that was late and
	// might be hedged; see [Deps].
	OnTry   func(Try)
	Hedge   *hedge.Hedger
	OnHedge func(hedge.Result)
}

// Pipeline handles jobs. Any number of goroutines may use it at once.
type Pipeline struct {
	cfg     Config
	deps    Deps
	primary *Lane
	cached  *Step // of the chain, nil if it has none
}

// New returns a pipeline.
func New(cfg Config, deps Deps) *Pipeline {
	p := &Pipeline{cfg: cfg, deps: deps, primary: &Lane{
		Target: deps.Target, Limiter: deps.Limiter, Breaker: deps.Breaker, Timeout: cfg.Timeout, OnTry: deps.OnTry,
		Degrade: deps.Degrade, Hedge: deps.Hedge, OnHedge: deps.OnHedge,
	}}
	for i, s := range deps.Fallback {
		if s.Kind() == fallback.Cached {
			p.cached = &deps.Fallback[i]
		}
	}
	return p
}

// Handle runs one attempt of a job. ctx ends with a cause when the job has to
// be given up; no new call is begun once draining is closed. It never panics.
func (p *Pipeline) Handle(ctx context.Context, j *job.Job, before job.Record, draining <-chan struct{}) (out job.Outcome) {
	a := attempt{p: p, job: j, before: before, draining: draining}
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
	_, a.stop, a.rest = p.deps.Retry.Do(ctx, draining, a.try)
	if a.calls > 0 && p.deps.OnSaid != nil {
		p.deps.OnSaid(a.last)
	}
	if out, done := a.instead(ctx, draining); done {
		return out
	}
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
	// draining is closed when no call is to begin any more.
	draining <-chan struct{}

	last    job.Result // at the target
	calls   int        // made to the target; tries refused by its guards do not count
	made    int        // calls to anybody
	probe   bool       // the last of them was one, of a breaker that is half open
	stepped bool       // a fallback was tried, and not only refused
	stop    retry.Stop
	rest    time.Duration
	cause   error // why ctx ended, nil if it did not
}

// try makes one call to the target if it is to be called, and tells the retry
// loop whether another could help.
func (a *attempt) try(ctx context.Context, n int) retry.Verdict {
	if n > 1 && a.expired(time.Now()) {
		return retry.Verdict{} // it expired between two calls; what the last one said stands
	}
	r := a.call(ctx, a.p.primary, n)
	if r.Class == job.Rejected {
		// A refusal must not hide what the calls before it said.
		if a.calls == 0 {
			a.last = r
		}
		return retry.Verdict{}
	}
	a.calls++
	a.last = r
	a.remember(r)
	return verdict(r)
}

// expired tells whether nobody wants the job done any more.
func (a *attempt) expired(now time.Time) bool {
	return !a.job.Deadline.IsZero() && now.After(a.job.Deadline)
}

// call makes one call over a lane if limiter and breaker permit.
func (a *attempt) call(ctx context.Context, l *Lane, n int) job.Result {
	began := time.Now()
	seat, permit, err := l.enter(began)
	if err != nil {
		return refusal(err)
	}
	a.made++
	if l == a.p.primary {
		a.probe = permit.Probe()
	}
	if l.Hedge != nil {
		return a.race(ctx, l, n, ticket{seat, permit, began})
	}
	return a.over(ctx, l, n, ticket{seat, permit, began})
}

// ticket is what one call needs, from limiter and breaker.
type ticket struct {
	seat   limiter.Seat
	permit breaker.Permit
	began  time.Time
}

// over makes one call over a lane, and gives the ticket back.
func (a *attempt) over(ctx context.Context, l *Lane, n int, t ticket) (r job.Result) {
	r = job.Result{Class: job.Panicked}
	defer func() { // also after a panic: a permit that is kept would wedge the breaker
		took := time.Since(t.began)
		says := row(r.Class)
		if r.Class == job.Throttled && r.RetryAfter > 0 {
			l.Limiter.Hold(t.began, t.began.Add(took+r.RetryAfter))
		}
		t.permit.Done(t.began.Add(took), says.breaker, r.RetryAfter)
		t.seat.Done(t.began.Add(took), says.load)
		l.OnTry(Try{Job: a.job, Result: r, Took: took})
	}()
	call, cancel := context.WithTimeoutCause(ctx, l.Timeout, job.ErrTryTimeout)
	defer cancel()
	r = l.Target.Call(call, target.Request{
		Job: a.job, Pool: a.p.cfg.Pool, Attempt: a.before.Attempts + 1, Try: n, Timeout: l.Timeout, Keep: a.keep(l),
	})
	if l.Hedge != nil {
		r = unlessLost(call, r)
	}
	r.RetryAfter = spread(r.RetryAfter, rand.Float64())
	return r
}

// keep is how much of an answer is wanted.
func (a *attempt) keep(l *Lane) (n int) {
	if a.p.cached != nil && l == a.p.primary {
		n = a.p.cfg.Keep
	}
	if most := a.p.cfg.KeepResult; most > n && a.job.Header.Get(job.HeaderReplyTo) != "" {
		n = most
	}
	return n
}

// enter takes a seat of the limiter and a permit of the breaker, or says who
// refuses: the switch, then the breaker, then the limiter. The caller returns seat
// and permit.
func (l *Lane) enter(now time.Time) (limiter.Seat, breaker.Permit, error) {
	if err := l.degraded(now); err != nil {
		return limiter.Seat{}, breaker.Permit{}, err
	}
	seat, err := l.Limiter.Acquire(now)
	if err != nil {
		if n, until := l.Breaker.Credit(now); n == 0 {
			s := l.Breaker.Stats(now)
			err = &breaker.OpenError{State: s.State, Until: until, RetryAfter: max(0, until.Sub(now)), Reason: s.Reason, Note: s.Note}
		}
		return limiter.Seat{}, breaker.Permit{}, err
	}
	permit, err := l.Breaker.Acquire(now)
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

// refusal is the result of a call that switch, limiter or breaker did not permit.
func refusal(err error) job.Result {
	r := job.Result{Class: job.Rejected, Reason: job.BreakerOpen, Err: err}
	if open, ok := errors.AsType[*breaker.OpenError](err); ok {
		r.RetryAfter = open.RetryAfter
	}
	if degraded, ok := errors.AsType[*DegradedError](err); ok {
		r.Reason, r.RetryAfter = job.Degraded, max(0, time.Until(degraded.State.Until))
	}
	if refused, ok := errors.AsType[*limiter.RefusedError](err); ok {
		r.Reason, r.RetryAfter = job.Reason(refused.Reason), refused.RetryAfter
	}
	return r
}

func (a *attempt) judge(now time.Time) job.Outcome {
	out := a.p.cfg.Rules.Judge(Attempt{
		Last: a.last, Stop: a.stop, Rest: a.rest, Cause: a.cause, Probe: a.probe, Stepped: a.stepped, Before: a.before, Enqueued: a.job.Enqueued,
	}, now, rand.Float64())
	out.Tries, out.Last = a.made, a.last
	return out
}
