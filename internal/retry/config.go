package retry

import (
	"fmt"
	"time"
)

// Config of the tries of one target within one attempt.
type Config struct {
	// MaxAttempts is the number of tries, the first included, 1 to 100. 1: no
	// retry. Default: 3.
	MaxAttempts int `yaml:"max_attempts"`
	// InitialBackoff is the wait before the first retry, before jitter, 1ms to
	// 1m. Default: 200ms.
	InitialBackoff time.Duration `yaml:"initial_backoff"`
	// MaxBackoff caps the wait, initial_backoff to 5m. The job keeps its permit
	// meanwhile, so a target that asks for a longer one (Retry-After) gets the
	// job back by redelivery. Default: 2s, or initial_backoff if that is longer.
	MaxBackoff time.Duration `yaml:"max_backoff"`
	// Multiplier from one wait to the next, 1 to 100. Default: 2.
	Multiplier float64 `yaml:"multiplier"`
	// Jitter takes a random share off each wait, so that jobs which failed
	// together do not come back together: full (up to all of it), equal (up to
	// half) or none. Default: full.
	Jitter Jitter `yaml:"jitter"`
	// Budget is how many retries each success pays for, 0.001 to 1, in steps
	// of 0.001, or -1 for no limit on retries. It is shared by all jobs for the
	// target in this process. 0.1 keeps the extra load of retries to 10 %, and
	// to budget_min_per_second while nothing succeeds. Default: 0.1.
	Budget float64 `yaml:"budget"`
	// BudgetMax is how many retries can be saved up, and are there at the
	// start, 1 to 1000000. More lets a short fault be retried away, and hits a
	// failing target harder at first. Default: 100.
	BudgetMax int `yaml:"budget_max"`
	// BudgetMinPerSecond retries are paid for whether or not anything
	// succeeds, 0.001 to 1000, or -1 for none. They keep a target with little
	// traffic from running dry. Default: 1.
	BudgetMinPerSecond float64 `yaml:"budget_min_per_second"`
}

// Jitter is how much of a wait is left to chance: full, equal or none.
type Jitter string

// The kinds of jitter.
const (
	JitterFull  Jitter = "full"
	JitterEqual Jitter = "equal"
	JitterNone  Jitter = "none"
)

// off spells "not this one" where zero means default.
const off = -1

// WithDefaults fills in what was not said.
func (c Config) WithDefaults() Config {
	setDefault(&c.MaxAttempts, 3)
	setDefault(&c.InitialBackoff, 200*time.Millisecond)
	setDefault(&c.MaxBackoff, max(2*time.Second, c.InitialBackoff))
	setDefault(&c.Multiplier, 2)
	setDefault(&c.Jitter, JitterFull)
	setDefault(&c.Budget, 0.1)
	setDefault(&c.BudgetMax, 100)
	setDefault(&c.BudgetMinPerSecond, 1)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports every problem of a config with its defaults filled in.
func (c Config) Validate(problem func(field, message string)) {
	report := func(field, message string) {
		if message != "" {
			problem(field, message)
		}
	}
	report("max_attempts", outside(c.MaxAttempts, 1, 100))
	report("initial_backoff", outside(c.InitialBackoff, time.Millisecond, time.Minute))
	// An initial_backoff out of range has been reported; it must not make the
	// range of max_backoff an impossible one.
	report("max_backoff", outside(c.MaxBackoff, min(max(c.InitialBackoff, time.Millisecond), time.Minute), 5*time.Minute))
	report("multiplier", outside(c.Multiplier, 1, 100))
	switch c.Jitter {
	case JitterFull, JitterEqual, JitterNone:
	default:
		problem("jitter", fmt.Sprintf("%q is not allowed, use full, equal or none", c.Jitter))
	}
	report("budget", outsideOrOff(c.Budget, 0.001, 1))
	report("budget_max", outside(c.BudgetMax, 1, 1_000_000))
	report("budget_min_per_second", outsideOrOff(c.BudgetMinPerSecond, 0.001, 1000))
}

type number interface {
	int | float64 | time.Duration
}

// outside says what is wrong with v, "" if nothing is. It is written so that
// NaN is outside of every range.
func outside[T number](v, low, high T) string {
	if v >= low && v <= high {
		return ""
	}
	return fmt.Sprintf("%v is not allowed, use %v to %v", v, low, high)
}

func outsideOrOff(v, low, high float64) string {
	message := outside(v, low, high)
	if v == off || message == "" {
		return ""
	}
	return message + ", or -1 for off"
}

// Policy is the part of a config that says how long to wait.
func (c Config) Policy() Policy {
	c = c.WithDefaults()
	return Policy{Initial: c.InitialBackoff, Max: c.MaxBackoff, Multiplier: c.Multiplier, Jitter: c.Jitter.share()}
}

// share of a wait that is left to chance.
func (j Jitter) share() float64 {
	switch j {
	case JitterNone:
		return 0
	case JitterEqual:
		return 0.5
	}
	return 1
}
