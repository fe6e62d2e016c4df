package pool

import (
	"fmt"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/valve"
)

// Config of one pool.
type Config struct {
	// Target the jobs are sent to, all that no route names. Required.
	Target string `yaml:"target"`
	// Routes send jobs to other targets, by the subject they were published to; the
	// first that matches counts. One target that is down does not stop the jobs of
	// the others: its own are set aside until it is back. At most 100, and a stream
	// is needed. Default: none.
	Routes []Route `yaml:"routes"`
	// Stream the jobs lie in. Required, unless core is given.
	Stream string `yaml:"stream"`
	// Subjects by priority (critical, high, normal, low). Each priority has a
	// durable consumer of its own, named <pool>-<priority>, so that a low
	// priority can wait in the stream while a high one runs. Required, unless
	// core is given.
	Subjects map[string][]string `yaml:"subjects"`
	// Core takes the jobs from core NATS instead of a stream: without stream
	// and subjects, and without their promises.
	Core *Core `yaml:"core"`
	// Priorities says, by priority, what happens when there is not enough room.
	Priorities map[string]Priority `yaml:"priorities"`
	// TrustPriority lets the header Workerd-Priority raise a job above the
	// priority of its subject within the pool. It may always lower it.
	// Default: false.
	TrustPriority bool `yaml:"trust_priority"`
	// Concurrency is how many jobs of the pool run at once in this process,
	// 1 to 10000. Default: 16.
	Concurrency int `yaml:"concurrency"`
	// Prefetch is how many jobs may be held beyond the running ones. More
	// hides the network for jobs shorter than a millisecond; each held job
	// is one that no other replica can take. 0 to 10000. Default: 0.
	Prefetch int `yaml:"prefetch"`
	// JobTimeout bounds a job as a whole, calls and waits between them
	// included. Default: enough for all calls of an attempt, from the
	// target's timeout and retry.
	JobTimeout time.Duration `yaml:"job_timeout"`
	// AckWait is how long NATS waits for a sign of life before it gives the
	// job to another replica; a running job gives one every third of it. It
	// bounds how long the jobs of a killed worker wait. 1s to 1h. Default: 30s.
	AckWait time.Duration `yaml:"ack_wait"`
	// MaxMessage is the largest payload taken; a larger job is dead-lettered.
	// Default: 8MiB.
	MaxMessage int64 `yaml:"max_message" unit:"size"`
	// MaxPark is how long a job in hand may wait for its target to come back
	// before it is given back to the stream, uncharged. Default: 30s.
	MaxPark time.Duration `yaml:"max_park"`
	// Fairness says how tenants share the pool. It holds up to 1000 more jobs in
	// hand: twice the concurrency, at least 32.
	Fairness Fairness `yaml:"fairness"`
	// Redelivery says what happens when an attempt failed.
	Redelivery Redelivery `yaml:"redelivery"`
	// Valve pauses the pool when too many of its last jobs became dead letters
	// because the target says they can never succeed.
	Valve valve.Config `yaml:"valve"`
	// Results says to whom the results of jobs may be sent.
	Results Results `yaml:"results"`
	// OnExpired: dead_letter or drop a job whose deadline passed before it
	// could start. Default: dead_letter.
	OnExpired string `yaml:"on_expired"`
}

// Redelivery is the slow tier of retrying: the job goes back to NATS with a
// delay and any replica takes it. See also retry in targets.
type Redelivery struct {
	// MaxAttempts that may fail before the job is dead-lettered. Deliveries
	// that did not run the job do not count, and a probe that finds a target still
	// down is never the last: no job dies of an outage alone, before its max_age. 1 to
	// 1000. Default: 10.
	MaxAttempts int `yaml:"max_attempts"`
	// InitialBackoff before the second attempt. Default: 5s.
	InitialBackoff time.Duration `yaml:"initial_backoff"`
	// MaxBackoff between two attempts. Default: 10m.
	MaxBackoff time.Duration `yaml:"max_backoff"`
	// Multiplier of the backoff from attempt to attempt, 1 or more. Default: 3.
	Multiplier float64 `yaml:"multiplier"`
	// MaxAge of a job, from publication. An older one is not run any more: it
	// is dead-lettered, as is one that would be older at its next attempt. Set
	// it longer than the longest outage of a target you want to sit out.
	// 1s to 365d. Default: 24h.
	MaxAge time.Duration `yaml:"max_age"`
	// MaxDeferrals is how often a job may come back uncharged after a delay, because
	// it was throttled, its target held, or its dead letter or result could not be
	// stored. Then it is dead-lettered, but only when it is throttled once more, or
	// when a fallback fails while the target is not called; other jobs that come back
	// end by max_age. 1 to 1000000. Default: 1000.
	MaxDeferrals int `yaml:"max_deferrals"`
	// MaxCrashes is how many workers may die while they run a job, and how
	// often it may panic our own code, before it is dead-lettered as poison
	// without being run again. 1 to 100. Default: 3.
	MaxCrashes int `yaml:"max_crashes"`
}

// WithDefaults fills in what was not said, job_timeout excepted: that needs
// the target.
func (c Config) WithDefaults() Config {
	setDefault(&c.Concurrency, 16)
	setDefault(&c.AckWait, 30*time.Second)
	setDefault(&c.MaxMessage, 8<<20)
	setDefault(&c.MaxPark, 30*time.Second)
	setDefault(&c.OnExpired, "dead_letter")
	c.Priorities = c.withPriorities()
	if c.Core != nil {
		core := c.Core.WithDefaults()
		c.Core = &core
	}
	r := &c.Redelivery
	setDefault(&r.MaxAttempts, 10)
	setDefault(&r.InitialBackoff, 5*time.Second)
	setDefault(&r.MaxBackoff, 10*time.Minute)
	setDefault(&r.Multiplier, 3)
	setDefault(&r.MaxAge, 24*time.Hour)
	setDefault(&r.MaxDeferrals, 1000)
	setDefault(&r.MaxCrashes, 3)
	c.Fairness = c.Fairness.WithDefaults()
	c.Valve = c.Valve.WithDefaults()
	c.Results = c.Results.WithDefaults()
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports every problem. Subjects themselves are checked by the queue.
func (c Config) Validate(problem func(field, message string)) {
	report := func(field, message string) {
		if message != "" {
			problem(field, message)
		}
	}
	if c.Target == "" {
		problem("target", "a pool needs a target")
	}
	c.validateIntake(problem)
	c.validateRoutes(problem)
	for name, subjects := range c.Subjects {
		if _, err := job.ParsePriority(name); err != nil {
			problem("subjects."+name, err.Error())
		}
		if len(subjects) == 0 {
			problem("subjects."+name, "a priority needs at least one subject")
		}
	}
	c.validatePriorities(problem)
	report("concurrency", outside(c.Concurrency, 1, 10000))
	report("prefetch", outside(c.Prefetch, 0, 10000))
	report("ack_wait", outside(c.AckWait, time.Second, time.Hour))
	report("max_message", outside(c.MaxMessage, 1, 64<<20))
	report("max_park", outside(c.MaxPark, time.Second, time.Hour))
	report("job_timeout", outside(c.JobTimeout, 0, 24*time.Hour))
	if c.OnExpired != "dead_letter" && c.OnExpired != "drop" {
		problem("on_expired", fmt.Sprintf("%q is not allowed, use dead_letter or drop", c.OnExpired))
	}
	r := c.Redelivery
	report("redelivery.max_attempts", outside(r.MaxAttempts, 1, 1000))
	report("redelivery.initial_backoff", outside(r.InitialBackoff, time.Millisecond, time.Hour))
	report("redelivery.max_backoff", outside(r.MaxBackoff, r.InitialBackoff, 24*time.Hour))
	report("redelivery.multiplier", outside(r.Multiplier, 1, 100))
	report("redelivery.max_age", outside(r.MaxAge, time.Second, 365*24*time.Hour))
	report("redelivery.max_deferrals", outside(r.MaxDeferrals, 1, 1_000_000))
	report("redelivery.max_crashes", outside(r.MaxCrashes, 1, 100))
	c.Results.Validate(func(field, message string) { problem("results."+field, message) })
	c.Fairness.Validate(func(field, message string) { problem("fairness."+field, message) })
	c.Valve.Validate(func(field, message string) { problem("valve."+field, message) })
}

// validateIntake: a stream with subjects, or core NATS.
func (c Config) validateIntake(problem func(field, message string)) {
	switch {
	case c.Core != nil && (c.Stream != "" || len(c.Subjects) > 0):
		problem("core", "a pool has either core or stream and subjects, not both")
	case c.Core == nil && c.Stream == "":
		problem("stream", "a pool needs a stream")
	}
	if c.Core != nil && c.Fairness.By == fairByKey {
		problem("fairness.by", "core NATS keeps no jobs to give back; fairness needs a stream")
	}
	if c.Core != nil {
		c.Core.Validate(func(field, message string) { problem("core."+field, message) })
	} else if len(c.Subjects) == 0 {
		problem("subjects", "a pool needs subjects, for example {normal: [jobs.email.>]}")
	}
}

// Uses tells whether the pool has jobs of a priority. Those of core NATS are
// normal, until they say otherwise themselves.
func (c Config) Uses(p job.Priority) bool {
	if c.Core != nil {
		return p == job.Normal
	}
	return len(c.Subjects[p.String()]) > 0
}

// outside says what is wrong with v, "" if nothing is. It is written so that
// NaN is outside of every range.
func outside[T int | int64 | float64 | time.Duration](v, low, high T) string {
	if v >= low && v <= high {
		return ""
	}
	return fmt.Sprintf("%v is not allowed, use %v to %v", v, low, high)
}
