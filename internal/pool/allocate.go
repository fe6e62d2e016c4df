package pool

import (
	"math"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// request asks the sources for what may start, and keeps free what is
// reserved. The caller holds mu.
func (p *Pool) request() {
	now := time.Now()
	p.reserve = [job.Priorities]int{}
	if !p.hold.LowestFirst {
		p.reserve = p.deps.Shares.Reserve(p.limit, p.inRoom())
	}
	if !p.stopping && (p.hold.Credit > 0 || p.hold.Full) {
		for priority, n := range allocate(p.allocation(now)) {
			if n = p.paced(priority, n, now); n > 0 {
				if p.requested[priority] == 0 {
					p.heard[priority] = now // it cannot have said anything before
				}
				p.requested[priority] += n
				p.deps.Sources[priority].Request(n)
			}
		}
	}
	p.bulkhead.SetOrder(p.promised(now), p.hold.LowestFirst)
}

// promised is what is reserved, and what belongs to jobs on their way here:
// nobody who comes after them takes it from them. But while nothing runs and nobody
// was asked for more, as those in hand fill the room, none of these is kept
// from going on: nothing else would happen ever after. The caller holds mu.
func (p *Pool) promised(now time.Time) [job.Priorities]int {
	if p.requested == [job.Priorities]int{} && p.bulkhead.Stats().InFlight == 0 {
		return p.reserve
	}
	reserve, coming := p.reserve, 0
	for _, priority := range order(p.hold.LowestFirst) {
		reserve[priority] += coming
		coming += p.arriving[priority] + int(min(uint64(p.limit), p.known(priority, now)))
	}
	return reserve
}

// stale is how long the broker may be silent about jobs that it said it had
// and that were asked for. After that somebody else has taken them.
const stale = 250 * time.Millisecond

// known is how many jobs are left in the stream of a priority. If the lowest is
// to go first, nobody is thought to have none before it was silent when asked:
// else who is heard of first would go first. The caller holds mu.
func (p *Pool) known(priority int, now time.Time) uint64 {
	switch {
	case p.requested[priority] > 0 && now.Sub(p.heard[priority]) > stale:
		return 0
	case p.hold.LowestFirst && p.deps.Shares.PerMille[priority] > 0:
		return math.MaxUint64
	}
	return p.backlog[priority]
}

// allocation is the state of the pool as far as it decides what to ask for.
// The caller holds mu.
func (p *Pool) allocation(now time.Time) allocation {
	a := allocation{
		room: p.limit + p.cfg.Prefetch, used: p.deps.Shares.PerMille, reserve: p.reserve,
		held: p.inRoom(), requested: p.requested, lowestFirst: p.hold.LowestFirst,
	}
	for priority, n := range p.running {
		a.backlog[priority] = p.known(priority, now)
		a.waiting[priority] = a.held[priority] - n
		a.promoted[priority] = p.backlog[priority] > 0 && aged(p.oldest[priority], p.promoteAfter[priority], now)
	}
	// A probe is exact: what comes too much would wait for its result.
	if p.hold.Credit < Unlimited && !p.hold.Full || p.hold.LowestFirst {
		a.room = p.limit
		return a
	}
	if p.deps.Shares.Used() > 1 {
		a.doorstep = doorstep(p.limit, p.running)
	}
	if p.asides != nil {
		for priority, n := range a.doorstep {
			a.doorstep[priority] = max(n, p.asides.window)
		}
	}
	return a
}

// doorstep is how many jobs of each priority may wait in hand although nothing
// is free. A few, so that it gets its turn and what ends is followed at once;
// and of the more important ones some more while less important ones run, whose
// permits they get: else a burst would come one by one, a round trip to the
// broker each.
func doorstep(limit int, running [job.Priorities]int) (n [job.Priorities]int) {
	below := 0
	for priority := len(n) - 1; priority >= 0; priority-- {
		n[priority] = max(1, limit/25, min(below, limit/4))
		below += running[priority]
	}
	return n
}

// aged tells whether a job that was published then has waited for so long. A
// time of 0 is never over.
func aged(published time.Time, after time.Duration, now time.Time) bool {
	return after > 0 && !published.IsZero() && now.Sub(published) >= after
}

// allocation is what decides how many jobs of which priority to ask for.
type allocation struct {
	room     int                 // for jobs in hand
	doorstep [job.Priorities]int // jobs that may wait although there is no room
	used     [job.Priorities]int // not 0 for a priority in use
	reserve  [job.Priorities]int // room to be left free of each
	// lowestFirst: the least important go first, whoever is promoted.
	lowestFirst bool
	// promoted: its oldest jobs count as of the priority above.
	promoted                 [job.Priorities]bool
	held, waiting, requested [job.Priorities]int
	backlog                  [job.Priorities]uint64 // jobs left in the stream, as far as known
}

// allocate returns how many more jobs to ask for, by priority.
//
// A priority known to have jobs gets all the room it may have, the most
// important first. The others share what is free evenly: a waiting request
// costs nothing until a job comes, and when one comes its message says how
// many there are. So nothing idles, and what is asked for stays within the
// room but for the doorstep, and for the moment in which an idle priority
// wakes up.
func allocate(a allocation) [job.Priorities]int {
	free, used := a.room, 0
	for priority, share := range a.used {
		free -= a.held[priority] - a.waiting[priority]
		if share > 0 {
			used++
		}
	}
	// Who has run gives its permit back and is in hand until it is settled. If that
	// takes long, as many as fill the room may do so, and not one more at the
	// doorstep for each.
	late := max(0, -free-a.room)
	var ask [job.Priorities]int
	for _, priority := range a.order() {
		if a.used[priority] == 0 {
			continue
		}
		free -= a.waiting[priority] // those that come later are in nobody's way
		may := max(0, free-a.reserveOf(priority))
		want := min(may, max(1, free/used))
		if left := a.backlog[priority]; left > 0 {
			want = max(want, int(min(uint64(may), left)))
			free -= want
		}
		want = max(want, a.doorstep[priority]-a.waiting[priority]-late)
		ask[priority] = max(0, want-a.requested[priority])
	}
	return ask
}

// order of the priorities, by importance.
func order(lowestFirst bool) [job.Priorities]int {
	if lowestFirst {
		return [job.Priorities]int{3, 2, 1, 0}
	}
	return [job.Priorities]int{0, 1, 2, 3}
}

// order is the order in which the priorities are served: by importance, but a
// promoted one goes before the one above while it has less in hand.
func (a allocation) order() [job.Priorities]int {
	order := order(a.lowestFirst)
	for p := 1; !a.lowestFirst && p < len(order); p++ {
		if a.promoted[p] && a.held[p] < a.held[p-1] {
			order[p-1], order[p] = order[p], order[p-1]
		}
	}
	return order
}

func (a allocation) reserveOf(priority int) int {
	if priority > 0 && a.promoted[priority] {
		priority--
	}
	return a.reserve[priority]
}
