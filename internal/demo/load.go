package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Publish sends one job and returns once the stream has it.
type Publish func(ctx context.Context, subject string, body []byte) error

// Load publishes about rate jobs per second until ctx ends: mails of three
// priorities, and now and then a report. It returns how many were accepted.
func Load(ctx context.Context, rate float64, publish Publish) int {
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	accepted := 0
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return accepted
		case <-tick.C:
		}
		subject := pick(rand.Float64())
		body := fmt.Appendf(nil, `{"n":%d,"to":"user%d@example.org"}`, n, rand.IntN(1000))
		// A broker that is away refuses jobs; the load goes on when it is back.
		if publish(ctx, subject, body) == nil {
			accepted++
		}
	}
}

// pick returns the subject of a job for u in [0, 1).
func pick(u float64) string {
	switch {
	case u < 0.15:
		return "jobs.email.high"
	case u < 0.55:
		return "jobs.email.normal"
	case u < 0.9:
		return "jobs.email.low"
	}
	return "jobs.report.monthly"
}
