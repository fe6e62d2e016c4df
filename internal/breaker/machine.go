package breaker

import (
	"math"
	"slices"
	"time"
)

// machine is the breaker without lock, clock and dice: its state depends only
// on what it was told and when. Every method but advance expects the time
// that advance returned, under the same lock.
type machine struct {
	rules
	now        time.Time // latest time seen
	cur        *epoch    // nil until the first advance
	generation uint64
	opens      int           // openings in close succession
	wait       time.Duration // of the latest opening
	lastProbe  uint64        // id of the latest probe permit
	reserved   bool          // the first probe is not for jobs
	pace       time.Duration // of waits after a reserved probe; 0: as any

	stale, rejected        uint64
	wouldOpen, wouldReject uint64

	// u in [0,1) decides the next wait's jitter. The owner renews it when
	// moved is set.
	u float64
	// moved: there is a new epoch or new credit; the owner clears it.
	moved bool
	// changes to be told, oldest first; the owner takes them out.
	changes []Change
	lost    uint64

	// host of a machine in the shadow, nil for a real one.
	host *machine
}

// grant is what the machine needs to know of a permit.
type grant struct {
	epoch *epoch
	probe uint64 // 0 if not a probe
	start time.Time
}

// result of a call.
type result struct {
	verdict    Verdict
	retryAfter time.Duration
}

// maxStepBack is how far time may seem to run backwards because one goroutine
// read the clock before another and came later. A longer step is a clock that
// was set, and all times held are set with it.
const maxStepBack = 10 * time.Second

// maxPending bounds the changes kept for a listener that does not keep up.
const maxPending = 256

// advance does what time has brought due and returns the time to go on with,
// which never runs backwards.
func (m *machine) advance(now time.Time) time.Time {
	e := m.cur
	if e == nil {
		m.now = now
		m.enter(now, &epoch{state: Closed, reason: Started, window: newWindow(now, m.rules)})
		return now
	}
	now = m.forward(now)
	switch {
	case e.state == Closed:
	case e.state == HalfOpen:
		m.checkProbes(now)
	case e.state == MetricsOnly && now.Before(e.until):
		e.shadow.advance(now)
	case now.Before(e.until):
	case e.state == Open:
		next := &epoch{state: HalfOpen, reason: WaitOver}
		if m.reserved {
			next.reserved = now.Add(m.ProbeTimeout)
		}
		m.enter(now, next)
	default:
		m.close(now, OverrideExpired)
	}
	return now
}

func (m *machine) forward(now time.Time) time.Time {
	if now.Before(m.now) {
		if m.now.Sub(now) <= maxStepBack {
			return m.now
		}
		from := m.now
		m.cur.move(func(t time.Time) time.Time { return now.Add(t.Sub(from)) })
	}
	m.now = now
	return now
}

// checkProbes ends half-open for reasons other than a result: a probe that
// does not return, or a config that now asks for fewer probes.
func (m *machine) checkProbes(now time.Time) {
	e := m.cur
	switch oldest := e.oldestLease(); {
	case e.proven >= m.HalfOpenCalls:
		m.close(now, Recovered)
	case !oldest.IsZero() && !now.Before(oldest):
		m.reopen(now, ProbeTimeout, 0, e.asked())
	}
}

// credit is how many calls may start, and when to ask again: zero if time
// alone changes nothing.
func (m *machine) credit() (n int, until time.Time) {
	e := m.cur
	switch e.state {
	case Open, ForcedOpen:
		return 0, e.until
	case HalfOpen:
		if until, kept := m.kept(); kept {
			return 0, until
		}
		return m.free(), e.oldestLease()
	}
	return math.MaxInt, time.Time{}
}

// acquire grants a call if there is credit for it.
func (m *machine) acquire(now time.Time) (grant, bool) {
	e := m.cur
	if n, _ := m.credit(); n == 0 {
		m.rejected++
		return grant{}, false
	}
	switch e.state {
	case HalfOpen:
		return m.probe(now, false), true
	case MetricsOnly:
		if g, ok := e.shadow.acquire(now); ok {
			return g, true
		}
		m.wouldReject++
	}
	return grant{epoch: e, start: now}, true
}

// refusal explains why acquire granted nothing.
func (m *machine) refusal(now time.Time) *OpenError {
	e := m.cur
	_, until := m.credit()
	err := &OpenError{State: e.state, Until: until, Reason: e.reason, Note: e.note}
	if e.state != HalfOpen {
		err.RetryAfter = until.Sub(now)
	}
	return err
}

// done takes the result of a granted call.
func (m *machine) done(now time.Time, g *grant, r result) {
	e := m.cur
	switch {
	case e.shadow != nil && g.epoch.owner == e.shadow:
		e.shadow.done(now, g, r)
	case g.epoch != e:
		m.stale++
	case e.state == Closed:
		m.record(now, g, r)
	case e.state == HalfOpen:
		m.probed(now, g, r)
	}
}

// judge applies what the config says about throttling.
func (m *machine) judge(v Verdict) Verdict {
	switch {
	case v == Throttled && m.Throttled == ThrottledFailure:
		return Bad
	case v == Throttled && m.Throttled == ThrottledIgnore:
		return Ignored
	}
	return v
}

func (m *machine) isSlow(now time.Time, g *grant) bool {
	return m.slowCall != math.MaxInt64 && now.Sub(g.start) > m.slowCall
}

// record counts a call in closed. A good one may open the breaker too, as it
// may be the one that completes min_calls.
func (m *machine) record(now time.Time, g *grant, r result) {
	e := m.cur
	call := tally{total: 1}
	switch m.judge(r.verdict) {
	case Good:
		e.consecutive = 0
	case Bad:
		e.consecutive++
		call.bad = 1
	case Throttled:
		call.bad = 1
	default:
		return
	}
	if m.isSlow(now, g) {
		call.slow = 1
	}
	if reason := m.tripped(e.window.add(now, call), e.consecutive); reason != "" {
		m.open(now, reason, r.retryAfter)
	}
}

// tripped says which dimension calls for opening, "" if none does.
func (m *machine) tripped(t tally, consecutive int) Reason {
	switch {
	case t.bad+t.slow == 0:
		return ""
	case consecutive >= m.consecutive:
		return ConsecutiveFailures
	case t.total < m.minCalls:
		return ""
	case reached(t.bad, t.total, m.failureRate):
		return FailureRate
	case reached(t.slow, t.total, m.slowRate):
		return SlowCallRate
	}
	return ""
}

// probed takes the result of a probe. One that is not good reopens.
func (m *machine) probed(now time.Time, g *grant, r result) {
	e := m.cur
	i := slices.IndexFunc(e.leases, func(l lease) bool { return l.probe == g.probe })
	if i < 0 {
		return // a copy of the permit was done already
	}
	reserved := e.leases[i].reserved
	e.leases = slices.Delete(e.leases, i, i+1)
	m.moved = true
	verdict := m.judge(r.verdict)
	switch {
	case verdict == Bad:
		m.reopen(now, ProbeFailed, r.retryAfter, reserved)
	case verdict == Throttled:
		m.reopen(now, ProbeThrottled, r.retryAfter, reserved)
	case verdict != Good:
	case m.isSlow(now, g):
		m.reopen(now, ProbeSlow, r.retryAfter, reserved)
	default:
		e.proven++
		e.reserved = time.Time{}
		m.checkProbes(now)
	}
}

// open starts a wait, longer than the one before unless the breaker has been
// closed for long in between.
func (m *machine) open(now time.Time, reason Reason, retryAfter time.Duration) {
	e := m.cur
	if e.state == Closed && now.Sub(e.since) >= max(m.Window, m.wait) {
		m.opens = 0
	}
	wait := max(m.backoff(m.opens), min(retryAfter, m.MaxOpenFor))
	m.opens++
	if m.host != nil {
		m.host.wouldOpen++
	}
	m.openFor(now, reason, wait)
}

func (m *machine) openFor(now time.Time, reason Reason, wait time.Duration) {
	m.wait = wait
	m.enter(now, &epoch{state: Open, until: now.Add(wait), reason: reason})
}

// backoff is the wait after n openings: exponential, then capped, then
// jittered downwards, so that it is never above the cap nor piles up on it.
func (m *machine) backoff(n int) time.Duration {
	d := float64(m.OpenFor) * math.Pow(m.OpenMultiplier, float64(n))
	wait := m.MaxOpenFor
	if d < float64(m.MaxOpenFor) {
		wait = time.Duration(d)
	}
	return m.jittered(wait)
}

func (m *machine) jittered(wait time.Duration) time.Duration {
	return wait - time.Duration(m.OpenJitter*m.u*float64(wait))
}

func (m *machine) close(now time.Time, reason Reason) {
	if reason != Recovered {
		m.opens, m.wait = 0, 0
	}
	m.enter(now, &epoch{state: Closed, reason: reason, window: newWindow(now, m.rules)})
}

// enter makes next the current epoch and notes the change, if it is one.
func (m *machine) enter(now time.Time, next *epoch) {
	prev := m.cur
	next.owner = m
	if next.since.IsZero() {
		next.since = now
	}
	m.generation++
	m.moved = true
	m.cur = next
	if prev == nil || prev.state == next.state || m.host != nil {
		return
	}
	m.note(now, prev)
}

func (m *machine) note(now time.Time, prev *epoch) {
	e, t := m.cur, prev.tally(now)
	c := Change{
		From: prev.state, To: e.state, Reason: e.reason, Note: e.note,
		At: now, Until: e.until, Opens: m.opens, Generation: m.generation,
		Total: t.total, Bad: t.bad, Slow: t.slow, Consecutive: prev.inARow(),
	}
	if !e.until.IsZero() {
		c.Wait = e.until.Sub(now)
	}
	if len(m.changes) == maxPending {
		m.changes = slices.Delete(m.changes, 0, 1)
		m.lost++
	}
	m.changes = append(m.changes, c)
}

// override puts the breaker under an operator's control.
func (m *machine) override(now time.Time, state State, ttl time.Duration, note string) {
	next := &epoch{state: state, until: now.Add(ttl), reason: Overridden, note: note}
	if state == MetricsOnly {
		next.shadow = &machine{rules: m.rules, host: m, u: m.u}
		next.shadow.advance(now)
	}
	m.enter(now, next)
}

// configure changes the rules. What is compared applies from the next result
// on; a window of another shape starts empty. A wait is never made longer.
func (m *machine) configure(now time.Time, r rules) {
	sameWindow := r.Window == m.Window && r.WindowCalls == m.WindowCalls
	m.rules = r
	m.moved = true
	e := m.cur
	switch e.state {
	case Closed:
		if !sameWindow {
			m.enter(now, &epoch{state: Closed, since: e.since, reason: e.reason, window: newWindow(now, r)})
		}
	case Open:
		if limit := e.since.Add(r.MaxOpenFor); limit.Before(e.until) {
			e.until = limit
		}
	case MetricsOnly:
		e.shadow.configure(now, r)
	}
	m.advance(now)
}

func (m *machine) stats(now time.Time) Stats {
	e, t := m.cur, m.cur.tally(now)
	return Stats{
		State: e.state, Since: e.since, Until: e.until, Reason: e.reason, Note: e.note,
		Opens: m.opens, Total: t.total, Bad: t.bad, Slow: t.slow, Consecutive: e.inARow(),
		Probes: len(e.leases), Proven: e.proven, Reserved: m.isKept(), Generation: m.generation,
		Stale: m.stale, Rejected: m.rejected, WouldOpen: m.wouldOpen, WouldReject: m.wouldReject,
		LostChanges: m.lost,
	}
}
