package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// deadLetterPatience is how long one attempt to store a dead letter may take, if
// the lease lasts as long.
const deadLetterPatience = 10 * time.Second

// deadLetterAgain is when a job comes again whose dead letter could not be stored, and
// deadLetterSeldom if it is too large: it will be next time, but for a call that
// succeeds or somebody who raises the limit.
const deadLetterAgain, deadLetterSeldom = 30 * time.Second, time.Hour

// settle carries an outcome out: the dead letter first, then the result, then the broker. It
// returns the outcome as it really was.
func (p *Pool) settle(h *held, out job.Outcome) (job.Outcome, error) {
	if out.Action == job.DeadLetter {
		out = p.bury(h, out)
	}
	out, h.answer = p.answer(h, out)
	verb, after := verbOf(out)
	if verb == job.Nak { // the next delivery will read it
		p.note(h, out)
	}
	err := h.Settle(verb, after)
	if verb != job.Nak { // an ack does not wait for a broker that is slow to forget
		p.note(h, out)
	}
	if errors.Is(err, job.ErrLeaseLost) && out.Reason == job.LeaseLost {
		err = nil
	}
	return out, err
}

// bury stores the dead letter. If that fails the job goes back to the stream.
func (p *Pool) bury(h *held, out job.Outcome) job.Outcome {
	// Somebody else may be running the job then.
	lost := job.Outcome{Action: job.Release, Reason: job.LeaseLost, Tries: out.Tries, Last: out.Last, Err: job.ErrLeaseLost}
	if h.leaseOver() {
		return lost
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), deadLetterPatience)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() { h.untilLost(ctx); cancel() }) // or a job that somebody else has done meanwhile gets a dead letter
	if err := h.lane.DeadLetters.Put(ctx, h.Job(), out, h.record); err != nil {
		if h.leaseOver() {
			return lost
		}
		after := deadLetterAgain
		if errors.Is(err, job.ErrTooLarge) {
			after = deadLetterSeldom
		}
		return job.Outcome{
			Action: job.Defer, Reason: job.NoDLQ, After: after, Tries: out.Tries, Last: out.Last,
			Err: fmt.Errorf("dead letter could not be stored: %w", err),
		}
	}
	return out
}

func (h *held) leaseOver() bool { return !time.Now().Before(h.LeaseUntil()) }

// untilLost waits until the lease is over, however often it is extended meanwhile.
func (h *held) untilLost(ctx context.Context) {
	for !h.leaseOver() {
		timer := time.NewTimer(time.Until(h.LeaseUntil()))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func verbOf(out job.Outcome) (job.Verb, time.Duration) {
	switch out.Action {
	case job.Done, job.Drop:
		return job.Ack, 0
	case job.DeadLetter:
		return job.Term, 0
	case job.Retry, job.Defer:
		return job.Nak, out.After
	case job.Release:
		return job.Nak, 0
	case job.Park:
	}
	panic("pool: a parked job cannot be settled")
}
