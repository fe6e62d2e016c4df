package pool

import (
	"context"
	"time"

	"github.com/workerd/workerd/internal/bulkhead"
	"github.com/workerd/workerd/internal/job"
)

// held is a delivery in hand.
type held struct {
	job.Delivery
	lane     *lane
	priority job.Priority // of its source
	claim    bulkhead.Claim
	aside    int // earlier deliveries that only were set aside, see aside.go
	received time.Time
	ctx      context.Context
	cancel   context.CancelCauseFunc
	extended time.Time // last sign of life asked for, at first when it was handed over; keepAlive's alone, as is
	lost     bool      // its lease was over

	record job.Record // of the deliveries before; from here on the job's goroutine's alone
	marked bool       // record says that the job is being run

	started time.Time  // first time it got a permit
	arrived bool       // in the waiting room; guarded by the pool's mu, as is
	counted bool       // among the running
	noted   bool       // by what its consumer is judged by
	inside  bool       // let through its turnstile
	ticket  chan error // for who waits there
	waited  time.Duration
	took    time.Duration
	answer  Answer // what became of its result
}

// one takes a delivery from arrival to its end.
func (p *Pool) one(h *held) {
	p.recall(h)
	out, err := p.settle(h, p.run(h))
	h.cancel(nil)
	p.forget(h)
	p.regulate(time.Now())
	report := Report{Pool: p.name, Job: h.Job(), Priority: h.priority, Outcome: out, Target: h.lane.Target, Answer: h.answer, Received: h.received, Waited: h.waited, Took: h.took, SettleErr: err}
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
		err := p.admit(h)
		now := time.Now()
		h.waited += now.Sub(arrived)
		if err != nil {
			return p.turnedAway(h, err)
		}
		p.begun(h)
		if h.started.IsZero() {
			h.started = now
			p.mark(h)
			if p.isDraining() { // meanwhile: the mark takes its time when the broker is slow
				p.release(h)
				return p.turnedAway(h, errReleased)
			}
		}
		if time.Now().After(h.LeaseUntil()) { // the process may have been stopped meanwhile
			p.release(h)
			return p.turnedAway(h, job.ErrLeaseLost)
		}
		out := h.lane.Handler.Handle(h.ctx, h.Job(), h.record, p.draining)
		h.took += time.Since(now)
		if out.Action != job.Park {
			p.release(h)
			return out
		}
		p.yield(h)
		if h.ctx.Err() != nil { // it was given up, and an open gate would let it in again and again
			return p.turnedAway(h, context.Cause(h.ctx))
		}
		if out.After > p.cfg.MaxPark {
			return job.Outcome{Action: job.Defer, Reason: out.Reason, After: out.After, Err: out.Err}
		}
		// The gate knows of the closed breaker too: the next enter waits for it.
		p.regulate(time.Now())
	}
}

// admit waits until the job may start: for its target, and for a permit.
func (p *Pool) admit(h *held) error {
	if err := p.pass(h); err != nil {
		return err
	}
	err := p.enter(h)
	if err != nil && h.lane.turnstile != nil {
		p.mu.Lock()
		p.leave(h)
		p.mu.Unlock()
	}
	return err
}

// release gives back what a job needed to run.
func (p *Pool) release(h *held) {
	p.bulkhead.Release(h.claim)
	if h.lane.turnstile != nil {
		p.mu.Lock()
		h.lane.turnstile.running--
		p.leave(h)
		p.mu.Unlock()
	}
}

// yield gives it back for a job that its target did not let start. Nobody else of
// that target gets it until the gates were asked again.
func (p *Pool) yield(h *held) {
	t := h.lane.turnstile
	if t == nil {
		p.bulkhead.Yield(h.claim)
		return
	}
	p.bulkhead.Release(h.claim)
	p.mu.Lock()
	defer p.mu.Unlock()
	t.running--
	t.limit = min(t.limit, t.inside-1)
	p.leave(h)
	h.counted = false // it waits outside of the room
	p.running[h.priority]--
}

func (p *Pool) isDraining() bool {
	select {
	case <-p.draining:
		return true
	default:
		return false
	}
}

// arrived says that a job is in the waiting room, which knows its rank. In a
// pool with one priority nobody asks.
func (p *Pool) arrived(h *held) {
	if p.deps.Shares.Used() <= 1 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaveDoor(h)
	p.bulkhead.SetOrder(p.promised(time.Now()), p.hold.LowestFirst)
}

// leaveDoor is called with mu held.
func (p *Pool) leaveDoor(h *held) {
	if !h.arrived {
		h.arrived = true
		p.arriving[h.priority]--
	}
}

// begun counts a job among the running. It stays there until it is settled,
// also while it waits for its target to come back.
func (p *Pool) begun(h *held) {
	if h.counted {
		return // its own
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaveDoor(h)
	h.counted = true
	if t := h.lane.turnstile; t != nil {
		t.running++
	}
	p.running[h.priority]++
	if p.deps.Shares.Used() > 1 {
		p.request() // one less waits for its turn
	}
}

// forget gives back the job's room and asks for the next.
func (p *Pool) forget(h *held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, h)
	p.count[h.priority]--
	p.leaveDoor(h)
	if h.counted {
		p.running[h.priority]--
		if p.asides != nil {
			p.asides.lasted(h.took)
		}
	}
	p.last = time.Now()
}

// keepAlive extends the lease of everything in hand, and gives up what could
// not be kept.
func (p *Pool) keepAlive(ctx context.Context) {
	for {
		timer := time.NewTimer(p.nextLook(time.Now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-p.short:
			timer.Stop()
		}
		p.extend(time.Now())
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

// nextLook is when the leases are to be looked at again: in time for the next
// sign of life, and at once when one is over. In between a call that failed
// would be tried again, for a job that is somebody else's.
func (p *Pool) nextLook(now time.Time) time.Duration {
	wait := p.leaseTick()
	p.mu.Lock()
	defer p.mu.Unlock()
	for h := range p.held {
		if !h.lost {
			wait = min(wait, max(0, h.LeaseUntil().Sub(now))+time.Millisecond)
		}
	}
	return wait
}

func (p *Pool) extend(now time.Time) {
	var due, lost []*held
	p.mu.Lock()
	for h := range p.held {
		switch {
		case now.After(h.LeaseUntil()):
			h.lost = true
			lost = append(lost, h)
		case now.Sub(h.extended) >= p.deps.Sources[h.priority].AckWait()/3:
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
