package pool

import (
	"context"
	"errors"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// held is a delivery in hand.
type held struct {
	job.Delivery
	priority job.Priority // of its source
	received time.Time
	ctx      context.Context
	cancel   context.CancelCauseFunc
	extended time.Time // last sign of life asked for; keepAlive's alone

	record job.Record // of the deliveries before; from here on the job's goroutine's alone
	marked bool       // record says that the job is being run

	started time.Time // first time it got a permit
	waited  time.Duration
	took    time.Duration
}

// Causes with which the waiting room is closed.
var errReleased = errors.New("released")

type deferred struct {
	after  time.Duration
	reason job.Reason
}

func (deferred) Error() string { return "deferred" }

// one takes a delivery from arrival to its end.
func (p *Pool) one(h *held) {
	h.record = p.deps.Ledger.Load(h.ctx, h.Job())
	out, err := p.settle(h, p.run(h))
	h.cancel(nil)
	p.forget(h)
	p.regulate(time.Now())
	report := Report{Pool: p.name, Job: h.Job(), Outcome: out, Received: h.received, Waited: h.waited, Took: h.took, SettleErr: err}
	if !h.started.IsZero() {
		report.Age = max(0, h.started.Sub(h.Job().Enqueued))
	}
	p.deps.Report(report)
}

// run lets the job wait for a permit and handles it, again if the gate closed
// between the two.
func (p *Pool) run(h *held) job.Outcome {
	for {
		arrived := time.Now()
		err := p.enter(h)
		now := time.Now()
		h.waited += now.Sub(arrived)
		if err != nil {
			return turnedAway(err)
		}
		if h.started.IsZero() {
			h.started = now
			p.mark(h)
		}
		out := p.deps.Handler.Handle(h.ctx, h.Job(), h.record, p.draining)
		h.took += time.Since(now)
		if out.Action != job.Park {
			p.bulkhead.Release()
			return out
		}
		p.bulkhead.Yield()
		if out.After > p.cfg.MaxPark {
			return job.Outcome{Action: job.Defer, Reason: out.Reason, After: out.After, Err: out.Err}
		}
		// The gate knows of the closed breaker too: the next enter waits for it.
		p.regulate(time.Now())
	}
}

// enter waits for a permit, until the room is closed or the job is given up.
func (p *Pool) enter(h *held) error {
	if p.bulkhead.TryAcquire(int(h.priority)) {
		return nil
	}
	p.mu.Lock()
	room := p.room
	p.mu.Unlock()
	ctx, cancel := context.WithCancelCause(h.ctx)
	defer cancel(nil)
	stop := context.AfterFunc(room, func() { cancel(context.Cause(room)) })
	defer stop()
	return p.bulkhead.Acquire(ctx, int(h.priority))
}

// turnedAway says what becomes of a job that did not get to run.
func turnedAway(cause error) job.Outcome {
	var d deferred
	switch {
	case errors.As(cause, &d):
		return job.Outcome{Action: job.Defer, Reason: d.reason, After: d.after}
	case errors.Is(cause, job.ErrLeaseLost):
		return job.Outcome{Action: job.Release, Reason: job.LeaseLost, Err: cause}
	}
	// Also when everything is being interrupted: it was not running.
	return job.Outcome{Action: job.Release, Reason: job.Released}
}

// forget gives back the job's room and asks for the next.
func (p *Pool) forget(h *held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, h)
	p.count[h.priority]--
	p.last = time.Now()
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
}

// deferWaiting gives back everything that waits, not to come again before the
// given time. The caller holds mu.
func (p *Pool) deferWaiting(after time.Duration, why job.Reason) {
	p.closeRoom(deferred{after, why})
	p.openRoom()
}

// keepAlive extends the lease of everything in hand, and gives up what could
// not be kept.
func (p *Pool) keepAlive(ctx context.Context) {
	for {
		wait := p.leaseTick()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case now := <-timer.C:
			p.extend(now)
		}
	}
}

// leaseTick is a sixth of the shortest lease, so that each job gets its sign of
// life between a third and a half of its lease.
func (p *Pool) leaseTick() time.Duration {
	wait := p.cfg.AckWait
	for _, s := range p.deps.Sources {
		if s != nil {
			wait = min(wait, s.AckWait())
		}
	}
	return max(wait/6, 10*time.Millisecond)
}

func (p *Pool) extend(now time.Time) {
	var due, lost []*held
	p.mu.Lock()
	for h := range p.held {
		last := h.extended
		if last.IsZero() {
			last = h.received
		}
		switch {
		case now.After(h.LeaseUntil()):
			lost = append(lost, h)
		case now.Sub(last) >= p.deps.Sources[h.priority].AckWait()/3:
			h.extended = now
			due = append(due, h)
		}
	}
	p.mu.Unlock()
	for _, h := range lost {
		h.cancel(job.ErrLeaseLost)
	}
	for _, h := range due {
		h.Extend()
	}
}
