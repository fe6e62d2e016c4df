package limiter

import "time"

// AcquireSpare takes a seat that nobody else needs, if there is one, for a call
// that could as well not be made: a hedge. Not during a ramp, not while the
// target is silent or has asked for time, and never beyond the limit, also
// where the pools alone could not reach it. While such a call is under way the
// limit binds all others too.
func (l *Limiter) AcquireSpare(now time.Time) (Seat, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	credit, _, _ := l.credit(now)
	if credit == 0 || l.ramp.step > 0 || l.stall.silent(now, l.inFlight) || l.inFlight >= l.adaptive.now() {
		return Seat{}, false
	}
	l.spare++
	l.waiting = true // who was told of no bound has one until this ends
	s := l.take(now)
	s.spare = true
	return s, true
}
