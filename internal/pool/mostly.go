package pool

import "time"

// A consumer that brings hardly anything but jobs of a dead target is asked for one
// a second, once so many of them are on their way back that their line is full.

const (
	// recently is how many of its last jobs a consumer is judged by.
	recently = 100
	// trickle is the pace of a consumer whose jobs are mostly for a dead target.
	trickle = time.Second
)

// recent is what the last jobs of a consumer were for.
type recent struct {
	last [recently]*turnstile // dead ones; nil: another, or none yet
	n    int
	most *turnstile // most of them were for it, and its line was too long; nil: none
	next time.Time  // when it may be asked for one more
}

// note that a job has come, once.
func (r *recent) note(h *held, dead bool, now time.Time) {
	if h.noted {
		return
	}
	h.noted = true
	t := h.lane.turnstile
	r.last[r.n] = nil
	if dead {
		r.last[r.n] = t
	}
	r.n = (r.n + 1) % recently
	switch {
	case r.most != nil && !r.areMostlyFor(r.most):
		r.most = nil
	case r.most == nil && dead && t.isBookedOut(now) && r.areMostlyFor(t):
		r.most = t // also when the line is shorter again: it is, as nothing is asked for
	}
}

func (r *recent) areMostlyFor(t *turnstile) bool {
	n := 0
	for _, other := range r.last {
		if other == t {
			n++
		}
	}
	return 2*n > recently
}

// mostlyFor is the dead target that hardly anything else comes for, nil if there is
// none.
func (r *recent) mostlyFor() *turnstile {
	if r.most != nil && r.most.isDead() {
		return r.most
	}
	return nil
}

// paced is how many of n jobs a consumer may be asked for.
func (p *Pool) paced(priority, n int, now time.Time) int {
	r := &p.recent[priority]
	switch {
	case len(p.lanes) == 1 || r.mostlyFor() == nil:
		return n
	case p.requested[priority] > 0 || now.Before(r.next):
		return 0
	}
	r.next = now.Add(trickle)
	return min(n, 1)
}

// slowed is what a pool that is not held has to say while one of its consumers is
// asked for one job a second.
func (p *Pool) slowed() (Hold, bool) {
	if len(p.lanes) == 1 {
		return Hold{}, false
	}
	for i := range p.recent {
		if t := p.recent[i].mostlyFor(); t != nil {
			return Hold{Credit: 1, Reason: MostlyDead, Until: p.recent[i].next, Target: t.target}, true
		}
	}
	return Hold{}, false
}
