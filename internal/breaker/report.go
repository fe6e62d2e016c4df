package breaker

import (
	"errors"
	"fmt"
	"time"
)

// Errors that say which way a call was refused. [Breaker.Acquire] returns an
// [*OpenError] that is one of them.
var (
	// ErrOpen: the breaker is open or forced open.
	ErrOpen = errors.New("breaker is open")
	// ErrHalfOpenFull: all probes that may run are running.
	ErrHalfOpenFull = errors.New("breaker is half open and has enough probes")
)

// OpenError says why a call was refused and when to come again.
type OpenError struct {
	// State at the refusal: open, half_open or forced_open.
	State State
	// Until is when the state ends by itself: the wait, the override, or the
	// lease of the probe that has run longest.
	Until time.Time
	// RetryAfter is the time left to Until, 0 while half open: a probe may
	// end at any moment.
	RetryAfter time.Duration
	// Reason the breaker is in that state.
	Reason Reason
	// Note an operator left with an override.
	Note string
}

// Error describes the refusal for people.
func (e *OpenError) Error() string {
	s := fmt.Sprintf("%v (%s", e.Unwrap(), e.Reason)
	if e.Note != "" {
		s += ": " + e.Note
	}
	s += ")"
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(", next try in %v", e.RetryAfter.Round(time.Millisecond))
	}
	return s
}

// Unwrap returns ErrOpen or ErrHalfOpenFull.
func (e *OpenError) Unwrap() error {
	if e.State == HalfOpen {
		return ErrHalfOpenFull
	}
	return ErrOpen
}

// Change of a breaker's state, as told to the listener.
type Change struct {
	// From and To are never the same. From is the To of the change before.
	From, To State
	// Reason for To.
	Reason Reason
	// Note an operator left with an override.
	Note string
	// At is when it changed, in the time of the caller who brought it about.
	At time.Time
	// Until is when To ends by itself. Zero: not by time alone.
	Until time.Time
	// Wait is Until - At, 0 without Until.
	Wait time.Duration
	// Opens is the number of openings in close succession, which lengthens
	// the wait.
	Opens int
	// Generation of To. It increases strictly, though not always by one.
	Generation uint64
	// Total, Bad, Slow and Consecutive as they stood in From.
	Total, Bad, Slow, Consecutive int
}

// Stats of a breaker at an instant.
type Stats struct {
	// State now.
	State State
	// Since when. For the first state: since the first call of any method.
	Since time.Time
	// Until is when an open breaker turns half open or an override ends.
	// Zero in closed and half_open.
	Until time.Time
	// Reason for State, and what an operator noted with it.
	Reason Reason
	Note   string
	// Opens is the number of openings in close succession.
	Opens int
	// Total, Bad and Slow calls in the window. A call may be bad and slow.
	// In metrics_only the shadow's, 0 where nothing is counted.
	Total, Bad, Slow int
	// Consecutive failures up to now, throttled ones left out.
	Consecutive int
	// Probes running, and Proven: probes that were good, in half_open.
	Probes, Proven int
	// Reserved: while half open, the probe that is next or running is the one
	// kept by [Breaker.Reserve]; jobs wait for it.
	Reserved bool
	// Generation of the current epoch, from 1. It increases with every
	// change, renewed override, Reset and change of the window.
	Generation uint64
	// Stale results, of an earlier epoch, since the start.
	Stale uint64
	// Rejected calls since the start.
	Rejected uint64
	// WouldOpen and WouldReject are what metrics_only kept from happening,
	// since the start.
	WouldOpen, WouldReject uint64
	// ListenerPanics since the start.
	ListenerPanics uint64
	// LostChanges that a listener more than 256 changes behind was not told.
	LostChanges uint64
}
