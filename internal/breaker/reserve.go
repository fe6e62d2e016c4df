package breaker

import "time"

// Reserve keeps the first probe of every half-open from now on for whoever
// calls [Breaker.Probe]: it costs no job to find out that the target is still
// down. Its success counts as one of half_open_calls, its failure reopens.
// After a failure the wait is pace, jittered as any, if pace is more than 0:
// such a probe is cheap, and the target may be asked at a steady rate.
//
// Nobody waits for ever for one who does not call Probe: the reservation ends
// probe_timeout after the wait, or after the wait of a Probe that never ends.
func (b *Breaker) Reserve(now time.Time, pace time.Duration) {
	b.lock(now)
	defer b.unlock()
	b.m.reserve(pace)
}

// ProbeDue is when the reserved probe may start; it may have passed. false:
// none is wanted before Changed says that something has changed.
func (b *Breaker) ProbeDue(now time.Time) (due time.Time, wanted bool) {
	now = b.lock(now)
	defer b.unlock()
	return b.m.probeDue(now)
}

// Probe takes the reserved probe if it is due. The permit is ended with Done
// as any other; Ignored gives the probe back.
func (b *Breaker) Probe(now time.Time) (Permit, bool) {
	now = b.lock(now)
	defer b.unlock()
	due, wanted := b.m.probeDue(now)
	if !wanted || now.Before(due) {
		return Permit{}, false
	}
	return Permit{b, b.m.probe(now, true)}, true
}

func (m *machine) reserve(pace time.Duration) {
	m.reserved, m.pace, m.moved = true, pace, true
}

func (m *machine) probeDue(now time.Time) (time.Time, bool) {
	e := m.cur
	switch {
	case e.state == Open && m.reserved:
		return e.until, true
	case e.isReserved(now) && !e.asked() && m.free() > 0:
		return e.since, true
	}
	return time.Time{}, false
}

// kept tells whether the probes of a half-open breaker are not for jobs yet,
// and until when if nothing happens.
func (m *machine) kept() (until time.Time, kept bool) {
	e := m.cur
	switch {
	case e.asked():
		return e.oldestLease(), true
	case e.isReserved(m.now):
		return e.reserved, true
	}
	return time.Time{}, false
}

func (m *machine) isKept() bool {
	_, kept := m.kept()
	return kept
}

// free probes of a half-open breaker, whoever may have them.
func (m *machine) free() int {
	running := len(m.cur.leases)
	return max(0, min(m.HalfOpenConcurrent-running, m.HalfOpenCalls-m.cur.proven-running))
}

func (m *machine) probe(now time.Time, reserved bool) grant {
	m.lastProbe++
	m.cur.leases = append(m.cur.leases, lease{m.lastProbe, now.Add(m.ProbeTimeout), reserved})
	return grant{m.cur, m.lastProbe, now}
}

func (e *epoch) isReserved(now time.Time) bool { return !e.reserved.IsZero() && now.Before(e.reserved) }

// asked tells whether the reserved probe is running.
func (e *epoch) asked() bool {
	for _, l := range e.leases {
		if l.reserved {
			return true
		}
	}
	return false
}

// reopen after a probe that was not good. One that cost no job lengthens
// nothing if there is a pace for it.
func (m *machine) reopen(now time.Time, reason Reason, retryAfter time.Duration, reserved bool) {
	if !reserved || m.pace <= 0 {
		m.open(now, reason, retryAfter)
		return
	}
	m.openFor(now, reason, max(m.jittered(min(m.pace, m.MaxOpenFor)), min(retryAfter, m.MaxOpenFor)))
}
