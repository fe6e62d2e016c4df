package breaker

import "time"

// epoch is the time from one transition to the next. Its identity is what
// makes a permit current or stale.
type epoch struct {
	owner *machine
	state State // never changes, so it may be read without the lock

	since  time.Time
	until  time.Time // zero: does not end by time alone
	reason Reason
	note   string

	// Closed.
	window      window
	consecutive int
	// Half open.
	leases   []lease // of running probes
	proven   int
	reserved time.Time // until then the first probe is not for jobs
	// Metrics only.
	shadow *machine
}

type lease struct {
	probe    uint64
	until    time.Time
	reserved bool
}

// oldestLease is when the first running probe is overdue, zero if none runs.
func (e *epoch) oldestLease() time.Time {
	var oldest time.Time
	for _, l := range e.leases {
		if oldest.IsZero() || l.until.Before(oldest) {
			oldest = l.until
		}
	}
	return oldest
}

// tally is the sum of the epoch's window, the shadow's in metrics_only.
func (e *epoch) tally(now time.Time) tally {
	switch {
	case e.window != nil:
		return e.window.sum(now)
	case e.shadow != nil:
		return e.shadow.cur.tally(now)
	}
	return tally{}
}

func (e *epoch) inARow() int {
	if e.shadow != nil {
		return e.shadow.cur.consecutive
	}
	return e.consecutive
}

// move sets all times held to another clock.
func (e *epoch) move(to func(time.Time) time.Time) {
	e.since = to(e.since)
	if !e.until.IsZero() {
		e.until = to(e.until)
	}
	if !e.reserved.IsZero() {
		e.reserved = to(e.reserved)
	}
	for i := range e.leases {
		e.leases[i].until = to(e.leases[i].until)
	}
	if e.window != nil {
		e.window.move(to)
	}
	if e.shadow != nil {
		e.shadow.now = to(e.shadow.now)
		e.shadow.cur.move(to)
	}
}
