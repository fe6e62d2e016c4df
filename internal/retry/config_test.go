package retry_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/retry"
)

func problems(c retry.Config) (found []string) {
	c.Validate(func(field, message string) { found = append(found, fmt.Sprintf("%s: %s", field, message)) })
	return found
}

func TestConfig_zeroMeansDefault(t *testing.T) {
	want := retry.Config{
		MaxAttempts: 3, InitialBackoff: 200 * time.Millisecond, MaxBackoff: 2 * time.Second, Multiplier: 2,
		Jitter: "full", Budget: 0.1, BudgetMax: 100, BudgetMinPerSecond: 1,
	}
	got := retry.Config{}.WithDefaults()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if found := problems(got); found != nil {
		t.Error("the defaults are not valid:", found)
	}
	if diff := cmp.Diff(want, got.WithDefaults()); diff != "" {
		t.Error("defaults of defaults differ:", diff)
	}
}

func TestConfig_longInitialBackoffRaisesTheDefaultCap(t *testing.T) {
	c := retry.Config{InitialBackoff: 10 * time.Second}.WithDefaults()
	if found := problems(c); c.MaxBackoff != 10*time.Second || found != nil {
		t.Errorf("max_backoff is %s, problems: %v", c.MaxBackoff, found)
	}
}

func TestConfig_everyProblemIsReported(t *testing.T) {
	c := retry.Config{
		MaxAttempts: -1, InitialBackoff: time.Hour, MaxBackoff: time.Second, Multiplier: math.NaN(),
		Jitter: "some", Budget: -0.5, BudgetMax: -1, BudgetMinPerSecond: 1001,
	}
	want := []string{
		"max_attempts: -1 is not allowed, use 1 to 100",
		"initial_backoff: 1h0m0s is not allowed, use 1ms to 1m0s",
		"max_backoff: 1s is not allowed, use 1m0s to 5m0s",
		"multiplier: NaN is not allowed, use 1 to 100",
		`jitter: "some" is not allowed, use full, equal or none`,
		"budget: -0.5 is not allowed, use 0.001 to 1, or -1 for off",
		"budget_max: -1 is not allowed, use 1 to 1000000",
		"budget_min_per_second: 1001 is not allowed, use 0.001 to 1000, or -1 for off",
	}
	if diff := cmp.Diff(want, problems(c)); diff != "" {
		t.Error(diff)
	}
}

func TestConfig_offIsAllowedWhereItIsOffered(t *testing.T) {
	c := retry.Config{Budget: -1, BudgetMinPerSecond: -1}.WithDefaults()
	if found := problems(c); found != nil {
		t.Error(found)
	}
}

func TestConfig_policyIsWhatWasConfigured(t *testing.T) {
	for jitter, share := range map[retry.Jitter]float64{"": 1, retry.JitterFull: 1, retry.JitterEqual: 0.5, retry.JitterNone: 0} {
		got := retry.Config{InitialBackoff: time.Second, MaxBackoff: time.Minute, Multiplier: 3, Jitter: jitter}.Policy()
		want := retry.Policy{Initial: time.Second, Max: time.Minute, Multiplier: 3, Jitter: share}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("jitter %q: %s", jitter, diff)
		}
	}
}
