package limiter

import "time"

// ramp lets a target that has recovered warm up: 1 call at once, then 2, 4, …
// until it is as many as allowed. Without it every replica would send all it
// has to a service that has just come back. A step is over after the interval,
// and after as many calls as it allowed at once. It is pure.
//
//	          good step: × 2          as many as the limit
//	off ──► 1 ─────────────► 2, 4, … ─────────────────────► off
//	        ▲                  │
//	        └─ bad step: ÷ 2 ──┘
type ramp struct {
	interval   time.Duration
	step       int // calls at once; 0: off
	began      time.Time
	calls, bad int
}

// maxBadShare of a step's calls may fail before it counts as bad: 1 in so many.
// Half of what opens a breaker by default.
const maxBadShare = 4

// start begins with one call at once, at every sign of an outage: the first
// so that nothing gets ahead of the ramp when the outage ends.
func (r *ramp) start(now time.Time) {
	*r = ramp{interval: r.interval, step: 1, began: now}
}

// ended notes the end of a call, and tells whether the target has just shown
// that it is back; limit is where the ramp ends.
func (r *ramp) ended(now time.Time, load Load, limit int) (back bool) {
	if r.step == 0 || load == Ignored || load == Replied {
		return false
	}
	r.calls++
	if load != Answered {
		r.bad++
	}
	if r.calls < r.step || now.Sub(r.began) < r.interval {
		return false
	}
	if r.bad*maxBadShare > r.calls {
		r.to(now, max(1, r.step/2), limit)
		return false
	}
	back = r.step == 1
	r.to(now, 2*r.step, limit)
	return back
}

// patience is how many intervals a step lasts when nobody calls.
const patience = 10

// idle moves on when there was nothing to call for: the outage recedes.
func (r *ramp) idle(now time.Time, limit int) {
	for r.step > 0 && now.Sub(r.began) > patience*r.interval {
		r.to(r.began.Add(patience*r.interval), 2*r.step, limit)
	}
}

func (r *ramp) to(now time.Time, step, limit int) {
	if step >= limit {
		step = 0
	}
	*r = ramp{interval: r.interval, step: step, began: now}
}
