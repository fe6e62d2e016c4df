package fallback

import (
	"sync"
	"time"
)

// Switch leads the jobs of a target straight to its fallback, as if its breaker
// were open, because an operator said so. Any goroutine may use it.
type Switch struct {
	mu      sync.Mutex // guards all below
	on      bool
	since   time.Time
	until   time.Time // zero: until it is resumed
	note    string
	changed chan struct{}
}

// State of a switch at one instant.
type State struct {
	// On: the target is not called.
	On bool
	// Since when, and Until when; a zero Until: until somebody resumes it.
	Since, Until time.Time
	// Note the operator left.
	Note string
}

// NewSwitch returns one that is off.
func NewSwitch() *Switch { return &Switch{changed: make(chan struct{})} }

// Degrade turns it on at now until then, or until Resume if until is zero. A
// switch that is on already gets the new end and note.
func (s *Switch) Degrade(now, until time.Time, note string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.holds(now) {
		s.since = now
	}
	s.on, s.until, s.note = true, until, note
	s.tell()
}

// Resume turns it off.
func (s *Switch) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = false
	s.tell()
}

// State at now. The zero State if it is off.
func (s *Switch) State(now time.Time) State {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.holds(now) {
		return State{}
	}
	return State{On: true, Since: s.since, Until: s.until, Note: s.note}
}

func (s *Switch) holds(now time.Time) bool {
	return s.on && (s.until.IsZero() || now.Before(s.until))
}

// Changed is closed when somebody turns it on or off.
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
