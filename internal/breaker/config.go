package breaker

import (
	"fmt"
	"math"
	"time"
)

// Config of one target's breaker.
type Config struct {
	// FailureRate of the calls in the window at which the breaker opens, 0.001
	// to 1, in steps of 0.001. Default: 0.5.
	FailureRate float64 `yaml:"failure_rate"`
	// MinCalls that must lie in the window before a rate is trusted, 1 to
	// 100000. Default: 20. A count window smaller than that needs to be full.
	MinCalls int `yaml:"min_calls"`
	// ConsecutiveFailures after which the breaker opens whatever the rate is,
	// 1 to 100000, or -1 for off. It catches a target with little traffic,
	// which never has min_calls in a window. Default: 5.
	ConsecutiveFailures int `yaml:"consecutive_failures"`
	// Window of time over which calls are counted, in ten steps, 1s to 1h.
	// Default: 30s.
	Window time.Duration `yaml:"window"`
	// WindowCalls counts the last so many calls instead of those of a time, 1
	// to 100000. Default: 0, the time window.
	WindowCalls int `yaml:"window_calls"`
	// SlowCall is the time after which a finished call was slow, up to 24h.
	// Default: 0.8 of the target's timeout; 0 for a breaker without a target:
	// no call is slow.
	SlowCall time.Duration `yaml:"slow_call"`
	// SlowCallRate of the calls in the window at which the breaker opens,
	// 0.001 to 1, or -1 for off. Unless off, a slow probe reopens. Default: 1.
	SlowCallRate float64 `yaml:"slow_call_rate"`
	// OpenFor is how long the breaker stays open the first time, 100ms to 1h.
	// Default: 5s.
	OpenFor time.Duration `yaml:"open_for"`
	// OpenMultiplier lengthens each opening that follows another one closely,
	// 1 to 100. After an outage a target waits at most so much less 1 of the
	// outage's time to be noticed. Default: 1.5.
	OpenMultiplier float64 `yaml:"open_multiplier"`
	// MaxOpenFor bounds the time open, a Retry-After included, open_for to
	// 24h. Default: 2m, or open_for if that is longer.
	MaxOpenFor time.Duration `yaml:"max_open_for"`
	// OpenJitter takes a random share of up to so much off the time open, to
	// keep replicas from probing in step, 0 to 1, or -1 for none. Default: 0.2.
	OpenJitter float64 `yaml:"open_jitter"`
	// HalfOpenCalls is how many probes in a row must be good for the breaker
	// to close, 1 to 1000. Default: 3.
	HalfOpenCalls int `yaml:"half_open_calls"`
	// HalfOpenConcurrent is how many probes may run at once, 1 to 1000.
	// Default: 1.
	HalfOpenConcurrent int `yaml:"half_open_concurrent"`
	// ProbeTimeout is how long a probe may run before it counts as failed,
	// whether or not it ever returns, 100ms to 48h. Default: the target's
	// timeout + 5s; 15s for a breaker without a target.
	ProbeTimeout time.Duration `yaml:"probe_timeout"`
	// ProbePriority says whose jobs the probes are in a pool with several
	// priorities: highest (as always, the most important first) or lowest. With
	// lowest a probe that fails costs no important job an attempt; the others
	// probe if the lower ones have no jobs, after a quarter of a second each. Not
	// while a fallback stands in: then none waits for the probes. Default: highest.
	ProbePriority ProbePriority `yaml:"probe_priority"`
	// Throttled says what a throttled call is: rate (a failure for
	// failure_rate but not for consecutive_failures), failure, or ignore.
	// Default: rate.
	Throttled ThrottledAs `yaml:"throttled"`
}

// ProbePriority is whose jobs are probes: highest or lowest.
type ProbePriority string

// The jobs that probe.
const (
	ProbeHighest ProbePriority = "highest"
	ProbeLowest  ProbePriority = "lowest"
)

// ThrottledAs is what a throttled call counts as: rate, failure or ignore.
type ThrottledAs string

// The meanings of a throttled call.
const (
	ThrottledRate    ThrottledAs = "rate"
	ThrottledFailure ThrottledAs = "failure"
	ThrottledIgnore  ThrottledAs = "ignore"
)

// off spells "not this one" where zero means default.
const off = -1

// WithDefaults fills in what was not said.
func (c Config) WithDefaults() Config {
	setDefault(&c.FailureRate, 0.5)
	setDefault(&c.MinCalls, 20)
	setDefault(&c.ConsecutiveFailures, 5)
	setDefault(&c.Window, 30*time.Second)
	setDefault(&c.SlowCallRate, 1)
	setDefault(&c.OpenFor, 5*time.Second)
	setDefault(&c.OpenMultiplier, 1.5)
	setDefault(&c.MaxOpenFor, max(2*time.Minute, c.OpenFor))
	setDefault(&c.OpenJitter, 0.2)
	setDefault(&c.HalfOpenCalls, 3)
	setDefault(&c.HalfOpenConcurrent, 1)
	setDefault(&c.ProbeTimeout, 15*time.Second)
	setDefault(&c.ProbePriority, ProbeHighest)
	setDefault(&c.Throttled, ThrottledRate)
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
	report("failure_rate", outside(c.FailureRate, 0.001, 1))
	report("min_calls", outside(c.MinCalls, 1, 100_000))
	report("consecutive_failures", outsideOrOff(c.ConsecutiveFailures, 1, 100_000))
	report("window", outside(c.Window, time.Second, time.Hour))
	report("window_calls", outside(c.WindowCalls, 0, 100_000))
	report("slow_call", outside(c.SlowCall, 0, 24*time.Hour))
	report("slow_call_rate", outsideOrOff(c.SlowCallRate, 0.001, 1))
	report("open_for", outside(c.OpenFor, 100*time.Millisecond, time.Hour))
	report("open_multiplier", outside(c.OpenMultiplier, 1, 100))
	report("max_open_for", outside(c.MaxOpenFor, c.OpenFor, 24*time.Hour))
	report("open_jitter", outsideOrOff(c.OpenJitter, 0, 1))
	report("half_open_calls", outside(c.HalfOpenCalls, 1, 1000))
	report("half_open_concurrent", outside(c.HalfOpenConcurrent, 1, 1000))
	report("probe_timeout", outside(c.ProbeTimeout, 100*time.Millisecond, 48*time.Hour))
	switch c.ProbePriority {
	case ProbeHighest, ProbeLowest:
	default:
		problem("probe_priority", fmt.Sprintf("%q is not allowed, use highest or lowest", c.ProbePriority))
	}
	switch c.Throttled {
	case ThrottledRate, ThrottledFailure, ThrottledIgnore:
	default:
		problem("throttled", fmt.Sprintf("%q is not allowed, use rate, failure or ignore", c.Throttled))
	}
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

func outsideOrOff[T int | float64](v, low, high T) string {
	message := outside(v, low, high)
	if v == off || message == "" {
		return ""
	}
	return message + ", or -1 for off"
}

// rules is a Config made ready for comparing. A value out of range becomes
// the nearest one that cannot wedge a breaker; reporting it is Validate's part.
type rules struct {
	Config
	failureRate int           // per mille
	slowRate    int           // per mille, more than 1000 if off
	consecutive int           // MaxInt if off
	minCalls    int           // never more than a count window holds
	slowCall    time.Duration // MaxInt64 if off
}

func newRules(c Config) rules {
	c = c.WithDefaults()
	c.HalfOpenCalls = max(1, c.HalfOpenCalls)
	c.HalfOpenConcurrent = max(1, c.HalfOpenConcurrent)
	c.OpenFor = max(1, c.OpenFor)
	c.MaxOpenFor = max(c.OpenFor, c.MaxOpenFor)
	c.ProbeTimeout = max(1, c.ProbeTimeout)
	c.OpenJitter = min(1, max(0, c.OpenJitter))
	c.Window = max(buckets, c.Window)
	r := rules{
		Config:      c,
		failureRate: perMille(c.FailureRate),
		slowRate:    perMille(c.SlowCallRate),
		consecutive: c.ConsecutiveFailures,
		minCalls:    max(1, c.MinCalls),
		slowCall:    c.SlowCall,
	}
	if c.WindowCalls > 0 {
		r.minCalls = min(r.minCalls, c.WindowCalls)
	}
	if c.ConsecutiveFailures < 1 {
		r.consecutive = math.MaxInt
	}
	if c.SlowCall <= 0 || c.SlowCallRate < 0 {
		r.slowCall, r.slowRate = math.MaxInt64, 1001
	}
	return r
}

// perMille rounds to the nearest, and never to nothing.
func perMille(rate float64) int {
	return max(1, int(rate*1000+0.5))
}

// reached reports whether part of total is at least so many per mille.
func reached(part, total, perMille int) bool {
	return part*1000 >= perMille*total
}
