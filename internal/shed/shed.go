// Package shed tells how many more jobs of each priority may start.
//
// It is trunk reservation: a priority and everything below it may together
// fill only their share of the limit, so that there is always room for what is
// more important. With the default shares and all four priorities in use:
//
//	limit 100 ├──────────────── critical and below: 100 ────────────────┤
//	          ├────────────── high and below: 95 ────────────────┤
//	          ├────────── normal and below: 85 ──────────┤
//	          ├───── low: 60 ─────┤
//
// The highest priority a pool uses always has the whole limit, so a pool with
// one priority is not slowed down.
//
// Guarantees:
//  1. A priority and all below it together never start more than their share of
//     the limit, rounded up, and all together never more than the limit.
//  2. The highest priority in use has all that is free.
//  3. Room never grows from a priority to a less important one, so when the
//     limit shrinks, the least important stops first.
//  4. Room never shrinks when the limit grows, and is never negative.
//  5. An idle pool with a limit of at least 1 has room for every priority.
//  6. Nothing is thrown away: a priority without room waits in its stream.
//
// The package has no state. Pulling less is the pool's part.
package shed

import (
	"fmt"
	"maps"

	"github.com/workerd/workerd/internal/job"
)

// Config of shedding, for all pools.
type Config struct {
	// Shares of a pool's concurrency that each priority and those below it may
	// fill, 0 to 1. Defaults: critical 1, high 0.95, normal 0.85, low 0.6. The
	// highest priority that a pool uses always has 1.
	Shares map[string]float64 `yaml:"shares"`
}

// WithDefaults fills in what was not said.
func (c Config) WithDefaults() Config {
	shares := map[string]float64{"critical": 1, "high": 0.95, "normal": 0.85, "low": 0.6}
	maps.Copy(shares, c.Shares)
	c.Shares = shares
	return c
}

// Validate reports every problem.
func (c Config) Validate(problem func(field, message string)) {
	above := 1.0
	for name := range c.Shares {
		if _, err := job.ParsePriority(name); err != nil {
			problem("shares."+name, err.Error())
		}
	}
	for p := range job.Priority(job.Priorities) {
		share := c.Shares[p.String()]
		if !(share > 0 && share <= above) { // NaN is neither
			problem("shares."+p.String(), fmt.Sprintf("%v is not allowed, use more than 0 and at most the %v of the priority above", share, above))
			continue
		}
		above = share
	}
}

// Shares per mille of the limit, by priority. 0 for a priority not in use.
type Shares [job.Priorities]int

// For returns the shares of a pool that uses the given priorities.
func (c Config) For(used []job.Priority) Shares {
	var s Shares
	top := job.Priority(job.Priorities)
	for _, p := range used {
		s[p] = max(1, int(c.Shares[p.String()]*1000+0.5))
		top = min(top, p)
	}
	if int(top) < job.Priorities {
		s[top] = 1000
	}
	return s
}

// Room returns how many more jobs of each priority may start under limit when
// held of each are in hand already. 0 for a priority not in use.
func (s Shares) Room(limit int, held [job.Priorities]int) [job.Priorities]int {
	var room [job.Priorities]int
	below := 0
	for _, n := range held {
		below += n
	}
	free := limit
	for p, share := range s {
		if share > 0 {
			// Rounded up, so that a limit of 1 leaves room for every priority.
			free = min(free, (limit*share+999)/1000-below)
			room[p] = max(0, free)
		}
		below -= held[p]
	}
	return room
}
