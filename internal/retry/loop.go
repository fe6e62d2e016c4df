package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// minTry is the least time to the deadline that makes another try worthwhile.
const minTry = 10 * time.Millisecond

// Verdict is what a try's result means to the loop. The zero Verdict ends it.
type Verdict struct {
	// Success: the target did its part, whatever it thinks of the job. It pays
	// into the budget.
	Success bool
	// Again: another try at once may help.
	Again bool
	// Pushback: the target asked not to be tried again.
	Pushback bool
	// Hint is the wait the target asked for (Retry-After), bounded by whoever
	// read it. 0 or less: none.
	Hint time.Duration
	// Throttled: the target is well and asked for less. Trying again costs
	// half a token.
	Throttled bool
}

// Stop says why the loop ended.
type Stop string

// The reasons to stop, in the order in which they are looked for.
const (
	// Final: the result needs no other try.
	Final Stop = "final"
	// Attempts: there were max_attempts tries.
	Attempts Stop = "attempts"
	// Pushback: the target asked for it.
	Pushback Stop = "pushback"
	// Handoff: the wait is longer than max_backoff and so the broker's.
	Handoff Stop = "handoff"
	// Deadline: too little of the context's time would be left after the wait.
	Deadline Stop = "deadline"
	// Draining: no new try is wanted.
	Draining Stop = "draining"
	// Open: the breaker would refuse the try.
	Open Stop = "open"
	// NoBudget: retries have used up their budget.
	NoBudget Stop = "budget"
	// Cancelled: the context ended before or during the wait.
	Cancelled Stop = "cancelled"
)

// Stops are all reasons to stop.
func Stops() []Stop {
	return []Stop{Final, Attempts, Pushback, Handoff, Deadline, Draining, Open, NoBudget, Cancelled}
}

// Loop tries until there is no reason to try again. Any number of goroutines
// may use a Loop at once; nobody may change it meanwhile.
type Loop struct {
	// MaxAttempts is the number of tries, the first included. Below 1: 1.
	MaxAttempts int
	// Policy of the waits. One longer than its Max is not made here.
	Policy Policy
	// Budget of the target. Nil: no limit.
	Budget *Budget
	// RetryAfter is how long the breaker will go on refusing calls; more than
	// 0 stops the loop. It must not block. Nil: there is no breaker.
	RetryAfter func() time.Duration
	// Rand returns a random number in [0, 1), for any number of goroutines.
	// Nil: that of math/rand/v2.
	Rand func() float64
}

// New returns a loop with a budget of its own. The config must be valid.
func New(cfg Config) *Loop {
	cfg = cfg.WithDefaults()
	return &Loop{MaxAttempts: cfg.MaxAttempts, Policy: cfg.Policy(), Budget: NewBudget(cfg)}
}

// Do calls try, with n = 1 for the first time, until there is a reason to
// stop. It makes the first try in any case, even if ctx has ended or draining
// is closed, so that there always is a result; from then on neither lets
// another try start. A nil draining is never closed.
//
// It returns the number of tries made, why there are no more, and the rest of
// the wait that the next one would have needed: what is left of a sleep that
// was interrupted, the whole wait if it did not begin, 0 if none was due
// (final, attempts, pushback).
func (l *Loop) Do(ctx context.Context, draining <-chan struct{}, try func(ctx context.Context, n int) Verdict) (tries int, stop Stop, rest time.Duration) {
	for stop == "" {
		tries++
		v := try(ctx, tries)
		if v.Success {
			l.Budget.Deposit()
		}
		stop, rest = l.next(ctx, draining, v, tries)
	}
	return tries, stop, rest
}

// next waits for the next try, or says why there is none.
func (l *Loop) next(ctx context.Context, draining <-chan struct{}, v Verdict, tries int) (Stop, time.Duration) {
	switch {
	case !v.Again:
		return Final, 0
	case tries >= l.MaxAttempts:
		return Attempts, 0
	case v.Pushback:
		return Pushback, 0
	}
	now, delay := time.Now(), l.delay(v, tries)
	switch {
	case delay > l.Policy.limit():
		return Handoff, delay
	case tooLate(ctx, now, delay):
		return Deadline, delay
	case closed(draining):
		return Draining, delay
	case l.RetryAfter != nil && l.RetryAfter() > 0:
		return Open, delay
	case !l.Budget.Withdraw(now, cost(v)):
		return NoBudget, delay
	}
	stop := sleep(ctx, draining, delay)
	if stop == "" {
		return "", 0
	}
	l.Budget.Refund(cost(v))
	return stop, max(0, delay-time.Since(now))
}

// delay before the next try: what the policy says, or the target if that is more.
func (l *Loop) delay(v Verdict, tries int) time.Duration {
	random := l.Rand
	if random == nil {
		random = rand.Float64
	}
	u := random()
	return max(l.Policy.Delay(tries-1, u), hinted(v.Hint, u))
}

func cost(v Verdict) Cost {
	if v.Throttled {
		return Half
	}
	return Whole
}

// tooLate reports whether a try after the delay would have no time left.
func tooLate(ctx context.Context, now time.Time, delay time.Duration) bool {
	deadline, ok := ctx.Deadline()
	left := deadline.Sub(now)
	return ok && (left < delay || left-delay < minTry)
}

// sleep returns "" when the time has passed, and otherwise why it did not.
func sleep(ctx context.Context, draining <-chan struct{}, d time.Duration) Stop {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-draining:
	case <-ctx.Done():
	}
	// Asked once more, because select picks at random when the time is up and
	// the end has come: then no other try must start.
	switch {
	case closed(draining):
		return Draining
	case ctx.Err() != nil:
		return Cancelled
	}
	return ""
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
