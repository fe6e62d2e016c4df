package app

import (
	"sync"
	"time"
)

// rateSamples, one a second, are what a rate is taken over.
const rateSamples = 10

// rate is how fast a counter has grown over the last seconds. Any goroutine
// may use it.
type rate struct {
	mu      sync.Mutex
	samples []sample // oldest first
}

type sample struct {
	at    time.Time
	count uint64
}

// note takes a sample of the counter.
func (r *rate) note(now time.Time, count uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.samples) > rateSamples {
		r.samples = append(r.samples[:0], r.samples[1:]...)
	}
	r.samples = append(r.samples, sample{now, count})
}

// perSecond is nil while there is nothing to compare.
func (r *rate) perSecond() *float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.samples) < 2 {
		return nil
	}
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	return new(float64(last.count-first.count) / last.at.Sub(first.at).Seconds())
}
