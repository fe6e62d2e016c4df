package fallback

import (
	"sync"
	"time"
)

// By says who leads the jobs of a target straight to its fallback.
type By string

// All who may. Where two hold for the same time, the one named first is shown.
const (
	// ByOperator: somebody said so.
	ByOperator By = "operator"
	// ByHealth: the target's health checks are not good.
	ByHealth By = "health"
	// ByRate: too many of the jobs needed the fallback anyway.
	ByRate By = "fallback_rate"
)

func everybody() [3]By { return [...]By{ByOperator, ByHealth, ByRate} }

// Switch leads the jobs of a target straight to its fallback, as if its breaker
// were open. Each who may has a say of its own, and it is on as long as any of
// them holds it. Any goroutine may use it.
//
//	     Degrade             from                 until, Resume
//	off ─────────► (planned) ─────► on by … and … ──────────────► off
type Switch struct {
	mu      sync.Mutex // guards all below
	holds   map[By]hold
	changed chan struct{}
}

// hold is what one of them has said: from then until then, for ever if that is zero.
type hold struct {
	from, until time.Time
	note        string
}

func (h hold) holds(now time.Time) bool { return !h.from.After(now) && !h.over(now) }
func (h hold) over(now time.Time) bool  { return !h.until.IsZero() && !now.Before(h.until) }

// outlasts tells whether it ends later than another.
func (h hold) outlasts(other hold) bool {
	return !other.until.IsZero() && (h.until.IsZero() || h.until.After(other.until))
}

// State of a switch at one instant.
type State struct {
	// On: the target is not called.
	On bool
	// By whom it is held longest, or if it is off will be; what follows is of that.
	By By
	// Since when, zero if it is off, and Until when; a zero Until: until Resume.
	Since, Until time.Time
	// Note for people: why.
	Note string
	// Planned is when it is to be turned on, zero if it is on or no plan is made.
	Planned time.Time
}

// NewSwitch returns one that is off.
func NewSwitch() *Switch {
	return &Switch{holds: map[By]hold{}, changed: make(chan struct{})}
}

// Degrade turns it on from then until then, or until Resume if until is zero.
// Who holds it already, or has planned to, says it anew: only since when stays.
func (s *Switch) Degrade(by By, from, until time.Time, note string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.holds[by]; ok && old.holds(from) {
		from = old.from
	}
	s.holds[by] = hold{from, until, note}
	s.tell()
}

// Resume ends what one of them holds or has planned.
func (s *Switch) Resume(by By) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.holds[by]; ok {
		delete(s.holds, by)
		s.tell()
	}
}

// State at now.
func (s *Switch) State(now time.Time) (state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.holds) == 0 { // as nearly always, and every call asks
		return State{}
	}
	var longest, plan hold
	for _, by := range everybody() {
		h, ok := s.holds[by]
		switch {
		case !ok || h.over(now):
		case !h.holds(now):
			plan = h
		case !state.On || h.outlasts(longest):
			longest = h
			state = State{On: true, By: by, Since: h.from, Until: h.until, Note: h.note}
		}
	}
	if !state.On && !plan.from.IsZero() { // only operators plan
		return State{By: ByOperator, Until: plan.until, Note: plan.note, Planned: plan.from}
	}
	return state
}

// Changed is closed when it is turned on or off, or that is planned. Nobody is
// told of what time does: see State.Until.
func (s *Switch) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// tell is called with mu held.
func (s *Switch) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}
