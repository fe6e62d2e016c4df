package pool

import (
	"context"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// Core takes the jobs of a pool from core NATS, which keeps nothing: a job is
// done at most once, and lost if this process ends before it is done. Who
// wants a reply gets one: empty when the job is done, an error otherwise, and
// at once when there is no room (429).
type Core struct {
	// Subject to subscribe to. Wildcards are allowed. Required.
	Subject string `yaml:"subject"`
	// Queue group: each message goes to one member of it. Default: workerd.
	Queue string `yaml:"queue"`
	// Capacity is how many messages may wait for a permit in this process.
	// 1 to 1000000. Default: 1000.
	Capacity int `yaml:"capacity"`
	// MaxBytes is how much the waiting messages may hold together.
	// Default: 64MiB.
	MaxBytes int64 `yaml:"max_bytes" unit:"size"`
	// MaxWait is how long a message may wait while there are more than can be
	// done; from half of it on the newest goes first. 1ms to 1h. Default: 1s.
	MaxWait time.Duration `yaml:"max_wait"`
}

// WithDefaults fills in what was not said.
func (c Core) WithDefaults() Core {
	setDefault(&c.Queue, "workerd")
	setDefault(&c.Capacity, 1000)
	setDefault(&c.MaxBytes, 64<<20)
	setDefault(&c.MaxWait, time.Second)
	return c
}

// Validate reports every problem. The subject itself is checked elsewhere.
func (c Core) Validate(problem func(field, message string)) {
	report := func(field, message string) {
		if message != "" {
			problem(field, message)
		}
	}
	if c.Subject == "" {
		problem("subject", "core needs a subject")
	}
	report("capacity", outside(c.Capacity, 1, 1_000_000))
	report("max_bytes", outside(c.MaxBytes, 1, 1<<40))
	report("max_wait", outside(c.MaxWait, time.Millisecond, time.Hour))
}

// NoLedger remembers nothing: a job of core NATS comes once.
type NoLedger struct{}

// Load implements Ledger.
func (NoLedger) Load(context.Context, *job.Job) job.Record { return job.Record{} }

// Save implements Ledger.
func (NoLedger) Save(context.Context, *job.Job, job.Record) {}

// Add implements Ledger.
func (NoLedger) Add(_ context.Context, _ *job.Job, since job.Record) job.Record { return since }

// Forget implements Ledger.
func (NoLedger) Forget(context.Context, *job.Job) {}
