package pool

import (
	"fmt"
	"hash/maphash"
	"maps"
	"slices"

	"github.com/workerd/workerd/internal/bulkhead"
	"github.com/workerd/workerd/internal/job"
)

// Fairness says how tenants share the permits of a pool.
type Fairness struct {
	// By says whose a job is: none makes no difference between jobs, key goes by
	// the header Workerd-Key. Jobs without that header are one tenant. Default:
	// none.
	By string `yaml:"by"`
	// Weights of tenants by key, 1 to 1000. A tenant of weight 4 gets four times
	// the permits of one that is not named, if both have jobs waiting. At most 64.
	Weights map[string]int `yaml:"weights"`
	// MaxShare of the pool's permits that one tenant may hold while others
	// wait, more than 0, up to 1. Default: 1.
	MaxShare float64 `yaml:"max_share"`
	// LookAhead is how many jobs of tenants that have more than their part in
	// hand may be set aside at once, to see whose jobs are behind them. A job set
	// aside is given back to the stream, uncharged, until it is about its turn,
	// and delivered once more. 1 to 100000. Default: 1000.
	LookAhead int `yaml:"look_ahead"`
}

// Whose a job is.
const (
	fairByNobody = "none"
	fairByKey    = "key"
)

// maxNamed is how many tenants may have a weight; a bucket each is theirs.
const maxNamed = 64

// WithDefaults fills in what was not said.
func (f Fairness) WithDefaults() Fairness {
	setDefault(&f.By, fairByNobody)
	setDefault(&f.MaxShare, 1)
	setDefault(&f.LookAhead, 1000)
	return f
}

// Validate reports every problem.
func (f Fairness) Validate(problem func(field, message string)) {
	if f.By != fairByNobody && f.By != fairByKey {
		problem("by", fmt.Sprintf("%q is not allowed, use none or key", f.By))
	}
	if f.By == fairByNobody && len(f.Weights) > 0 {
		problem("weights", "nobody is told apart, so they do nothing; say by: key")
	}
	if len(f.Weights) > maxNamed {
		problem("weights", fmt.Sprintf("%d tenants have a weight, at most %d may", len(f.Weights), maxNamed))
	}
	for key, weight := range f.Weights {
		if text := outside(weight, 1, 1000); text != "" {
			problem("weights."+key, text)
		}
	}
	if !(f.MaxShare > 0 && f.MaxShare <= 1) { // NaN is neither
		problem("max_share", fmt.Sprintf("%v is not allowed, use more than 0 and at most 1", f.MaxShare))
	}
	if text := outside(f.LookAhead, 1, 100_000); text != "" {
		problem("look_ahead", text)
	}
}

// buckets sorts tenants into the keys of the bulkhead: 0 is everybody without a
// key, then come those with a weight, and all others share what is left by
// chance. Two of them may meet, and then are one tenant; the seed sees to it
// that they do not in another replica, or after a restart.
type buckets struct {
	named map[string]uint8
	seed  maphash.Seed
}

func newBuckets(f Fairness) buckets {
	b := buckets{named: map[string]uint8{"": 0}, seed: maphash.MakeSeed()}
	for i, key := range slices.Sorted(maps.Keys(f.Weights)) {
		if key != "" {
			b.named[key] = uint8(i + 1)
		}
	}
	return b
}

func (b buckets) of(j *job.Job) uint8 {
	key := j.Header.Get(job.HeaderKey)
	if bucket, ok := b.named[key]; ok {
		return bucket
	}
	first := uint64(len(b.named)) + 1 // "" may have a weight
	return uint8(first + maphash.String(b.seed, key)%(bulkhead.Keys-first))
}

// fairBulkhead is a bulkhead that shares its permits as configured.
func fairBulkhead(limit int, f Fairness, b buckets) *bulkhead.Bulkhead {
	fair := bulkhead.Fairness{MaxShare: f.MaxShare}
	for key, weight := range f.Weights {
		fair.Weights[b.named[key]] = float64(weight)
	}
	return bulkhead.NewFair(limit, fair)
}

// Window is how many jobs of each priority may wait in hand so that there are
// tenants to choose from, 0 if they are not told apart.
func (c Config) Window() int {
	if c.Fairness.By != fairByKey {
		return 0
	}
	return min(max(32, 2*c.Concurrency), 1000)
}
