package hedge

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Config of the hedging of one target.
type Config struct {
	// After is how long a call may go unanswered until a second one is made: a
	// time, 1ms up to the target's timeout, or the share of the recent good calls
	// that were faster, p50 to p99. With a share nothing is hedged before 20 calls
	// were good. Default: p95.
	After string `yaml:"after"`
	// Budget bounds what hedging adds to the calls, 0.001 to 0.5. Default: 0.05.
	Budget float64 `yaml:"budget"`
}

// WithDefaults fills in what was not said.
func (c Config) WithDefaults() Config {
	if c.After == "" {
		c.After = "p95"
	}
	if c.Budget == 0 {
		c.Budget = 0.05
	}
	return c
}

// Validate reports every problem of a config with its defaults, for a target
// with that timeout.
func (c Config) Validate(timeout time.Duration, problem func(field, message string)) {
	if _, _, err := c.after(timeout); err != nil {
		problem("after", err.Error())
	}
	if !(c.Budget >= 0.001 && c.Budget <= 0.5) {
		problem("budget", fmt.Sprintf("%v is not allowed, use 0.001 to 0.5", c.Budget))
	}
}

// after is either a time or a percentile.
func (c Config) after(timeout time.Duration) (d time.Duration, percent int, err error) {
	if digits, ok := strings.CutPrefix(c.After, "p"); ok {
		if n, err := strconv.Atoi(digits); err == nil && n >= 50 && n <= 99 {
			return 0, n, nil
		}
		return 0, 0, fmt.Errorf("%q is not allowed, use p50 to p99", c.After)
	}
	d, err = time.ParseDuration(c.After)
	if err != nil || d < time.Millisecond || d >= timeout {
		return 0, 0, fmt.Errorf("%q is not allowed, use p50 to p99, or a time from 1ms to less than the target's timeout (%s)", c.After, timeout)
	}
	return d, 0, nil
}
