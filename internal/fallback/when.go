package fallback

import (
	"cmp"
	"fmt"
	"time"
)

// When says what leads the jobs of a target straight to its fallback without
// anybody's word. At least one of unhealthy and fallback_rate is given.
type When struct {
	// Unhealthy is after how many health checks (the target's `probe`) in a row
	// that were not good the target is not called any more, 1 to 100. It is asked
	// all the time then, and not only while its breaker is open. Default: 0, off.
	Unhealthy int `yaml:"unhealthy"`
	// Healthy is after how many good ones in a row it is called again, 1 to 100.
	// Default: 2.
	Healthy int `yaml:"healthy"`
	// Interval of the health checks, less up to a fifth by chance, 500ms to 10m.
	// Default: 5s.
	Interval time.Duration `yaml:"interval"`
	// FallbackRate is at which share of the jobs that the target was called for,
	// and that needed the fallback all the same, it is not called for a while, 0
	// to 1. Default: 0, off.
	FallbackRate float64 `yaml:"fallback_rate"`
	// MinJobs in the window, below which the share says nothing, 1 to 10000.
	// Default: 20.
	MinJobs int `yaml:"min_jobs"`
	// Window over which the share is taken, 1s to 1h. Default: 1m.
	Window time.Duration `yaml:"window"`
	// For how long the target is not called for its share, 1s to 1h. Then it is
	// tried again, with few calls at first. Default: 30s.
	For time.Duration `yaml:"for"`
}

// WithDefaults fills in what was not said.
func (w When) WithDefaults() When {
	w.Healthy = cmp.Or(w.Healthy, 2)
	w.Interval = cmp.Or(w.Interval, 5*time.Second)
	w.MinJobs = cmp.Or(w.MinJobs, 20)
	w.Window = cmp.Or(w.Window, time.Minute)
	w.For = cmp.Or(w.For, 30*time.Second)
	return w
}

// Validate reports every problem of one with its defaults.
func (w When) Validate(problem func(field, message string)) {
	if w.Unhealthy == 0 && w.FallbackRate == 0 {
		problem("", "says nothing: give unhealthy, fallback_rate or both")
	}
	count := func(field string, n, least, most int) {
		if n < least || n > most {
			problem(field, fmt.Sprintf("%d is not allowed, use %d to %d", n, least, most))
		}
	}
	lasts := func(field string, d, least, most time.Duration) {
		if d < least || d > most {
			problem(field, fmt.Sprintf("%s is not allowed, use %s to %s", d, least, most))
		}
	}
	count("unhealthy", w.Unhealthy, 0, 100)
	count("healthy", w.Healthy, 1, 100)
	lasts("interval", w.Interval, 500*time.Millisecond, 10*time.Minute)
	if !(w.FallbackRate >= 0 && w.FallbackRate <= 1) { // NaN is neither
		problem("fallback_rate", fmt.Sprintf("%v is not allowed, use 0 to 1", w.FallbackRate))
	}
	count("min_jobs", w.MinJobs, 1, 10_000)
	lasts("window", w.Window, time.Second, time.Hour)
	lasts("for", w.For, time.Second, time.Hour)
}
