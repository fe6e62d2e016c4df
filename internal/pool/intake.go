package pool

import (
	"context"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/shed"
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
	h.ctx, h.cancel = context.WithCancelCause(p.work)
	p.mu.Lock()
	p.requested[i.priority] = max(0, p.requested[i.priority]-1)
	p.backlog[i.priority] = backlog
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

// watchClock regulates the pool when the time has come that a gate has named.
func (p *Pool) watchClock(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Stop()
		if until := p.until(); !until.IsZero() {
			timer.Reset(max(soonest, time.Until(until)))
		}
		select {
		case <-ctx.Done():
			return
		case <-p.rearm:
		case <-timer.C:
			p.regulate(time.Now())
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
	for _, g := range p.deps.Gates {
		if h := g.Credit(now, inFlight); h.stricter(hold) {
			hold = h
		}
	}
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
	p.hold = hold
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

// request asks the sources for what may start. The caller holds mu.
func (p *Pool) request() {
	if p.stopping || p.hold.Credit == 0 {
		return
	}
	ask := allocate(allocation{
		limit: p.limit, prefetch: p.cfg.Prefetch, shares: p.deps.Shares,
		held: p.count, requested: p.requested, backlog: p.backlog,
	})
	for priority, n := range ask {
		if n > 0 {
			p.requested[priority] += n
			p.deps.Sources[priority].Request(n)
		}
	}
}

// allocation is what decides how many jobs of which priority to ask for.
type allocation struct {
	limit, prefetch int
	shares          shed.Shares
	held, requested [job.Priorities]int
	backlog         [job.Priorities]uint64 // jobs left in the stream, as far as known
}

// allocate returns how many more jobs to ask for, by priority.
//
// A priority known to have jobs gets all the room it may have, the most
// important first. The others share what is free evenly: a waiting request
// costs nothing until a job comes, and when one comes its message says how
// many there are. So nothing idles, and what is asked for stays within the
// limit but for the moment in which an idle priority wakes up.
func allocate(a allocation) [job.Priorities]int {
	room := a.shares.Room(a.limit+a.prefetch, a.held)
	free, used := a.limit+a.prefetch, 0
	for priority, share := range a.shares {
		free -= a.held[priority]
		if share > 0 {
			used++
		}
	}
	var ask [job.Priorities]int
	for priority := range ask {
		may := min(room[priority], free)
		if may <= 0 {
			continue
		}
		idle := max(1, free/used)
		want := min(may, idle)
		if left := a.backlog[priority]; left > 0 {
			want = max(want, int(min(uint64(may), left)))
			free -= want
		}
		ask[priority] = max(0, want-a.requested[priority])
	}
	return ask
}
