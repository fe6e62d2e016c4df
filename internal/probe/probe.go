// Package probe asks a target whether it is well again, so that no job has to.
//
// While the breaker of the target is open and its wait is over, a [Prober] makes
// the first probe itself, by a request that is not a job. A good answer counts as
// one of the breaker's half_open_calls, and jobs make the others; any other
// answer, or none, reopens it.
//
// It guarantees:
//   - at most one probe of a prober runs at a time, and none while the breaker
//     is closed, its wait is not over, or the target has asked for time;
//   - every probe ends the breaker's permit, whatever becomes of it: an answer,
//     a timeout, a panic, the end of the context. The latter says nothing about
//     the target.
//
// When the prober is gone or stuck, the breaker gives its probe to a job after
// a while (see [breaker.Breaker.Reserve]). What a good answer is and how long it
// may be is left to whoever asks the target.
package probe

import (
	"context"
	"fmt"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
)

// Prober asks one target. One goroutine runs it.
type Prober struct {
	// Config with its defaults.
	Config Config
	// Breaker of the target.
	Breaker *breaker.Breaker
	// Ask makes one request and returns when it has ended or ctx has. Only
	// job.Success is good.
	Ask func(ctx context.Context, path string) job.Result
	// HeldUntil tells until when the target wants to be left alone. The zero
	// time, or one that has passed: it does not.
	HeldUntil func(now time.Time) time.Time
	// OnProbe is told how each probe ended. It must not block.
	OnProbe func(r job.Result, took time.Duration)
}

// Run probes until ctx ends.
func (p *Prober) Run(ctx context.Context) {
	p.Breaker.Reserve(time.Now(), p.Config.Interval)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		changed, now := p.Breaker.Changed(), time.Now()
		due, wanted := p.Breaker.ProbeDue(now)
		if held := p.HeldUntil(now); wanted && due.Before(held) {
			due = held
		}
		switch {
		case !wanted:
			timer.Stop()
		case now.Before(due):
			timer.Reset(due.Sub(now))
		default:
			p.probe(ctx, now)
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
	}
}

// probe makes one.
func (p *Prober) probe(ctx context.Context, began time.Time) {
	permit, ok := p.Breaker.Probe(began)
	if !ok {
		return
	}
	r, verdict := job.Result{Class: job.Panicked, Reason: job.PanicReason}, breaker.Bad
	defer func() { // also if the goroutine ends
		if v := recover(); v != nil {
			r.Err = fmt.Errorf("panic: %v", v)
		}
		now := time.Now()
		permit.Done(now, verdict, r.RetryAfter)
		p.OnProbe(r, now.Sub(began))
	}()
	call, cancel := context.WithTimeoutCause(ctx, p.Config.Timeout, job.ErrTryTimeout)
	defer cancel()
	r = p.Ask(call, p.Config.Path)
	switch {
	case r.Class == job.Success:
		verdict = breaker.Good
	case ctx.Err() != nil:
		verdict = breaker.Ignored
	}
}
