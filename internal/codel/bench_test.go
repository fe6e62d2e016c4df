package codel_test

import (
	"testing"
	"time"

	"github.com/workerd/workerd/internal/codel"
)

// BenchmarkQueue_full is one item in and one out of a queue that is full and
// overloaded, of tenants at all levels.
func BenchmarkQueue_full(b *testing.B) {
	q, now := codel.New[int](config()), time.Unix(0, 0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now = now.Add(50 * time.Microsecond)
		q.Push(now, codel.RankOf(2, i*37%codel.Levels), 100, i)
		if i%3 == 0 {
			q.Next(now)
		}
	}
}
