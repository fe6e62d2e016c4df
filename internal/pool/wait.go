package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/workerd/workerd/internal/bulkhead"
	"github.com/workerd/workerd/internal/job"
)

// Causes with which a job stops waiting.
var (
	errReleased = errors.New("released")
	// errAged: it counts for more from now on, or is too old to wait further.
	errAged = errors.New("waited long")
	errShed = errors.New("no room for its priority")
)

type deferred struct {
	after  time.Duration
	reason job.Reason
}

func (deferred) Error() string { return "deferred" }

// shedAgain is when a job that is to be shed is looked at again because not
// its priority is why it waits.
const shedAgain = time.Second

// enter waits for a permit, until the room is closed or the job is given up.
func (p *Pool) enter(h *held) error {
	h.claim.Priority, _ = p.rank(h, time.Now())
	if p.bulkhead.TryAcquire(h.claim) {
		return nil
	}
	p.arrived(h)
	if err := p.makeWay(h); err != nil {
		return err
	}
	defer p.madeWay(h)
	p.mu.Lock()
	room := p.room
	p.mu.Unlock()
	ctx, cancel := context.WithCancelCause(h.ctx)
	defer cancel(nil)
	stop := context.AfterFunc(room, func() { cancel(context.Cause(room)) })
	defer stop()
	for {
		now := time.Now()
		if p.shed(h, now) {
			return errShed
		}
		var until time.Time
		h.claim.Priority, until = p.rank(h, now)
		if err := p.acquire(ctx, h.claim, until); !errors.Is(err, errAged) {
			return err
		}
	}
}

// acquire waits for a permit, not longer than until; zero: for ever.
func (p *Pool) acquire(ctx context.Context, c bulkhead.Claim, until time.Time) error {
	if until.IsZero() {
		return p.bulkhead.Acquire(ctx, c)
	}
	ctx, cancel := context.WithDeadlineCause(ctx, until, errAged)
	defer cancel()
	return p.bulkhead.Acquire(ctx, c)
}

// rank is the priority a job waits with, and when to ask again. A job may
// always say that it is less important than its subject; that it is more so is
// believed only if the configuration says so. One that has waited for long
// counts for one priority more.
func (p *Pool) rank(h *held, now time.Time) (rank int, again time.Time) {
	j, priority := h.Job(), h.priority
	if j.Priority > priority || p.cfg.TrustPriority {
		priority = j.Priority
	}
	if after := p.promoteAfter[priority]; after > 0 && priority > 0 {
		if aged(j.Enqueued, after, now) {
			priority--
		} else {
			again = j.Enqueued.Add(after)
		}
	}
	if after := p.shedAfter[h.priority]; after > 0 {
		at := j.Enqueued.Add(after)
		if !now.Before(at) {
			at = now.Add(shedAgain)
		}
		if again.IsZero() || at.Before(again) {
			again = at
		}
	}
	return int(priority), again
}

// shed tells whether a job that has to wait is too old for it. A gate that
// keeps the pool from working is no reason: after an outage nothing would be
// left.
func (p *Pool) shed(h *held, now time.Time) bool {
	if !aged(h.Job().Enqueued, p.shedAfter[h.priority], now) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.stopping && p.heldSince.IsZero() && p.limit > 0
}

// turnedAway says what becomes of a job that did not get to run.
func (p *Pool) turnedAway(h *held, cause error) job.Outcome {
	var d deferred
	switch {
	case errors.Is(cause, errShed):
		err := fmt.Errorf("published %s ago, and its priority (%s) has no room", time.Since(h.Job().Enqueued).Round(time.Millisecond), h.priority)
		if p.cfg.Priorities[h.priority.String()].OnShed == "drop" {
			return job.Outcome{Action: job.Drop, Reason: job.Shed, Err: err}
		}
		return job.Outcome{Action: job.DeadLetter, Reason: job.Shed, Err: err}
	case errors.As(cause, &d):
		return job.Outcome{Action: job.Defer, Reason: d.reason, After: d.after}
	case errors.Is(cause, job.ErrLeaseLost):
		return job.Outcome{Action: job.Release, Reason: job.LeaseLost, Err: cause}
	}
	// Also when everything is being interrupted: it was not running.
	return job.Outcome{Action: job.Release, Reason: job.Released}
}

// openRoom is called with mu held, or before anybody else knows the pool.
func (p *Pool) openRoom() {
	p.room, p.closeRoom = context.WithCancelCause(context.Background())
}

// closeRoomWith sends everybody away for good.
func (p *Pool) closeRoomWith(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeRoom(cause)
	for t := range p.turnstiles {
		t.dismiss(0, func(*held) error { return cause })
	}
}

// deferWaiting gives back everything that waits, not to come again before the
// given time. The caller holds mu.
func (p *Pool) deferWaiting(after time.Duration, why job.Reason) {
	p.closeRoom(deferred{after, why})
	for t := range p.turnstiles {
		t.dismiss(0, func(*held) error { return deferred{after, why} })
	}
	p.openRoom()
}
