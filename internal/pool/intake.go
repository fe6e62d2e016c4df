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
	h := &held{Delivery: d, priority: i.priority, received: now, lane: p.laneOf(d.Job())}
	if p.asides != nil {
		h.claim.Key = p.asides.of(d.Job())
	}
	h.ctx, h.cancel = context.WithCancelCause(p.work)
	lease := p.deps.Sources[i.priority].AckWait()
	sent := d.LeaseUntil().Add(-lease) // as good as a sign of life
	h.extended = sent
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
	if now.Sub(sent) < lease/3 {
		return
	}
	select {
	case p.short <- struct{}{}: // it has lain somewhere, and its lease may end before the next look
	default:
	}
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

// gates are all that may hold the pool.
func (p *Pool) gates(yield func(Gate) bool) {
	for _, l := range p.lanes {
		for _, g := range l.Gates {
			if !yield(g) {
				return
			}
		}
	}
	for _, g := range p.deps.Gates {
		if !yield(g) {
			return
		}
	}
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
	if p.deps.Shares.Used() > 1 || len(p.lanes) > 1 {
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
// presumed. With several targets it looks whether one has fallen silent: no job
// may end that would tell.
func (p *Pool) refresh() {
	if len(p.lanes) > 1 {
		p.regulate(time.Now())
		return
	}
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
	return p.next
}

// regulate asks the gates, sets how many may run and asks for as many jobs as
// may start. One after the other: an answer must not be taken for the last word
// when a gate has closed since.
func (p *Pool) regulate(now time.Time) {
	p.regulating.Lock()
	defer p.regulating.Unlock()
	inFlight := p.bulkhead.Stats().InFlight
	hold := Hold{Credit: Unlimited}
	var lanes []Hold // of a pool with several targets
	if len(p.lanes) == 1 {
		hold = strictest(hold, p.lanes[0].Gates, now, inFlight)
	} else {
		lanes = p.askLanes(now, inFlight)
	}
	hold = strictest(hold, p.deps.Gates, now, inFlight)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return
	}
	if lanes != nil {
		if all := p.regulateLanes(lanes, now); all.stricter(hold) {
			hold = all
		}
	}
	p.setHold(hold, inFlight, now)
	p.setLimit(p.limitFor(hold, inFlight))
	if hold.Credit == 0 && hold.Until.Sub(now) > p.cfg.MaxPark {
		p.deferWaiting(hold.Until.Sub(now), job.Reason(hold.Reason))
	}
	p.request()
	p.wakeAt(p.soonestChange(now))
}

// strictest is the answer of the gate that lets the fewest jobs through, of
// several closed ones that of the last to open.
func strictest(hold Hold, gates []Gate, now time.Time, inFlight int) Hold {
	down, lowest := hold.Down, hold.LowestFirst // whichever decides
	for _, g := range gates {
		h := g.Credit(now, inFlight)
		down, lowest = down || h.Down, lowest || h.LowestFirst
		if h.stricter(hold) {
			hold = h
		}
	}
	hold.Down, hold.LowestFirst = down, lowest
	return hold
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

// wakeAt names the time at which the gates are to be asked again. The caller holds
// mu.
func (p *Pool) wakeAt(next time.Time) {
	if next.Equal(p.next) {
		return
	}
	p.next = next
	select {
	case p.rearm <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// setLimit is called with mu held.
func (p *Pool) setLimit(limit int) {
	p.limit = limit
	p.bulkhead.SetLimit(limit) // also if it is the same: jobs may have yielded
}
