package cache

import (
	"cmp"
	"fmt"
)

// Config of the cache of replies that fallbacks use. All targets share it.
type Config struct {
	// MaxEntries kept, 1 to 1000000. Default: 10000.
	MaxEntries int `yaml:"max_entries"`
	// MaxBytes of all entries together, 64KiB to 16GiB. Default: 64MiB.
	MaxBytes int64 `yaml:"max_bytes" unit:"size"`
	// MaxEntry is the largest reply that is kept, 1B to 64MiB. Default: 256KiB.
	MaxEntry int64 `yaml:"max_entry" unit:"size"`
}

// WithDefaults fills in what was not said.
func (c Config) WithDefaults() Config {
	c.MaxEntries = cmp.Or(c.MaxEntries, 10_000)
	c.MaxBytes = cmp.Or(c.MaxBytes, 64<<20)
	c.MaxEntry = cmp.Or(c.MaxEntry, 256<<10)
	return c
}

// Validate reports every problem.
func (c Config) Validate(problem func(field, message string)) {
	if c.MaxEntries < 1 || c.MaxEntries > 1_000_000 {
		problem("max_entries", fmt.Sprintf("%d is not allowed, use 1 to 1000000", c.MaxEntries))
	}
	if c.MaxBytes < 64<<10 || c.MaxBytes > 16<<30 {
		problem("max_bytes", fmt.Sprintf("%d bytes are not allowed, use 64KiB to 16GiB", c.MaxBytes))
	}
	if c.MaxEntry < 1 || c.MaxEntry > 64<<20 {
		problem("max_entry", fmt.Sprintf("%d bytes are not allowed, use 1B to 64MiB", c.MaxEntry))
	}
}
