// Package fallback says what can be done with a job that its target did not
// do: the steps of a chain, what each is taken for, the replies that are kept
// for it, and the switch that leads straight to it.
//
//	target ── did it ─────────────────────────────► done
//	  │ open, timeout, failure, throttled (permanent, if wanted)
//	  ▼
//	step ──► step ──► … ── one did it ────────────► done, source marked
//	  │ none did
//	  └────────────► what became of it at the target counts
//
// It holds data and decides nothing over time: the pipeline walks the chain.
package fallback

import "github.com/workerd/workerd/internal/job"

// Cause is why a job needs a fallback.
type Cause string

// The causes.
const (
	// Open: the target was not called, and would not have been for a while.
	Open Cause = "open"
	// Timeout: it took too long.
	Timeout Cause = "timeout"
	// Failure: it could not do the job now.
	Failure Cause = "failure"
	// Throttled: it asks for less.
	Throttled Cause = "throttled"
	// Permanent: it says the job can never succeed.
	Permanent Cause = "permanent"
)

// Causes are all of them.
func Causes() []Cause { return []Cause{Open, Timeout, Failure, Throttled, Permanent} }

// CauseOf is what a result at the target means to a chain, false if no chain
// is entered for it: the job is done, we gave it up ourselves, our own code
// failed, the target itself said by Workerd-Disposition what is to become of
// it, or it is just its turn that has not come (limit, rate).
func CauseOf(r job.Result) (Cause, bool) {
	switch r.Class {
	case job.Failure:
		return Failure, true
	case job.Timeout:
		return Timeout, true
	case job.Throttled:
		return Throttled, true
	case job.Permanent:
		return Permanent, r.Reason != job.Dropped && r.Reason != job.Disposition
	case job.Rejected:
		return CauseOfHold(r.Reason)
	case job.Success, job.Neutral, job.Ignored, job.Panicked:
	}
	return "", false
}

// CauseOfHold is the same for what keeps a target from being called.
func CauseOfHold(r job.Reason) (Cause, bool) {
	switch r {
	case job.BreakerOpen, job.Degraded, job.Ramping, job.Stalled:
		return Open, true
	case job.StatusThrottled:
		return Throttled, true
	}
	return "", false
}

// Result of a step, a label value of workerd_fallbacks_total.
type Result string

// The results.
const (
	// Done: the job is settled.
	Done Result = "ok"
	// Failed: it was tried.
	Failed Result = "failed"
	// Refused: the other target's breaker or limit did not permit the call.
	Refused Result = "refused"
	// Miss: the cache has nothing, or nothing that is young enough.
	Miss Result = "miss"
)

// Results are all of them.
func Results() []Result { return []Result{Done, Failed, Refused, Miss} }

// Kinds are all kinds of steps.
func Kinds() []Kind { return []Kind{Alternate, Cached, Static, Parked, DeadLetter} }
