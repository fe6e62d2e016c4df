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
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := g.Changed()
		hold := p.regulate(time.Now())
		timer.Stop()
		if !hold.Until.IsZero() {
			timer.Reset(time.Until(hold.Until))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-timer.C:
		}
	}
}

// regulate asks the gates, sets how many may run and asks for as many jobs as
// may start. It returns the answer of the strictest gate.
func (p *Pool) regulate(now time.Time) Hold {
	hold := p.strictest(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return p.hold
	}
	p.setHold(hold, now)
	p.setLimit(p.limitFor(hold))
	if hold.Credit == 0 && hold.Until.Sub(now) > p.cfg.MaxPark {
		p.deferWaiting(hold.Until.Sub(now), job.Reason(hold.Reason))
	}
	p.request()
	return hold
}

// strictest is the answer of the gate that lets the fewest jobs through, of
// several closed ones that of the last to open.
func (p *Pool) strictest(now time.Time) Hold {
	hold := Hold{Credit: Unlimited}
	for _, g := range p.deps.Gates {
		h := g.Credit(now)
		if h.Credit < hold.Credit || h.Credit == 0 && h.Until.After(hold.Until) {
			hold = h
		}
	}
	return hold
}

// limitFor translates a gate's answer into how many jobs may run at once.
func (p *Pool) limitFor(hold Hold) int {
	switch hold.Credit {
	case 0, Unlimited:
		return min(hold.Credit, p.cfg.Concurrency)
	}
	return min(p.cfg.Concurrency, p.bulkhead.Stats().InFlight+hold.Credit)
}

// setHold notes why nothing starts. The caller holds mu.
func (p *Pool) setHold(hold Hold, now time.Time) {
	if hold.Credit > 0 {
		p.hold, p.heldSince = hold, time.Time{}
		return
	}
	if p.heldSince.IsZero() {
		p.heldSince = now
	}
	p.hold = hold
}

// setLimit is called with mu held.
func (p *Pool) setLimit(limit int) {
	if limit != p.limit {
		p.limit = limit
		p.bulkhead.SetLimit(limit)
	}
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
