package limiter

import "time"

// stall notices that a target has stopped answering, long before its calls time
// out: many are under way, and none has ended for five times as long as nearly
// all of them take. It is pure.
//
//	answers ──── none for after ────► silent: one call more after 1, 2, 4, … × after,
//	   ▲                                 │    in the end every longestWait
//	   └────────── any answer ───────────┘
//
// So a target that hangs costs a handful of calls instead of all there is room
// for, and a mistake costs next to nothing: the call that is let through is
// answered, and all is as before.
type stall struct {
	history histogram     // of calls that were answered
	after   time.Duration // of silence; 0: too few calls to tell
	since   time.Time     // last answer, or when the first call began after a pause
	next    time.Time     // when one more call may begin
	wait    time.Duration // until the one after that
}

const (
	silentCalls  = 8 // under way at least
	silentFactor = 5 // times the 99th percentile
	minSilence   = 20 * time.Millisecond
	minHistory   = 50
	maxHistory   = 2000            // then all counts are halved, so that it follows changes
	lookEvery    = 50              // calls between two looks at the percentile
	longestWait  = 5 * time.Second // or after, if that is longer; by then the breaker has opened if all fails
)

// started notes a call that has begun; inFlight counts it.
func (s *stall) started(now time.Time, inFlight int) {
	if inFlight == 1 {
		s.answered(now)
		return
	}
	if s.silent(now, inFlight) {
		s.wait = max(s.after, min(2*s.wait, longestWait))
		s.next = now.Add(s.wait)
	}
}

// ended notes the end of a call. One that timed out is no answer.
func (s *stall) ended(now time.Time, load Load, took time.Duration) {
	switch load {
	case Ignored, TimedOut:
		return
	case Answered:
		s.learn(took)
	case Throttled, Failed, Replied:
	}
	s.answered(now)
}

func (s *stall) answered(now time.Time) {
	s.since, s.wait = now, s.after
	s.next = now.Add(2 * s.after)
}

func (s *stall) learn(took time.Duration) {
	s.history.add(took)
	if s.history.total < minHistory || s.history.total%lookEvery != 0 {
		return
	}
	s.after = max(minSilence, silentFactor*s.history.quantile(0.99))
	if s.history.total >= maxHistory {
		s.history.halve()
	}
}

// silent tells whether the target has stopped answering.
func (s *stall) silent(now time.Time, inFlight int) bool {
	return s.after > 0 && inFlight >= silentCalls && now.Sub(s.since) > s.after
}

// until is when one more call may begin, zero if any may.
func (s *stall) until(now time.Time, inFlight int) time.Time {
	if !s.silent(now, inFlight) || !now.Before(s.next) {
		return time.Time{}
	}
	return s.next
}
