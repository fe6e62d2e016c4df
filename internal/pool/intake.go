package pool

import (
	"context"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// intake is the pool's ear towards one source.
type intake struct {
	pool     *Pool
	priority job.Priority
}

// Deliver implements job.Receiver.
func (i intake) Deliver(d job.Delivery, backlog uint64) {
	p := i.pool
	now := time.Now()
	h := &held{Delivery: d, priority: i.priority, received: now}
	if p.asides != nil {
		h.claim.Key = p.asides.of(d.Job())
	}
	h.ctx, h.cancel = context.WithCancelCause(p.work)
	p.mu.Lock()
	p.requested[i.priority] = max(0, p.requested[i.priority]-1)
	p.backlog[i.priority], p.heard[i.priority] = backlog, now
	p.arriving[i.priority]++
	if j := d.Job(); j.Deliveries == 1 { // the others are old for reasons of their own
		p.oldest[i.priority] = j.Enqueued
	}
	p.count[i.priority]++
	p.held[h] = struct{}{}
	p.request()
	p.mu.Unlock()
	p.jobs.Go(func() { p.one(h) })
}

// Returned implements job.Receiver.
func (i intake) Returned(n int) {
	p := i.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requested[i.priority] = max(0, p.requested[i.priority]-n)
	p.backlog[i.priority] = 0
	p.oldest[i.priority] = time.Time{}
	p.request()
}

// watchGate regulates the pool whenever a gate's answer may have changed.
func (p *Pool) watchGate(ctx context.Context, g Gate) {
	for {
		changed := g.Changed()
		p.regulate(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// soonest is the least time between two looks at a gate whose answer changes
// with time: a rate of many calls per second is served in small lots.
const soonest = time.Millisecond

// watchClock regulates the pool when the time has come that a gate has named,
// and when what a source said of its jobs has grown stale.
func (p *Pool) watchClock(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var stales <-chan time.Time
	if p.deps.Shares.Used() > 1 {
		ticker := time.NewTicker(stale)
		defer ticker.Stop()
		stales = ticker.C
	}
	for {
		timer.Stop()
		if until := p.until(); !until.IsZero() {
			timer.Reset(max(soonest, time.Until(until)))
		}
		select {
		case <-ctx.Done():
			return
		case <-p.rearm:
		case <-stales:
			p.refresh()
		case <-timer.C:
			p.regulate(time.Now())
		}
	}
}

// refresh asks again if a priority waits for what it was told of, or what is
// presumed.
func (p *Pool) refresh() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for priority, n := range p.requested {
		if n > 0 && (p.backlog[priority] > 0 || p.hold.LowestFirst) {
			p.request()
			return
		}
	}
}

func (p *Pool) until() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hold.Until
}

// regulate asks the gates, sets how many may run and asks for as many jobs as
// may start.
func (p *Pool) regulate(now time.Time) {
	hold, inFlight := p.strictest(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return
	}
	p.setHold(hold, inFlight, now)
	p.setLimit(p.limitFor(hold, inFlight))
	if hold.Credit == 0 && hold.Until.Sub(now) > p.cfg.MaxPark {
		p.deferWaiting(hold.Until.Sub(now), job.Reason(hold.Reason))
	}
	p.request()
}

// strictest is the answer of the gate that lets the fewest jobs through, of
// several closed ones that of the last to open.
func (p *Pool) strictest(now time.Time) (hold Hold, inFlight int) {
	inFlight = p.bulkhead.Stats().InFlight
	hold = Hold{Credit: Unlimited}
	lowest := false
	for _, g := range p.deps.Gates {
		h := g.Credit(now, inFlight)
		lowest = lowest || h.LowestFirst // whichever decides
		if h.stricter(hold) {
			hold = h
		}
	}
	hold.LowestFirst = lowest
	return hold, inFlight
}

// limitFor translates a gate's answer into how many jobs may run at once.
func (p *Pool) limitFor(hold Hold, inFlight int) int {
	switch {
	case hold.Credit == Unlimited:
		return p.cfg.Concurrency
	case hold.Holds(inFlight):
		return 0
	}
	return min(p.cfg.Concurrency, inFlight+hold.Credit)
}

// setHold notes why nothing starts. The caller holds mu.
func (p *Pool) setHold(hold Hold, inFlight int, now time.Time) {
	if !hold.Until.Equal(p.hold.Until) {
		select {
		case p.rearm <- struct{}{}:
		default: // it has not looked since the last time
		}
	}
	turned := hold.LowestFirst != p.hold.LowestFirst
	p.hold = hold
	if turned { // before anybody gets a permit
		p.bulkhead.SetOrder(p.promised(now), hold.LowestFirst)
	}
	switch {
	case !hold.Holds(inFlight):
		p.heldSince = time.Time{}
	case p.heldSince.IsZero():
		p.heldSince = now
	}
}

// setLimit is called with mu held.
func (p *Pool) setLimit(limit int) {
	p.limit = limit
	p.bulkhead.SetLimit(limit) // also if it is the same: jobs may have yielded
}
