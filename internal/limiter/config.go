package limiter

import (
	"fmt"
	"time"
)

// Config bounds the calls a target gets at once, from all pools together.
type Config struct {
	// Limit is how the bound is found: fixed (max), aimd (sinks when the target
	// throttles or times out, rises slowly while it is used) or gradient (also
	// sinks when calls take longer than usual; for jobs that are alike).
	// Default: aimd.
	Limit Mode `yaml:"limit"`
	// Min is the least the bound sinks to, 1 to 10000. Default: 1.
	Min int `yaml:"min"`
	// Max is the most, and where it begins, 1 to 100000. Default: the sum of
	// the concurrency of the pools that use the target.
	Max int `yaml:"max"`
	// RampInterval is the least time between two steps (1, 2, 4, … calls at
	// once) after an outage; each also takes as many calls as the step before
	// allowed at once. 1ms (next to no ramp) to 1m. Default: 100ms.
	RampInterval time.Duration `yaml:"ramp_interval"`
}

// Mode is how the limit is found: fixed, aimd or gradient.
type Mode string

// The modes.
const (
	Fixed    Mode = "fixed"
	AIMD     Mode = "aimd"
	Gradient Mode = "gradient"
)

// Rate bounds the calls a target gets per time.
type Rate struct {
	// Rate is how many calls may begin per time, 0.001 to 1000000. Default: no
	// bound.
	Rate float64 `yaml:"rate"`
	// Per is that time, 1ms to 24h. Default: 1s.
	Per time.Duration `yaml:"per"`
	// Burst is how many may begin at once after a pause, 1 to 100000. Default:
	// rate, at least 1.
	Burst int `yaml:"burst"`
}

// WithDefaults fills in what was not said, max excepted: that needs the pools.
func (c Config) WithDefaults() Config {
	setDefault(&c.Limit, AIMD)
	setDefault(&c.Min, 1)
	setDefault(&c.RampInterval, 100*time.Millisecond)
	return c
}

// WithDefaults fills in what was not said.
func (r Rate) WithDefaults() Rate {
	setDefault(&r.Per, time.Second)
	if r.Rate > 0 {
		setDefault(&r.Burst, int(min(max(1, r.Rate), maxBurst)))
	}
	return r
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

const maxBurst = 100_000

// Validate reports every problem of a config with its defaults filled in.
func (c Config) Validate(problem func(field, message string)) {
	switch c.Limit {
	case Fixed, AIMD, Gradient:
	default:
		problem("limit", fmt.Sprintf("%q is not allowed, use fixed, aimd or gradient", c.Limit))
	}
	if c.Min < 1 || c.Min > 10_000 {
		problem("min", fmt.Sprintf("%d is not allowed, use 1 to 10000", c.Min))
	}
	if c.Max != 0 && (c.Max < max(1, c.Min) || c.Max > 100_000) {
		problem("max", fmt.Sprintf("%d is not allowed, use min to 100000", c.Max))
	}
	if c.RampInterval < time.Millisecond || c.RampInterval > time.Minute {
		problem("ramp_interval", fmt.Sprintf("%s is not allowed, use 1ms to 1m", c.RampInterval))
	}
}

// Validate reports every problem of a rate with its defaults filled in.
func (r Rate) Validate(problem func(field, message string)) {
	if r.Per < time.Millisecond || r.Per > 24*time.Hour {
		problem("per", fmt.Sprintf("%s is not allowed, use 1ms to 24h", r.Per))
	}
	switch {
	case r.Rate == 0 && r.Burst != 0:
		problem("burst", "burst needs rate")
	case r.Rate == 0:
		return // no bound
	case !(r.Rate >= 0.001 && r.Rate <= 1_000_000): // NaN is neither
		problem("rate", fmt.Sprintf("%v is not allowed, use 0.001 to 1000000", r.Rate))
	}
	if r.Rate != 0 && (r.Burst < 1 || r.Burst > maxBurst) {
		problem("burst", fmt.Sprintf("%d is not allowed, use 1 to 100000", r.Burst))
	}
}
