package limiter

import (
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Load is what the end of a call says of how much the target can take.
type Load uint8

// The loads.
const (
	// Ignored says nothing: we gave the call up, or it was not made.
	Ignored Load = iota
	// Answered: the target did its part, whether or not the job liked it.
	Answered
	// TimedOut: it took too long.
	TimedOut
	// Throttled: it asked for less.
	Throttled
	// Failed for other reasons; that is the breaker's business.
	Failed
	// Replied: the target has answered, and what it says is neither for nor
	// against it: a conflict of the job's.
	Replied
)

// Reason says why there is no seat.
type Reason string

// The reasons.
const (
	// Full: as many calls are under way as the target can take.
	Full Reason = "limit"
	// Ramping: as many as the target gets so soon after an outage.
	Ramping Reason = "ramp"
	// TooMany calls per time.
	TooMany Reason = "rate_limit"
	// NotBefore: the target has asked for time.
	NotBefore Reason = "throttled"
	// Silent: many calls are under way, and it has stopped answering.
	Silent Reason = "stalled"
)

// RefusedError says that there is no seat, why, and when to ask again.
type RefusedError struct {
	Reason Reason
	// RetryAfter is 0 if a seat becomes free when another call ends.
	RetryAfter time.Duration
}

// Error implements error.
func (e *RefusedError) Error() string {
	text := map[Reason]string{
		Full: "the target gets as many calls at once as it can take", Ramping: "the target is warming up after an outage",
		TooMany: "the rate limit of the target is used up", NotBefore: "the target has asked for time",
		Silent: "the target has stopped answering",
	}[e.Reason]
	if e.RetryAfter > 0 {
		return fmt.Sprintf("%s, again in %s", text, e.RetryAfter.Round(time.Millisecond))
	}
	return text
}

// Unlimited is the credit of a limiter that holds nothing back.
const Unlimited = math.MaxInt

// Limiter guards one target. All methods may be called from any goroutine; the
// times passed in should come from time.Now.
type Limiter struct {
	rate *rate.Limiter // nil: no bound

	mu        sync.Mutex // guards all below
	most      int        // calls that all pools together would make at once
	adaptive  adaptive
	stall     stall
	ramp      ramp
	outage    bool // the ramp is that of an outage which is not known to be over
	inFlight  int
	spare     int // of those in flight
	notBefore time.Time
	waiting   bool          // somebody was told of less than he might want
	changed   chan struct{} // nil: nobody has asked
}

// New returns a limiter. Both configs must be valid, with their defaults; most
// is how many calls the pools of the target make at once, and the bound if the
// config names none.
func New(cfg Config, r Rate, most int) *Limiter {
	l := &Limiter{most: max(1, most), ramp: ramp{interval: cfg.RampInterval}}
	bound := l.most
	if cfg.Max > 0 {
		bound = cfg.Max
	}
	l.adaptive = newAdaptive(cfg, bound)
	if r.Rate > 0 {
		l.rate = rate.NewLimiter(rate.Limit(r.Rate/r.Per.Seconds()), r.Burst)
	}
	return l
}

// Seat is the right to one call. The zero value is one that was returned.
type Seat struct {
	limiter *Limiter
	began   time.Time
	spare   bool
}

// Acquire takes a seat, or says in a *RefusedError why there is none. A seat
// must be given back by Done.
func (l *Limiter) Acquire(now time.Time) (Seat, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if credit, reason, until := l.credit(now); credit == 0 {
		return Seat{}, &RefusedError{Reason: reason, RetryAfter: max(0, until.Sub(now))}
	}
	return l.take(now), nil
}

// take is called with mu held, after credit has looked.
func (l *Limiter) take(now time.Time) Seat {
	if l.rate != nil {
		l.rate.AllowN(now, 1)
	}
	l.inFlight++
	l.adaptive.started(now, l.inFlight)
	l.stall.started(now, l.inFlight)
	return Seat{limiter: l, began: now}
}

// Done gives the seat back and tells how the call went.
func (s *Seat) Done(now time.Time, load Load) {
	l := s.limiter
	if l == nil {
		return
	}
	s.limiter = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	if s.spare {
		l.spare--
	}
	l.adaptive.ended(now, load, now.Sub(s.began))
	l.stall.ended(now, load, now.Sub(s.began))
	if l.ramp.ended(now, load, l.rampEnd()) && l.outage {
		l.outage = false
		l.adaptive.restore(now)
	}
	l.tell()
}

// Credit is how many more calls may begin now: Unlimited if that does not
// depend on this limiter, otherwise reason says on what. It changes at until by
// itself, and with a zero until when Changed says so.
func (l *Limiter) Credit(now time.Time) (n int, reason Reason, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, reason, until = l.credit(now)
	l.waiting = l.waiting || n != Unlimited
	return n, reason, until
}

// credit is called with mu held.
func (l *Limiter) credit(now time.Time) (n int, reason Reason, until time.Time) {
	if now.Before(l.notBefore) {
		return 0, NotBefore, l.notBefore
	}
	if until := l.stall.until(now, l.inFlight); !until.IsZero() {
		return 0, Silent, until
	}
	if l.inFlight == 0 {
		l.ramp.idle(now, l.rampEnd())
	}
	n, reason = l.room()
	if n > 1 && l.stall.silent(now, l.inFlight) {
		n, reason = 1, Silent
	}
	if reason == Ramping && l.inFlight == 0 {
		until = l.ramp.began.Add(patience*l.ramp.interval + 1)
	}
	if n == 0 || l.rate == nil {
		return n, reason, until
	}
	tokens := l.rate.TokensAt(now)
	if tokens >= float64(n) {
		return n, reason, until
	}
	if tokens >= 1 {
		return int(tokens), TooMany, time.Time{}
	}
	wait := time.Duration(math.Ceil((1 - tokens) / float64(l.rate.Limit()) * float64(time.Second)))
	return 0, TooMany, now.Add(max(time.Millisecond, wait))
}

// rampEnd is where the ramp leads: to the limit, or to the one that is restored
// when an outage turns out to be over. What timeouts have left of it meanwhile
// would be reached at once, and the ramp be off when the limit comes back.
func (l *Limiter) rampEnd() int {
	if l.outage {
		return l.adaptive.restorable()
	}
	return l.adaptive.now()
}

// room is how many calls fit under limit and ramp. A limit that the pools
// together cannot reach binds nobody.
func (l *Limiter) room() (int, Reason) {
	limit, reason := l.adaptive.now(), Full
	if l.ramp.step > 0 && l.ramp.step < limit {
		limit, reason = l.ramp.step, Ramping
	}
	if limit >= l.most && l.spare == 0 {
		return Unlimited, ""
	}
	return max(0, limit-l.inFlight), reason
}

// Hold keeps calls from beginning before the given time: the target has asked
// for it. The latest time counts. Then it warms up as after an outage.
func (l *Limiter) Hold(now, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until.After(l.notBefore) {
		l.notBefore = until
		l.ramp.start(now)
		l.waiting = true
		l.tell()
	}
}

// Outage says that the target is not called any more, or hardly: once it is,
// its calls begin few and become more.
func (l *Limiter) Outage(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outage = true
	l.ramp.start(now)
	l.waiting = true
	l.tell()
}

// Changed returns a channel that is closed when credit may have changed
// otherwise than by time. Take the channel first and ask for Credit then.
func (l *Limiter) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

// tell wakes whoever was told of a bound. The caller holds mu.
func (l *Limiter) tell() {
	if l.waiting && l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	l.waiting = false
}

// Stats is the state of a limiter at one instant.
type Stats struct {
	// Limit of calls at once, the ramp included; Max is the most it can be.
	Limit, Max, InFlight int
	// Ramping: the limit is that of the ramp.
	Ramping bool
	// Silent: it has stopped answering.
	Silent bool
}

// Stats may be called from any goroutine.
func (l *Limiter) Stats(now time.Time) Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inFlight == 0 {
		l.ramp.idle(now, l.rampEnd())
	}
	s := Stats{Limit: l.adaptive.now(), Max: int(l.adaptive.max), InFlight: l.inFlight, Silent: l.stall.silent(now, l.inFlight)}
	if l.ramp.step > 0 && l.ramp.step < s.Limit {
		s.Limit, s.Ramping = l.ramp.step, true
	}
	return s
}
