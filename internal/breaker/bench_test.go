package breaker_test

import (
	"testing"
	"time"

	"github.com/workerd/workerd/internal/breaker"
)

func BenchmarkAcquireDone(b *testing.B) {
	shapes := []struct {
		name string
		cfg  breaker.Config
	}{
		{"time", breaker.Config{}},
		{"time_slow", breaker.Config{SlowCall: 8 * time.Second}},
		{"count", breaker.Config{WindowCalls: 100}},
	}
	for _, shape := range shapes {
		b.Run(shape.name+"/serial", func(b *testing.B) {
			br := breaker.New(shape.cfg, nil)
			now := time.Now()
			br.Credit(now)
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Microsecond)
				p, err := br.Acquire(now)
				if err != nil {
					b.Fatal(err)
				}
				p.Done(now, breaker.Good, 0)
			}
		})
		b.Run(shape.name+"/parallel", func(b *testing.B) {
			br := breaker.New(shape.cfg, nil)
			now := time.Now()
			br.Credit(now)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					p, _ := br.Acquire(now)
					p.Done(now, breaker.Good, 0)
				}
			})
		})
	}
}

func BenchmarkAcquire(b *testing.B) {
	br := breaker.New(breaker.Config{}, nil)
	now := time.Now()
	br.Credit(now)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := br.Acquire(now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefused(b *testing.B) {
	br := breaker.New(breaker.Config{}, nil)
	now := time.Now()
	if err := br.Override(breaker.ForcedOpen, 0, "benchmark", now); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := br.Acquire(now); err == nil {
			b.Fatal("a forced open breaker let a call pass")
		}
	}
}
