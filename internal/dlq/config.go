package dlq

import (
	"fmt"
	"time"

	"github.com/workerd/workerd/internal/queue"
)

// Config of the dead-letter stream, which is created if it is absent.
type Config struct {
	// Stream that keeps dead letters. Default: WORKERD_DLQ.
	Stream string `yaml:"stream"`
	// Subject prefix; a pool's dead letters go to <subject>.<pool>.
	// Default: workerd.dlq.
	Subject string `yaml:"subject"`
	// MaxAge of a dead letter. Default: 336h (14 days).
	MaxAge time.Duration `yaml:"max_age"`
	// MaxBytes of all dead letters. A full stream refuses new ones, and their
	// jobs then go back to where they came from. Default: 1GiB.
	MaxBytes int64 `yaml:"max_bytes" unit:"size"`
	// DuplicateWindow within which the same job is taken only once.
	// Default: 1h.
	DuplicateWindow time.Duration `yaml:"duplicate_window"`
	// Replicas of the stream, 1 to 5. Default: 1.
	Replicas int `yaml:"replicas"`
}

// WithDefaults fills in what was not said.
func (c Config) WithDefaults() Config {
	if c.Stream == "" {
		c.Stream = "WORKERD_DLQ"
	}
	if c.Subject == "" {
		c.Subject = "workerd.dlq"
	}
	if c.MaxAge == 0 {
		c.MaxAge = 14 * 24 * time.Hour
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 1 << 30
	}
	if c.DuplicateWindow == 0 {
		c.DuplicateWindow = time.Hour
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	return c
}

// Validate reports every problem.
func (c Config) Validate(problem func(field, message string)) {
	if err := queue.CheckSubject(c.Subject); err != nil {
		problem("subject", err.Error())
	}
	if c.MaxAge < time.Minute {
		problem("max_age", fmt.Sprintf("%s is not allowed, use 1m or more", c.MaxAge))
	}
	if c.MaxBytes < 1<<20 {
		problem("max_bytes", fmt.Sprintf("%d bytes is not allowed, use 1MiB or more", c.MaxBytes))
	}
	if c.DuplicateWindow < time.Second || c.DuplicateWindow > c.MaxAge {
		problem("duplicate_window", fmt.Sprintf("%s is not allowed, use 1s to max_age", c.DuplicateWindow))
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		problem("replicas", fmt.Sprintf("%d is not allowed, use 1 to 5", c.Replicas))
	}
}
