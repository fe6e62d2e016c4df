package breaker

import "fmt"

// State of a breaker. It is a label value in metrics; see [States].
type State uint8

// The states.
const (
	// Closed: calls pass and are counted.
	Closed State = iota
	// Open: no call passes until the wait is over.
	Open
	// HalfOpen: a few calls pass as probes.
	HalfOpen
	// ForcedOpen: an operator lets no call pass.
	ForcedOpen
	// Disabled: an operator lets every call pass, nothing is counted.
	Disabled
	// MetricsOnly: an operator lets every call pass, and a breaker in the
	// shadow counts what it would have refused.
	MetricsOnly
)

// States lists every State, so that each of their series exists from the start.
func States() []State { return []State{Closed, Open, HalfOpen, ForcedOpen, Disabled, MetricsOnly} }

// String returns the state as in metrics and on pages, for example "half_open".
func (s State) String() string {
	names := [...]string{"closed", "open", "half_open", "forced_open", "disabled", "metrics_only"}
	if int(s) >= len(names) {
		return fmt.Sprintf("state(%d)", uint8(s))
	}
	return names[s]
}

// MarshalText returns the name, so that JSON shows it.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s State) isOverride() bool { return s == ForcedOpen || s == Disabled || s == MetricsOnly }

// Verdict is what a result says about the target's health. How long the call
// took is judged apart from it.
type Verdict uint8

// The verdicts.
const (
	// Good: the target answered as a healthy one does, be it "no".
	Good Verdict = iota
	// Bad: the target failed, timed out, or our own call panicked.
	Bad
	// Throttled: the target asked for less. See throttled in [Config].
	Throttled
	// Ignored: the call says nothing about the target (we cancelled it).
	Ignored
)

// String returns the verdict in lower case.
func (v Verdict) String() string {
	names := [...]string{"good", "bad", "throttled", "ignored"}
	if int(v) >= len(names) {
		return fmt.Sprintf("verdict(%d)", uint8(v))
	}
	return names[v]
}

// Reason says why a breaker is in its state. It is a label value in metrics,
// so the set is closed; see [Reasons].
type Reason string

// The reasons.
const (
	// Why it is closed.
	Started         Reason = "started"
	Recovered       Reason = "recovered"
	OverrideExpired Reason = "override_expired"
	WasReset        Reason = "reset"

	// Why it is open.
	ConsecutiveFailures Reason = "consecutive_failures"
	FailureRate         Reason = "failure_rate"
	SlowCallRate        Reason = "slow_call_rate"
	ProbeFailed         Reason = "probe_failed"
	ProbeThrottled      Reason = "probe_throttled"
	ProbeSlow           Reason = "probe_slow"
	ProbeTimeout        Reason = "probe_timeout"

	// Why it is half open.
	WaitOver Reason = "wait_over"

	// Why it is forced open, disabled or metrics only.
	Overridden Reason = "override"
)

// Reasons lists every Reason, so that each of their series exists from the start.
func Reasons() []Reason {
	return []Reason{
		Started, Recovered, OverrideExpired, WasReset, ConsecutiveFailures, FailureRate, SlowCallRate,
		ProbeFailed, ProbeThrottled, ProbeSlow, ProbeTimeout, WaitOver, Overridden,
	}
}
