package app

import (
	"testing"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

func TestThrottle_holdsUntilTheLongestWaitThatWasAskedForIsOver(t *testing.T) {
	g, now := newThrottle(), time.Now()
	g.heed(job.Result{Class: job.Failure, RetryAfter: time.Hour}, now) // the breaker's business
	g.heed(job.Result{Class: job.Throttled}, now)                      // asks for nothing
	if h := g.Credit(now); h.Credit != pool.Unlimited {
		t.Errorf("held for no reason: %+v", h)
	}
	changed := g.Changed()
	g.heed(job.Result{Class: job.Throttled, RetryAfter: 5 * time.Second}, now)
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	g.heed(job.Result{Class: job.Throttled, RetryAfter: time.Second}, now)
	if h := g.Credit(now.Add(4 * time.Second)); h.Credit != 0 || h.Reason != "throttled" || !h.Until.Equal(now.Add(5*time.Second)) {
		t.Errorf("after 4 of 5 seconds: %+v", h)
	}
	if h := g.Credit(now.Add(5 * time.Second)); h.Credit != pool.Unlimited {
		t.Errorf("after 5 of 5 seconds: %+v", h)
	}
}
