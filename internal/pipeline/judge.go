package pipeline

import (
	"errors"
	"fmt"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/retry"
)

// account is a row of the table that says who pays for a call.
type account struct {
	breaker breaker.Verdict // what the call says of the target
	load    limiter.Load    // and of how much more it can take
	charged bool            // the job pays with one attempt
	again   bool            // another call at once may help
}

// row is the table. Everything that depends on a class depends on it here.
func row(c job.Class) account {
	return [...]account{
		job.Success:   {breaker.Good, limiter.Answered, false, false},
		job.Failure:   {breaker.Bad, limiter.Failed, true, true},
		job.Timeout:   {breaker.Bad, limiter.TimedOut, true, true},
		job.Throttled: {breaker.Throttled, limiter.Throttled, false, true},
		job.Permanent: {breaker.Good, limiter.Answered, true, false},
		job.Neutral:   {breaker.Ignored, limiter.Replied, true, true},
		job.Ignored:   {breaker.Ignored, limiter.Ignored, false, false},
		job.Rejected:  {breaker.Ignored, limiter.Ignored, false, false},
		job.Panicked:  {breaker.Bad, limiter.Ignored, true, false},
	}[c]
}

// verdict tells the retry loop what a result means to it.
func verdict(r job.Result) retry.Verdict {
	return retry.Verdict{
		Success:   r.Class == job.Success || r.Class == job.Permanent,
		Again:     row(r.Class).again,
		Pushback:  r.NoRetry,
		Hint:      r.RetryAfter,
		Throttled: r.Class == job.Throttled,
	}
}

// Account says who pays for a call of a class: what it tells the breaker of its
// target, and whether the job is charged an attempt.
func Account(c job.Class) (says breaker.Verdict, charged bool) {
	a := row(c)
	return a.breaker, a.charged
}

// Verdict is what a result means to the retry loop.
func Verdict(r job.Result) retry.Verdict { return verdict(r) }

// Rules by which attempts are judged.
type Rules struct {
	// MaxAttempts that may fail, MaxDeferrals that may come back uncharged, and
	// MaxCrashes that may panic or kill their worker before the job is
	// dead-lettered.
	MaxAttempts, MaxDeferrals, MaxCrashes int
	// MaxAge of a job from publication.
	MaxAge time.Duration
	// Backoff between attempts.
	Backoff retry.Policy
	// DropExpired drops expired jobs instead of dead-lettering them.
	DropExpired bool
}

// Refuse says what becomes of a job that must not run at all.
func (r Rules) Refuse(j *job.Job, before job.Record, now time.Time) (out job.Outcome, stop bool) {
	switch {
	case j.Invalid != nil:
		return job.Outcome{Action: job.DeadLetter, Reason: job.Decode, Err: j.Invalid}, true
	case !j.Deadline.IsZero() && now.After(j.Deadline):
		err := fmt.Errorf("expired %s ago, before it could start", now.Sub(j.Deadline).Round(time.Millisecond))
		if r.DropExpired {
			return job.Outcome{Action: job.Drop, Reason: job.Expired, Err: err}, true
		}
		return job.Outcome{Action: job.DeadLetter, Reason: job.Expired, Err: err}, true
	case now.Sub(j.Enqueued) > r.MaxAge:
		err := fmt.Errorf("older than max_age (%s): published %s", r.MaxAge, j.Enqueued.UTC().Format(time.RFC3339))
		return job.Outcome{Action: job.DeadLetter, Reason: job.MaxAge, Err: err}, true
	}
	if n := before.Crashes(j.Deliveries); n >= r.MaxCrashes {
		err := fmt.Errorf("%d workers died while they ran it (max_crashes)", n)
		return job.Outcome{Action: job.DeadLetter, Reason: job.Poison, Err: err}, true
	}
	return job.Outcome{}, false
}

// Attempt is what there is to judge.
type Attempt struct {
	Last     job.Result
	Stop     retry.Stop    // why the in-process tier ended
	Rest     time.Duration // the wait that tier asked for and did not make
	Cause    error         // why the job's context ended; nil if it did not
	Probe    bool          // the last call was to find out whether the target is back
	Stepped  bool          // the target was not called, and a fallback was tried in vain
	Before   job.Record
	Enqueued time.Time
}

// Judge turns an attempt into an outcome. It is pure: u is a random number in
// [0, 1) for the jitter of the delay.
func (r Rules) Judge(a Attempt, now time.Time, u float64) job.Outcome {
	last := a.Last
	switch {
	case last.Class == job.Success:
		return job.Outcome{Action: job.Done, Reason: job.OK, Source: job.Primary}
	case last.Class == job.Permanent && last.Reason == job.Dropped:
		return job.Outcome{Action: job.Drop, Reason: job.Dropped, Err: last.Err}
	case last.Class == job.Permanent:
		return job.Outcome{Action: job.DeadLetter, Reason: last.Reason, Charged: true, Err: last.Err}
	case last.Class == job.Rejected && a.Stepped:
		// Not parked: for a fallback the gate is open, and would let it run again
		// at once. Nor held until the target is back: the fallback may be sooner.
		a.Last.RetryAfter = 0
		return r.throttled(a, u)
	case last.Class == job.Rejected:
		return job.Outcome{Action: job.Park, Reason: last.Reason, After: last.RetryAfter, Err: last.Err}
	case last.Class == job.Ignored:
		return r.givenUp(a, now, u)
	case a.Stop == retry.Draining || a.Stop == retry.Cancelled && !errors.Is(a.Cause, job.ErrJobTimeout):
		return handBack(a)
	case last.Class == job.Throttled:
		return r.throttled(a, u)
	}
	return r.failed(a, now, u)
}

// givenUp judges a call that we ended ourselves.
func (r Rules) givenUp(a Attempt, now time.Time, u float64) job.Outcome {
	if errors.Is(a.Cause, job.ErrJobTimeout) {
		a.Last.Reason, a.Last.Err = job.TimedOut, job.ErrJobTimeout
		return r.failed(a, now, u)
	}
	return handBack(a)
}

// handBack returns a job that we could not finish, uncharged. One that was
// waiting to try again keeps the rest of its wait, and is not called interrupted:
// no call of it was.
func handBack(a Attempt) job.Outcome {
	switch {
	case errors.Is(a.Cause, job.ErrLeaseLost):
		return job.Outcome{Action: job.Release, Reason: job.LeaseLost, Err: a.Cause}
	case a.Rest > 0:
		return job.Outcome{Action: job.Defer, Reason: job.Released, After: a.Rest, Err: a.Last.Err}
	case errors.Is(a.Cause, job.ErrInterrupted):
		return job.Outcome{Action: job.Release, Reason: job.Interrupted, Err: a.Cause}
	}
	return job.Outcome{Action: job.Release, Reason: job.Released, Err: a.Last.Err}
}

// throttled judges a job whose target asked for less, or is not called while
// its fallback cannot do it either: its own fault it is not.
func (r Rules) throttled(a Attempt, u float64) job.Outcome {
	if a.Before.Deferrals+1 >= r.MaxDeferrals {
		err := fmt.Errorf("given back %d times without a result (max_deferrals): %w", a.Before.Deferrals+1, errOf(a.Last))
		return job.Outcome{Action: job.DeadLetter, Reason: job.MaxDeferrals, Err: err}
	}
	after := max(a.Rest, a.Last.RetryAfter, r.Backoff.Delay(a.Before.Deferrals, u))
	return job.Outcome{Action: job.Defer, Reason: a.Last.Reason, After: after, Err: a.Last.Err}
}

// failed judges an attempt that the job pays for.
func (r Rules) failed(a Attempt, now time.Time, u float64) job.Outcome {
	attempts, err := a.Before.Attempts+1, errOf(a.Last)
	dead := func(reason job.Reason, err error) job.Outcome {
		return job.Outcome{Action: job.DeadLetter, Reason: reason, Charged: true, Err: err}
	}
	switch {
	case a.Last.Class == job.Panicked && a.Before.Panics+1 >= r.MaxCrashes:
		return dead(job.Poison, fmt.Errorf("panicked %d times (max_crashes): %w", a.Before.Panics+1, err))
	case attempts >= r.MaxAttempts && !a.knownDown():
		return dead(job.MaxAttempts, fmt.Errorf("failed %d times (max_attempts): %w", attempts, err))
	}
	after := max(a.Rest, a.Last.RetryAfter, r.Backoff.Delay(a.Before.Attempts, u))
	if now.Add(after).Sub(a.Enqueued) > r.MaxAge {
		return dead(job.MaxAge, fmt.Errorf("would be older than max_age (%s) at the next attempt: %w", r.MaxAge, err))
	}
	if attempts >= r.MaxAttempts { // not the last one: that is for a target that works
		return job.Outcome{Action: job.Defer, Reason: a.Last.Reason, After: after, Err: err}
	}
	return job.Outcome{Action: job.Retry, Reason: a.Last.Reason, After: after, Charged: true, Err: err}
}

// knownDown tells whether the call found out that a target is still down. However
// long that is, no job dies of it alone.
func (a Attempt) knownDown() bool {
	return a.Probe && (a.Last.Class == job.Failure || a.Last.Class == job.Timeout)
}

func errOf(r job.Result) error {
	if r.Err != nil {
		return r.Err
	}
	return fmt.Errorf("%s (%s)", r.Class, r.Reason)
}
