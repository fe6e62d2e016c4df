package config

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/attempts"
	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/cache"
	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/hedge"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/pressure"
	"github.com/workerd/workerd/internal/probe"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/retry"
	"github.com/workerd/workerd/internal/shed"
	"github.com/workerd/workerd/internal/target/httptarget"
)

// File is the whole configuration. One made by [Load] has every default
// filled in and is valid. It is data: nobody writes to it after that.
type File struct {
	// NATS says how to reach the broker.
	NATS queue.Config `yaml:"nats"`
	// Streams that are created if they are absent, by name. A pool may also
	// use a stream that somebody else made.
	Streams map[string]queue.StreamConfig `yaml:"streams"`
	// Targets are the downstream systems, by name. Each has a breaker and a
	// retry budget of its own.
	Targets map[string]TargetConfig `yaml:"targets"`
	// Pools are the bulkheads, by name: what runs in one cannot starve
	// another. At least one is required.
	Pools map[string]pool.Config `yaml:"pools"`
	// Shed says how much of a pool each priority may fill.
	Shed shed.Config `yaml:"shed"`
	// Pressure lets fewer jobs run while the process is short of CPU or memory.
	Pressure pressure.Config `yaml:"pressure"`
	// Cache holds the last replies of targets, for the fallbacks that use them.
	Cache cache.Config `yaml:"cache"`
	// DLQ is the stream of dead letters.
	DLQ dlq.Config `yaml:"dlq"`
	// Attempts is where failed attempts are counted.
	Attempts attempts.Config `yaml:"attempts"`
	// Drain says how workerd stops.
	Drain DrainConfig `yaml:"drain"`
	// Admin is the listener for the status page, health, metrics and controls.
	Admin admin.Config `yaml:"admin"`
	// Log says what is written to stderr.
	Log LogConfig `yaml:"log"`

	// hidden are the paths whose values came from ${file:…} or ${cred:…}.
	// They are secrets to [Show], whatever their type.
	hidden map[string]bool
}

// TargetConfig is a downstream system and how it is called. Exactly one
// protocol is required.
type TargetConfig struct {
	// HTTP calls an HTTP endpoint for each job.
	HTTP *httptarget.Config `yaml:"http"`
	// Timeout of one call, from the connection to the last byte of the
	// answer, 1ms to 1h. Default: 10s.
	Timeout time.Duration `yaml:"timeout"`
	// Retry within an attempt, before the job goes back to its stream.
	Retry retry.Config `yaml:"retry"`
	// Breaker stops calling a target that fails.
	Breaker breaker.Config `yaml:"breaker"`
	// Probe asks the target whether it is well again while the breaker is open,
	// so that no job has to be spent on it. For http targets. Default: the first
	// job does.
	Probe *probe.Config `yaml:"probe"`
	// Concurrency bounds the calls at once, of all pools together, by what the
	// target can take.
	Concurrency limiter.Config `yaml:"concurrency"`
	// RateLimit bounds the calls per time, of this process.
	RateLimit limiter.Rate `yaml:"rate_limit"`
	// Idempotent says that the same job may be sent twice at the same time and is
	// done once, by its Idempotency-Key. Hedging requires it. Default: false.
	Idempotent bool `yaml:"idempotent"`
	// Hedge makes a second call of the same try where the first is late, and takes
	// the first success. Default: off; {} is on with its defaults.
	Hedge *hedge.Config `yaml:"hedge"`
	// Fallback is what is done with a job that this target did not do, in this
	// order until one of the steps has done it. At most 8. Default: the job
	// waits or is tried again.
	Fallback []fallback.Step `yaml:"fallback"`
	// DegradeWhen leads all jobs straight to the fallback while the target is not
	// well, without calling it. Default: off, as `workerd degrade` and an open
	// breaker do.
	DegradeWhen *fallback.When `yaml:"degrade_when"`
}

// DrainConfig says how workerd stops after SIGTERM.
type DrainConfig struct {
	// Timeout of the whole drain. Jobs in flight may finish until
	// flush_timeout before its end; then they are interrupted and handed
	// back. Stay below the grace period of the supervisor (Kubernetes: 30s).
	// 1s to 24h. Default: 25s.
	Timeout time.Duration `yaml:"timeout"`
	// FlushTimeout is the end of timeout that is kept for confirming acks and
	// dead letters, 100ms up to timeout. Default: 3s, or a quarter of timeout
	// if that is less.
	FlushTimeout time.Duration `yaml:"flush_timeout"`
	// PreStopDelay is how long work goes on after readiness is off, for load
	// balancers in front of the admin listener, 0 to 5m. It comes on top of
	// timeout. Default: 0.
	PreStopDelay time.Duration `yaml:"pre_stop_delay"`
}

// LogConfig says what is written to stderr.
type LogConfig struct {
	// Level from which on lines are written: debug, info, warn or error.
	// Default: info.
	Level string `yaml:"level"`
	// Format of a line: text, json or auto, which is text on a terminal and
	// json otherwise. Default: auto.
	Format string `yaml:"format"`
	// Job says which jobs have a line of their own: all, retry (those whose
	// attempt failed, and dead letters), dead (dead letters) or none.
	// Default: retry.
	Job string `yaml:"job"`
}

// WithDefaults fills in what was not said, in every part, also what depends
// on another part: a pool's job_timeout.
func (f File) WithDefaults() File {
	f.NATS = f.NATS.WithDefaults()
	f.Streams = each(f.Streams, queue.StreamConfig.WithDefaults)
	f.Targets = each(f.Targets, TargetConfig.WithDefaults)
	f.Pools = each(f.Pools, func(p pool.Config) pool.Config {
		p = p.WithDefaults()
		if p.JobTimeout == 0 {
			p.JobTimeout = f.jobTimeoutOf(p)
		}
		return p
	})
	f.Shed = f.Shed.WithDefaults()
	f.Pressure = f.Pressure.WithDefaults()
	f.Cache = f.Cache.WithDefaults()
	f.DLQ = f.DLQ.WithDefaults()
	f.Attempts = f.Attempts.WithDefaults()
	f.Drain = f.Drain.WithDefaults()
	f.Admin = f.Admin.WithDefaults()
	f.Log = f.Log.WithDefaults()
	return f
}

// each applies a function to every value of a map, giving a new map.
func each[T any](m map[string]T, change func(T) T) map[string]T {
	if m == nil {
		return nil
	}
	changed := make(map[string]T, len(m))
	for name, v := range m {
		changed[name] = change(v)
	}
	return changed
}

// WithDefaults fills in what was not said. The breaker's slow_call and
// probe_timeout follow the timeout.
func (c TargetConfig) WithDefaults() TargetConfig {
	setDefault(&c.Timeout, 10*time.Second)
	if c.HTTP != nil {
		http := c.HTTP.WithDefaults()
		c.HTTP = &http
	}
	c.Retry = c.Retry.WithDefaults()
	setDefault(&c.Breaker.SlowCall, c.Timeout/5*4)
	setDefault(&c.Breaker.ProbeTimeout, c.Timeout+5*time.Second)
	c.Breaker = c.Breaker.WithDefaults()
	if c.Probe != nil {
		p := c.Probe.WithDefaults(c.Timeout)
		c.Probe = &p
	}
	c.Concurrency = c.Concurrency.WithDefaults()
	c.RateLimit = c.RateLimit.WithDefaults()
	if c.Hedge != nil {
		h := c.Hedge.WithDefaults()
		c.Hedge = &h
	}
	c.Fallback = slices.Clone(c.Fallback)
	for i, s := range c.Fallback {
		c.Fallback[i] = s.WithDefaults()
	}
	if c.DegradeWhen != nil {
		w := c.DegradeWhen.WithDefaults()
		c.DegradeWhen = &w
		if w.Unhealthy > 0 && c.Probe != nil && c.Probe.Interval == 0 { // it is asked at that pace anyway
			c.Probe.Interval = min(w.Interval, c.Breaker.MaxOpenFor)
		}
	}
	return c
}

// jobTimeoutOf is enough for each of the targets of a pool.
func (f File) jobTimeoutOf(p pool.Config) (enough time.Duration) {
	for _, name := range p.Targets() {
		if t, ok := f.Targets[name]; ok {
			enough = max(enough, f.jobTimeout(t))
		}
	}
	return enough
}

// jobTimeout is enough for all calls to a target and to its fallback.
func (f File) jobTimeout(t TargetConfig) time.Duration {
	total := t.jobTimeout()
	for _, s := range t.Fallback {
		if other := f.Targets[s.Target]; s.Target != "" {
			total += s.TimeoutOr(other.Timeout)
		}
	}
	return min(total, longestJob)
}

// longestJob is the longest job_timeout.
const longestJob = 24 * time.Hour

// jobTimeout is enough for all calls of an attempt and the longest waits
// between them, rounded up to seconds.
func (c TargetConfig) jobTimeout() time.Duration {
	total := float64(c.Retry.MaxAttempts) * float64(c.Timeout)
	wait := float64(c.Retry.InitialBackoff)
	for range min(c.Retry.MaxAttempts-1, 1000) {
		total += min(wait, float64(c.Retry.MaxBackoff))
		wait *= max(1, c.Retry.Multiplier)
	}
	if total >= float64(longestJob) {
		return longestJob
	}
	return time.Duration(math.Ceil(total/float64(time.Second))) * time.Second
}

// Validate reports every problem but the lack of a protocol.
func (c TargetConfig) Validate(problem func(field, message string)) {
	within(problem, "timeout", c.Timeout, bounds{time.Millisecond, time.Hour})
	if c.HTTP != nil {
		c.HTTP.Validate(prefixed(problem, "http"))
	}
	c.Retry.Validate(prefixed(problem, "retry"))
	c.Breaker.Validate(prefixed(problem, "breaker"))
	if c.Probe != nil {
		c.Probe.Validate(c.Breaker.MaxOpenFor, c.Breaker.ProbeTimeout, prefixed(problem, "probe"))
		if c.HTTP == nil {
			problem("probe", "is for http targets only, as it asks for a path by GET; remove it, and jobs probe")
		}
	}
	c.Concurrency.Validate(prefixed(problem, "concurrency"))
	c.RateLimit.Validate(prefixed(problem, "rate_limit"))
	c.validateHedge(problem)
	for i, s := range c.Fallback {
		s.Validate(prefixed(problem, fmt.Sprintf("fallback[%d]", i)))
	}
	if len(c.Fallback) > fallback.MaxSteps {
		problem("fallback", fmt.Sprintf("%d steps are not allowed, use at most %d", len(c.Fallback), fallback.MaxSteps))
	}
	c.validateDegradeWhen(problem)
}

func (c TargetConfig) validateDegradeWhen(problem func(field, message string)) {
	w := c.DegradeWhen
	if w == nil {
		return
	}
	w.Validate(prefixed(problem, "degrade_when"))
	if !fallback.CanStandIn(c.Fallback) {
		problem("degrade_when", "leads nowhere: fallback has no step for a target that is not called (on: [open]); add one")
	}
	if w.Unhealthy > 0 && c.Probe == nil {
		problem("degrade_when.unhealthy", "counts health checks, and there are none; say which path is asked for, for example probe: /healthz")
	}
}

func (c TargetConfig) validateHedge(problem func(field, message string)) {
	if c.Hedge == nil {
		return
	}
	c.Hedge.Validate(c.Timeout, prefixed(problem, "hedge"))
	if !c.Idempotent {
		problem("hedge", "is not allowed for a target that is not idempotent: the same job is sent twice at once; if it is then done once, say idempotent: true")
	}
}

// callsPerTry is how many calls one try may cost.
func (c TargetConfig) callsPerTry() int {
	if c.Hedge != nil {
		return 2
	}
	return 1
}

// protocols counts the protocols that are given.
func (c TargetConfig) protocols() (n int) {
	if c.HTTP != nil {
		n++
	}
	return n
}

// WithDefaults fills in what was not said.
func (c DrainConfig) WithDefaults() DrainConfig {
	setDefault(&c.Timeout, 25*time.Second)
	setDefault(&c.FlushTimeout, min(3*time.Second, c.Timeout/4))
	return c
}

// Validate reports every problem.
func (c DrainConfig) Validate(problem func(field, message string)) {
	within(problem, "timeout", c.Timeout, bounds{time.Second, 24 * time.Hour})
	within(problem, "flush_timeout", c.FlushTimeout, bounds{100 * time.Millisecond, max(c.Timeout, 100*time.Millisecond)})
	within(problem, "pre_stop_delay", c.PreStopDelay, bounds{0, 5 * time.Minute})
}

// WithDefaults fills in what was not said.
func (c LogConfig) WithDefaults() LogConfig {
	setDefault(&c.Level, "info")
	setDefault(&c.Format, "auto")
	setDefault(&c.Job, "retry")
	return c
}

// Validate reports every problem.
func (c LogConfig) Validate(problem func(field, message string)) {
	oneOf(problem, "level", c.Level, []string{"debug", "info", "warn", "error"})
	oneOf(problem, "format", c.Format, []string{"auto", "text", "json"})
	oneOf(problem, "job", c.Job, []string{"all", "retry", "dead", "none"})
}
