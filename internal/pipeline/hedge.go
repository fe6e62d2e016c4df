package pipeline

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/hedge"
	"github.com/workerd/workerd/internal/job"
)

var (
	// errLost ends a call whose try the other call has decided.
	errLost = errors.New("given up: the other call of the try was answered first")
	// errTryOver ends a hedge with the try, which is late already.
	errTryOver = errors.New("given up: the time of the try is over")
)

// race makes a call, and the same a second time if the first is late. The first
// success counts, and the other call is given up; without one, what the first
// call said. No refusal decides: the target may have refused one of the two
// because of the other. Both have ended when it returns.
//
//	first ─────────────┬────────── success ──► counts, unless the hedge was sooner
//	                   │ after
//	                   └─ hedge ── success ──► counts, unless the first was sooner
func (a *attempt) race(ctx context.Context, l *Lane, n int, t ticket) job.Result {
	delay := l.Hedge.Begin()
	if delay == 0 || delay >= l.Timeout {
		r := a.over(ctx, l, n, t)
		l.noteFirst(r, t.began)
		return r
	}
	first, loseFirst := context.WithCancelCause(ctx)
	defer loseFirst(nil)
	second, loseSecond := context.WithCancelCause(ctx)
	defer loseSecond(nil)

	hedged, stopped := job.Result{Class: job.Panicked}, false
	// A copy: an attempt that another goroutine knows is not on the stack, and
	// those without a hedge would pay for that.
	other := &attempt{p: a.p, job: a.job, before: a.before, draining: a.draining}
	ended := make(chan struct{})
	timer := time.AfterFunc(delay, func() {
		defer close(ended)
		if hedged = other.hedge(second, l, n, t.began); hedged.Class == job.Success {
			loseFirst(errLost)
		}
	})
	// Deferred, as the first call may panic: the second must not outlive it.
	defer func() {
		loseSecond(errLost)
		if !stopped && !timer.Stop() {
			<-ended
		}
	}()
	r := a.over(first, l, n, t)
	l.noteFirst(r, t.began)
	if stopped = timer.Stop(); stopped {
		return r
	}
	if r.Class == job.Success {
		loseSecond(errLost)
	}
	<-ended
	return l.decided(r, hedged)
}

// decided is the result of a race, both calls of which have ended.
func (l *Lane) decided(first, hedged job.Result) job.Result {
	switch {
	case hedged.Class == job.Rejected:
		l.onHedge(hedge.Denied)
	case hedged.Class == job.Success && first.Class != job.Success:
		l.onHedge(hedge.Won)
		return hedged
	default:
		l.onHedge(hedge.Lost)
	}
	return first
}

func (l *Lane) onHedge(r hedge.Result) {
	if l.OnHedge != nil {
		l.OnHedge(r)
	}
}

// noteFirst lets the delay follow what first calls take: those that were good,
// and those that lost, which would have taken longer still.
func (l *Lane) noteFirst(r job.Result, began time.Time) {
	if r.Class == job.Success || errors.Is(r.Err, errLost) {
		l.Hedge.Note(time.Since(began))
	}
}

// hedge makes the second call, if there is reason and room for it. It has as
// long as the try has. It is rejected if it was not made, and never panics.
func (a *attempt) hedge(ctx context.Context, l *Lane, n int, began time.Time) (r job.Result) {
	defer func() {
		if v := recover(); v != nil {
			r = job.Result{Class: job.Panicked, Reason: job.PanicReason, Err: &PanicError{v, debug.Stack()}}
		}
	}()
	now := time.Now()
	t, ok := a.spare(ctx, l, now, now.Sub(began))
	if !ok {
		return job.Result{Class: job.Rejected}
	}
	ctx, cancel := context.WithDeadlineCause(ctx, began.Add(l.Timeout), errTryOver)
	defer cancel()
	return a.over(ctx, l, n, t)
}

// spare takes what a hedge needs, if nobody else needs it: never while draining,
// while the breaker is not closed or the target has as many calls as it can
// take, nor if a call that takes as long as is usual would pass the job's deadline.
func (a *attempt) spare(ctx context.Context, l *Lane, now time.Time, usual time.Duration) (ticket, bool) {
	late := !a.job.Deadline.IsZero() && now.Add(usual).After(a.job.Deadline)
	if late || ctx.Err() != nil || closed(a.draining) || l.Breaker.Stats(now).State != breaker.Closed || !l.Hedge.Spend() {
		return ticket{}, false
	}
	seat, ok := l.Limiter.AcquireSpare(now)
	if !ok {
		l.Hedge.Refund()
		return ticket{}, false
	}
	permit, err := l.Breaker.Acquire(now)
	if err != nil {
		seat.Done(now, row(job.Rejected).load)
		l.Hedge.Refund()
		return ticket{}, false
	}
	return ticket{seat, permit, now}, true
}

// unlessLost is the result of a call that may have been given up because of
// another: then it says nothing, whatever the target makes of its end.
func unlessLost(ctx context.Context, r job.Result) job.Result {
	cause := context.Cause(ctx)
	if r.Class == job.Success || !errors.Is(cause, errLost) && !errors.Is(cause, errTryOver) {
		return r
	}
	return job.Result{Class: job.Ignored, Reason: job.Interrupted, Err: cause}
}
