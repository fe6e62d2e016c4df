package job

import "time"

// Class says what a call tells us about the target and about the job. It is
// the one word that breaker, retry and judge agree on.
type Class uint8

// The classes.
const (
	// Success: the target did the work.
	Success Class = iota
	// Failure: the target could not do the work now; another time it may.
	Failure
	// Timeout is a Failure that also took too long.
	Timeout
	// Throttled: the target asked for less, usually with a time to wait.
	Throttled
	// Permanent: the target is well and says this job can never succeed.
	Permanent
	// Neutral: worth another try, and says nothing about the target's health.
	Neutral
	// Ignored: we ended the call ourselves (drain, lost lease).
	Ignored
	// Rejected: the call was never made (breaker open).
	Rejected
	// Panicked: our own code failed while running the job.
	Panicked
)

// String returns the class in lower case.
func (c Class) String() string {
	return [...]string{"success", "failure", "timeout", "throttled", "permanent", "neutral", "ignored", "rejected", "panic"}[c]
}

// Reason says why something happened to a job. It is a label value in
// metrics, so the set is closed; see [Reasons].
type Reason string

// The reasons.
const (
	OK Reason = "ok"

	// What a call ended with.
	Status2xx       Reason = "status_2xx"
	Status3xx       Reason = "status_3xx"
	Status4xx       Reason = "status_4xx"
	Status5xx       Reason = "status_5xx"
	StatusThrottled Reason = "throttled"
	TimedOut        Reason = "timeout"
	Connect         Reason = "connect"
	Reset           Reason = "reset"
	DNS             Reason = "dns"
	TLS             Reason = "tls"
	Protocol        Reason = "protocol"
	ResponseSize    Reason = "response_size"
	Disposition     Reason = "disposition"
	BadRequest      Reason = "bad_request"

	// What became of a job for reasons of its own.
	Decode       Reason = "decode"
	Expired      Reason = "expired"
	MaxAttempts  Reason = "max_attempts"
	MaxAge       Reason = "max_age"
	MaxDeferrals Reason = "max_deferrals"
	Poison       Reason = "poison"
	PanicReason  Reason = "panic"
	Dropped      Reason = "dropped"
	Shed         Reason = "shed"

	// Why a job was given back unharmed.
	BreakerOpen Reason = "breaker"
	Limited     Reason = "limit"
	Ramping     Reason = "ramp"
	RateLimited Reason = "rate_limit"
	Stalled     Reason = "stalled"
	ValveClosed Reason = "valve"
	Pressure    Reason = "pressure"
	Paused      Reason = "paused"
	Degraded    Reason = "degraded"
	Interrupted Reason = "interrupted"
	Released    Reason = "released"
	Fairness    Reason = "fairness"
	LeaseLost   Reason = "lease_lost"
	NoDLQ       Reason = "dead_letter_unavailable"
	NoResult    Reason = "result_unavailable"
)

// Reasons lists every Reason, so that each of their series exists from the start.
func Reasons() []Reason {
	return []Reason{
		OK, Status2xx, Status3xx, Status4xx, Status5xx, StatusThrottled, TimedOut, Connect, Reset, DNS, TLS,
		Protocol, ResponseSize, Disposition, BadRequest, Decode, Expired, MaxAttempts, MaxAge, MaxDeferrals,
		Poison, PanicReason, Dropped, Shed, BreakerOpen, Limited, Ramping, RateLimited, Stalled, ValveClosed, Pressure, Paused, Degraded, Interrupted, Released, Fairness, LeaseLost, NoDLQ, NoResult,
	}
}

// Result is how one call (a try) ended.
type Result struct {
	Class  Class
	Reason Reason
	// Status of the protocol (an HTTP status code), 0 if there was none.
	Status int
	// RetryAfter is how long the target asked us to wait, capped by the
	// target's max_retry_after. 0: it did not say.
	RetryAfter time.Duration
	// NoRetry: another call at once is pointless or unsafe; leave the next
	// one to a later delivery.
	NoRetry bool
	// Err describes the failure for people. Nil on success.
	Err error
	// Reply is what the target answered, if somebody wants it. Nil otherwise.
	Reply *Reply
	// Age of a Reply that was given earlier, 0 if it was given now.
	Age time.Duration
}

// Reply is an answer that is kept. Nobody writes to it, so that it may be
// shared.
type Reply struct {
	// Status of the protocol, as in Result.
	Status int
	// ContentType as the target said, "" if it did not.
	ContentType string
	// Body, at most as much as was wanted. Truncated: there was more.
	Body      []byte
	Truncated bool
}

// Source says who did a job that is done: [Primary], [Cache], [Static],
// [Parked], or [Alternate] and the name of the target.
type Source string

// The sources.
const (
	// Primary: the target of the pool.
	Primary Source = "primary"
	// Alternate precedes the name of another target.
	Alternate Source = "alternate:"
	// Cache: an earlier reply to the same.
	Cache Source = "cache"
	// Static: the reply written in the configuration.
	Static Source = "static"
	// Parked: the job was published to where it waits for somebody else.
	Parked Source = "parked"
)

// Action is what is to be done with a delivery.
type Action uint8

// The actions.
const (
	// Done: acknowledge, the work is complete.
	Done Action = iota
	// Retry: give back with a delay; the attempt is charged to the job.
	Retry
	// Defer: give back with a delay, uncharged.
	Defer
	// Release: give back at once, uncharged, for another replica to take.
	Release
	// DeadLetter: store a dead letter, then terminate.
	DeadLetter
	// Drop: acknowledge without success, because somebody wrote that policy down.
	Drop
	// Park: not an end. Keep the job in hand and try again when the gate
	// opens. Never reaches the broker.
	Park
)

// String returns the action as the label value of workerd_jobs_completed_total.
func (a Action) String() string {
	return [...]string{"ok", "retry", "deferred", "released", "dead", "dropped", "parked"}[a]
}

// Actions lists the actions that end a delivery.
func Actions() []Action { return []Action{Done, Retry, Defer, Release, DeadLetter, Drop} }

// Outcome is what became of a delivery, as data. Nothing has been settled yet
// when it is made.
type Outcome struct {
	Action Action
	Reason Reason
	// After is the earliest time until the next delivery (Retry, Defer) or
	// the time to stay parked (Park). 0: at once.
	After time.Duration
	// Charged: the job pays for this with one attempt.
	Charged bool
	// Tries is the number of calls made.
	Tries int
	// Last is the last call's result. Zero if there was none.
	Last Result
	// Source says who did the job. Empty unless it is done.
	Source Source
	// Err describes for people what went wrong. Nil if nothing did. A job may
	// be done nevertheless, by a fallback.
	Err error
}
