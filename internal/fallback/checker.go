package fallback

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// Checker asks a target all the time whether it is well, and tells a monitor.
// One goroutine runs it.
type Checker struct {
	// Interval between the beginnings of two checks, Timeout of one.
	Interval, Timeout time.Duration
	// Ask makes one request and returns when it has ended or ctx has.
	Ask func(ctx context.Context) job.Result
	// Monitor that is told.
	Monitor *Monitor
	// OnCheck is told how each check ended. It must not block.
	OnCheck func(r job.Result, took time.Duration)
}

// Run asks until ctx ends, the first time at once. A target that asks for time
// (Retry-After) is not asked before.
func (c *Checker) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		r := c.check(ctx)
		now := time.Now()
		if ctx.Err() != nil {
			return // it says more of us than of the target
		}
		c.Monitor.Checked(now, r)
		c.OnCheck(r, now.Sub(began))
		timer.Reset(max(jittered(c.Interval, rand.Float64())-now.Sub(began), r.RetryAfter, 0))
	}
}

// jittered is d less up to a fifth, so that replicas do not ask in step.
func jittered(d time.Duration, u float64) time.Duration {
	return d - time.Duration(u*float64(d/5))
}

// check makes one. A panic in it is a check that was not good.
func (c *Checker) check(ctx context.Context) (r job.Result) {
	defer func() {
		if v := recover(); v != nil {
			r = job.Result{Class: job.Panicked, Reason: job.PanicReason, Err: fmt.Errorf("panic: %v", v)}
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, job.ErrTryTimeout)
	defer cancel()
	return c.Ask(ctx)
}
