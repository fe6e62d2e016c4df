package app

import (
	"sync"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

// throttle is the gate of a target that has asked for time (Retry-After): until
// then no job is pulled for it. Any goroutine may use it.
type throttle struct {
	mu      sync.Mutex
	until   time.Time
	changed chan struct{} // closed and replaced when until moves
}

func newThrottle() *throttle { return &throttle{changed: make(chan struct{})} }

// heed notes what a call has ended with. The longest wait asked for counts.
func (t *throttle) heed(r job.Result, now time.Time) {
	if r.Class != job.Throttled || r.RetryAfter <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := now.Add(r.RetryAfter); until.After(t.until) {
		t.until = until
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

// Credit implements pool.Gate.
func (t *throttle) Credit(now time.Time) pool.Hold {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !now.Before(t.until) {
		return pool.Hold{Credit: pool.Unlimited}
	}
	return pool.Hold{Reason: "throttled", Until: t.until}
}

// Changed implements pool.Gate.
func (t *throttle) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}
