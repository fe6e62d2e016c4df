package breaker_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/breaker"
)

func problems(c breaker.Config) []string {
	var found []string
	c.WithDefaults().Validate(func(field, message string) { found = append(found, field+": "+message) })
	return found
}

func TestConfig_defaultsAreDocumentedOnesAndValid(t *testing.T) {
	want := breaker.Config{
		FailureRate: 0.5, MinCalls: 20, ConsecutiveFailures: 5, Window: 30 * time.Second, SlowCallRate: 1,
		OpenFor: 5 * time.Second, OpenMultiplier: 1.5, MaxOpenFor: 2 * time.Minute, OpenJitter: 0.2,
		HalfOpenCalls: 3, HalfOpenConcurrent: 1, ProbeTimeout: 15 * time.Second, ProbePriority: breaker.ProbeHighest, Throttled: breaker.ThrottledRate,
	}
	if diff := cmp.Diff(want, breaker.Config{}.WithDefaults()); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	if got := problems(breaker.Config{}); got != nil {
		t.Errorf("the defaults are not valid: %v", got)
	}
	if diff := cmp.Diff(want, want.WithDefaults()); diff != "" {
		t.Errorf("WithDefaults is not idempotent:\n%s", diff)
	}
}

func TestConfig_maxOpenForFollowsALongerOpenFor(t *testing.T) {
	c := breaker.Config{OpenFor: 10 * time.Minute}
	if got := problems(c); got != nil || c.WithDefaults().MaxOpenFor != 10*time.Minute {
		t.Errorf("open_for alone: %v, max_open_for %v", got, c.WithDefaults().MaxOpenFor)
	}
}

func TestConfig_offIsMinusOneWhereOffered(t *testing.T) {
	if got := problems(breaker.Config{ConsecutiveFailures: -1, SlowCallRate: -1, OpenJitter: -1}); got != nil {
		t.Errorf("-1 is refused: %v", got)
	}
}

func TestConfig_everyProblemIsReportedAtOnce(t *testing.T) {
	got := problems(breaker.Config{
		FailureRate: math.NaN(), MinCalls: -1, ConsecutiveFailures: -2, Window: time.Millisecond, WindowCalls: -1,
		SlowCall: -1, SlowCallRate: 2, OpenFor: time.Millisecond, OpenMultiplier: 0.5, MaxOpenFor: 1, OpenJitter: 1.5,
		HalfOpenCalls: -1, HalfOpenConcurrent: -1, ProbeTimeout: 1, ProbePriority: "middle", Throttled: "maybe",
	})
	want := []string{
		"failure_rate: NaN is not allowed, use 0.001 to 1",
		"min_calls: -1 is not allowed, use 1 to 100000",
		"consecutive_failures: -2 is not allowed, use 1 to 100000, or -1 for off",
		"window: 1ms is not allowed, use 1s to 1h0m0s",
		"window_calls: -1 is not allowed, use 0 to 100000",
		"slow_call: -1ns is not allowed, use 0s to 24h0m0s",
		"slow_call_rate: 2 is not allowed, use 0.001 to 1, or -1 for off",
		"open_for: 1ms is not allowed, use 100ms to 1h0m0s",
		"open_multiplier: 0.5 is not allowed, use 1 to 100",
		"max_open_for: 1ns is not allowed, use 1ms to 24h0m0s",
		"open_jitter: 1.5 is not allowed, use 0 to 1, or -1 for off",
		"half_open_calls: -1 is not allowed, use 1 to 1000",
		"half_open_concurrent: -1 is not allowed, use 1 to 1000",
		"probe_timeout: 1ns is not allowed, use 100ms to 48h0m0s",
		`probe_priority: "middle" is not allowed, use highest or lowest`,
		`throttled: "maybe" is not allowed, use rate, failure or ignore`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestSetConfig_thresholdsApplyFromTheNextResultOn(t *testing.T) {
	g := newTarget(t, breaker.Config{ConsecutiveFailures: 10}, nil)
	g.call(4, breaker.Bad)
	g.SetConfig(g.now, breaker.Config{ConsecutiveFailures: 3})
	g.want(breaker.Closed, breaker.Started)
	g.call(1, breaker.Bad)
	g.want(breaker.Open, breaker.ConsecutiveFailures)
}

func TestSetConfig_anotherWindowStartsEmptyInTheSameState(t *testing.T) {
	var changes []breaker.Change
	g := newTarget(t, breaker.Config{}, func(c breaker.Change) { changes = append(changes, c) })
	g.call(4, breaker.Bad)
	old, since := g.permit(), g.now
	before := g.Stats(g.now)
	g.SetConfig(g.after(time.Second).now, breaker.Config{WindowCalls: 10})
	old.Done(g.now, breaker.Bad, 0)
	s := g.Stats(g.now)
	if s.Total != 0 || s.Consecutive != 0 || s.Stale != 1 || !s.Since.Equal(since) || s.Generation <= before.Generation || changes != nil {
		t.Errorf("after another window: %+v, changes %v", s, changes)
	}
}

func TestSetConfig_neverLengthensARunningWaitButMayCutIt(t *testing.T) {
	g := newTarget(t, breaker.Config{OpenFor: 10 * time.Second}, nil)
	g.call(5, breaker.Bad)
	left := func() time.Duration { return g.Stats(g.now).Until.Sub(g.now) }
	g.SetConfig(g.now, breaker.Config{OpenFor: time.Hour})
	if left() != 10*time.Second {
		t.Errorf("longer open_for: %v left", left())
	}
	g.SetConfig(g.now, breaker.Config{OpenFor: time.Second, MaxOpenFor: 4 * time.Second})
	if left() != 4*time.Second {
		t.Errorf("shorter max_open_for: %v left", left())
	}
	g.SetConfig(g.after(3*time.Second).now, breaker.Config{OpenFor: time.Second, MaxOpenFor: 2 * time.Second})
	g.want(breaker.HalfOpen, breaker.WaitOver)
}

func TestSetConfig_fewerProbesThanAlreadyProvenCloses(t *testing.T) {
	var last breaker.State
	g := newTarget(t, breaker.Config{HalfOpenCalls: 3}, func(c breaker.Change) { last = c.To })
	g.call(5, breaker.Bad)
	g.after(5*time.Second).call(2, breaker.Good)
	g.SetConfig(g.now, breaker.Config{HalfOpenCalls: 1})
	if last != breaker.Closed {
		t.Errorf("told only %v", last)
	}
	g.want(breaker.Closed, breaker.Recovered)
}

func TestStates_andReasonsAreComplete(t *testing.T) {
	want := []string{"closed", "open", "half_open", "forced_open", "disabled", "metrics_only"}
	var got []string
	for _, s := range breaker.States() {
		text, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(text))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if breaker.State(6).String() != "state(6)" || breaker.Verdict(4).String() != "verdict(4)" || breaker.Ignored.String() != "ignored" {
		t.Error("values out of range have no name")
	}
	reasons := breaker.Reasons()
	slices.Sort(reasons)
	if n := len(slices.Compact(reasons)); n != 13 {
		t.Errorf("%d different reasons", n)
	}
}

func TestOpenError_readsWell(t *testing.T) {
	tests := []struct {
		err  breaker.OpenError
		want string
	}{
		{breaker.OpenError{State: breaker.Open, RetryAfter: 4200 * time.Millisecond, Reason: breaker.FailureRate}, "breaker is open (failure_rate), next try in 4.2s"},
		{breaker.OpenError{State: breaker.HalfOpen, Reason: breaker.WaitOver}, "breaker is half open and has enough probes (wait_over)"},
		{breaker.OpenError{State: breaker.ForcedOpen, RetryAfter: time.Hour, Reason: breaker.Overridden, Note: "database moves"}, "breaker is open (override: database moves), next try in 1h0m0s"},
	}
	for _, tt := range tests {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
