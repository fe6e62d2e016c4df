// Package shed tells how many permits of a pool to keep free of each priority.
//
// Shares say how much of the limit a priority and everything below it may fill
// when what is above needs the rest. With the default shares and all four
// priorities in use:
//
//	limit 100 ├──────────────── critical and below: 100 ────────────────┤
//	          ├────────────── high and below: 95 ────────────────┤
//	          ├────────── normal and below: 85 ──────────┤
//	          ├───── low: 60 ─────┤
//
// What is above seldom needs all of that, so the room is lent: only a 50th of
// the limit is kept free for it, as a job that ends makes room for the most
// important one that waits. Hard shares lend nothing.
//
// Guarantees:
//  1. More is never kept free of a priority than its share leaves to those
//     above, less what they hold; and of the limit never more than a 50th,
//     unless the shares are hard.
//  2. Nothing is kept free of the highest priority in use.
//  3. Never less is kept free of a priority than of a more important one.
//  4. An idle pool with a limit of at least 1 has room for every priority.
//  5. Nothing is thrown away: a priority without room waits in its stream.
//
// Where jobs cannot wait in a stream, see [Level].
//
// The package has no state. To keep the permits free is the bulkhead's part,
// to pull less the pool's.
package shed

import (
	"fmt"
	"maps"

	"github.com/workerd/workerd/internal/job"
)

// Config of shedding, for all pools.
type Config struct {
	// Shares of a pool's concurrency that each priority and those below it may
	// fill while higher ones need the rest, 0 to 1. Defaults: critical 1, high
	// 0.95, normal 0.85, low 0.6. The highest priority that a pool uses always
	// has 1.
	Shares map[string]float64 `yaml:"shares"`
	// Hard keeps the room of higher priorities free also while they do not
	// use it, instead of lending it. It costs capacity: with the default
	// shares, low jobs alone fill 60 % of a pool. For jobs that take so long
	// that waiting for one to end is too long. Default: false.
	Hard bool `yaml:"hard"`
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

// Shares of one pool. The zero value is that of a pool without priorities.
type Shares struct {
	// PerMille of the limit, by priority. 0 for a priority not in use.
	PerMille [job.Priorities]int
	// Hard: nothing is lent.
	Hard bool
}

// For returns the shares of a pool that uses the given priorities.
func (c Config) For(used []job.Priority) Shares {
	s := Shares{Hard: c.Hard}
	top := job.Priority(job.Priorities)
	for _, p := range used {
		s.PerMille[p] = max(1, int(c.Shares[p.String()]*1000+0.5))
		top = min(top, p)
	}
	if int(top) < job.Priorities {
		s.PerMille[top] = 1000
	}
	return s
}

// Used is the number of priorities in use.
func (s Shares) Used() (n int) {
	for _, share := range s.PerMille {
		if share > 0 {
			n++
		}
	}
	return n
}

// cushion is the part of the limit that lent shares keep free.
const cushion = 50

// whole is all of it in per mille.
const whole = 1000

// Reserve returns how many permits under limit to keep free of each priority,
// when held of each are in hand.
func (s Shares) Reserve(limit int, held [job.Priorities]int) [job.Priorities]int {
	var reserve [job.Priorities]int
	above, least := 0, 0
	for p, share := range s.PerMille {
		if share > 0 {
			// The share is rounded up, so that a limit of 1 leaves room for everybody.
			r := limit - (limit*share+whole-1)/whole - above
			if !s.Hard {
				r = min(r, limit/cushion)
			}
			least = max(least, r)
		}
		reserve[p] = least
		above += held[p]
	}
	return reserve
}
