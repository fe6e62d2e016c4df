package attempts

import (
	"fmt"
	"regexp"
	"time"
)

// Config of the bucket in which failed attempts are counted, so that all
// replicas agree, and a restart changes nothing. It is created if absent.
type Config struct {
	// Bucket is the name of the key-value bucket. Default: WORKERD_ATTEMPTS.
	Bucket string `yaml:"bucket"`
	// TTL of an entry since it was written last; make it longer than
	// max_backoff of every pool. 1m to 365d. Default: 7d.
	TTL time.Duration `yaml:"ttl"`
	// Replicas of the bucket, 1 to 5. Default: 1.
	Replicas int `yaml:"replicas"`
}

// WithDefaults fills in what was not said.
func (c Config) WithDefaults() Config {
	if c.Bucket == "" {
		c.Bucket = "WORKERD_ATTEMPTS"
	}
	if c.TTL == 0 {
		c.TTL = 7 * 24 * time.Hour
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	return c
}

// bucketName is what NATS takes for a bucket.
var bucketName = regexp.MustCompile(`^[-_a-zA-Z0-9]+$`)

// Validate reports every problem.
func (c Config) Validate(problem func(field, message string)) {
	if !bucketName.MatchString(c.Bucket) {
		problem("bucket", fmt.Sprintf("%q is not allowed, use letters, digits, - and _", c.Bucket))
	}
	if c.TTL < time.Minute || c.TTL > 365*24*time.Hour {
		problem("ttl", fmt.Sprintf("%s is not allowed, use 1m to 365d", c.TTL))
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		problem("replicas", fmt.Sprintf("%d is not allowed, use 1 to 5", c.Replicas))
	}
}
