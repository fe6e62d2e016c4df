package limiter

import (
	"math"
	"time"
)

// Buckets grow by a tenth from 0.1 ms on: 192 of them reach two hours, and a
// halve makes what comes weigh more than what was.
func (h *histogram) halve() {
	h.total = 0
	for i := range h.counts {
		h.counts[i] /= 2
		h.total += h.counts[i]
	}
}

// quantile is right to 5 %.
const (
	numBuckets  = 192
	firstBucket = 100 * time.Microsecond
)

// histogram of durations in buckets that grow by a tenth.
type histogram struct {
	counts [numBuckets]uint32
	total  uint32
}

func (h *histogram) add(d time.Duration) {
	i := 0
	if d > firstBucket {
		i = min(numBuckets-1, int(math.Log(float64(d)/float64(firstBucket))/math.Log(1.1)))
	}
	h.counts[i]++
	h.total++
}

// quantile is the middle of the bucket that it lies in; 0 if there is nothing.
func (h *histogram) quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	left := int64(math.Ceil(q * float64(h.total)))
	for i, n := range h.counts {
		if left -= int64(n); left <= 0 && n > 0 {
			return time.Duration(float64(firstBucket) * math.Pow(1.1, float64(i)+0.5))
		}
	}
	return 0
}
