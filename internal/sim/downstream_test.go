package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target"
)

// downstream does the jobs, for all replicas, and keeps the books.
type downstream struct {
	w *world

	mu      sync.Mutex
	calls   map[string][]*call
	running map[string]int // by replica and pool
	most    map[string]int
	down    time.Time // until when it fails; zero: it is well
	hangs   bool      // while it is down
}

// call is one call as the downstream saw it.
type call struct {
	replica    *replica
	begin, end time.Time // end is zero while it runs
	done       bool      // answered with success, and the answer was received
}

func newDownstream(w *world) *downstream {
	return &downstream{w: w, calls: make(map[string][]*call), running: make(map[string]int), most: make(map[string]int)}
}

// door is the downstream as one replica's pool calls it.
type door struct {
	d       *downstream
	replica *replica
	pool    int
}

// Close implements target.Target.
func (door) Close() {}

// Call implements target.Target.
func (d door) Call(ctx context.Context, r target.Request) job.Result {
	id := string(r.Job.Payload)
	lane := fmt.Sprintf("%d/%d", d.replica.id, d.pool)
	c, n, down, hangs := d.d.begin(d.replica, id, lane)
	if d.d.w.seed.chance(id, n, "panic") < 0.001 {
		d.d.finish(c, lane, false)
		panic("sim: a fault of our own")
	}
	takes := d.latency(id, n)
	if down && hangs {
		takes = time.Hour
	}
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		d.d.finish(c, lane, false)
		if errors.Is(context.Cause(ctx), job.ErrTryTimeout) {
			return job.Result{Class: job.Timeout, Reason: job.TimedOut, Err: job.ErrTryTimeout}
		}
		return job.Result{Class: job.Ignored, Reason: job.Interrupted, Err: context.Cause(ctx)}
	}
	result := d.answer(id, n, down)
	d.d.finish(c, lane, result.Class == job.Success)
	return result
}

// latency is mostly short, and now and then longer than the call's timeout.
func (d door) latency(id string, n int) time.Duration {
	s := d.d.w.seed
	switch u := s.chance(id, n, "kind of latency"); {
	case u < 0.01:
		return s.span(time.Second, 8*time.Second, id, n, "latency")
	case u < 0.2:
		return s.span(20*time.Millisecond, 500*time.Millisecond, id, n, "latency")
	}
	return s.span(time.Millisecond, 20*time.Millisecond, id, n, "latency")
}

func (d door) answer(id string, n int, down bool) job.Result {
	failed := errors.New("sim: failed")
	if down {
		return job.Result{Class: job.Failure, Reason: job.Status5xx, Status: 503, Err: failed}
	}
	s := d.d.w.seed
	if d.d.w.hopeless(id) {
		return job.Result{Class: job.Failure, Reason: job.Status5xx, Status: 500, Err: failed}
	}
	if s.chance(id, "broken job") < 0.005 {
		return job.Result{Class: job.Permanent, Reason: job.Status4xx, Status: 422, Err: failed}
	}
	switch u := s.chance(id, n, "answer"); {
	case u < 0.03:
		return job.Result{Class: job.Failure, Reason: job.Status5xx, Status: 500, Err: failed}
	case u < 0.04:
		return job.Result{Class: job.Throttled, Reason: job.StatusThrottled, Status: 429, RetryAfter: time.Second, Err: failed}
	case u < 0.045:
		return job.Result{Class: job.Neutral, Reason: job.Status4xx, Status: 409, Err: failed}
	}
	return job.Result{Class: job.Success, Reason: job.OK, Status: 200}
}

func (d *downstream) begin(r *replica, id, lane string) (c *call, n int, down, hangs bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	c = &call{replica: r, begin: now}
	n = len(d.calls[id])
	d.calls[id] = append(d.calls[id], c)
	d.running[lane]++
	d.most[lane] = max(d.most[lane], d.running[lane])
	return c, n, now.Before(d.down), d.hangs
}

func (d *downstream) finish(c *call, lane string, done bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.end, c.done = time.Now(), done
	d.running[lane]--
}

// hopeless jobs fail at every call.
func (w *world) hopeless(id string) bool { return w.seed.chance(id, "hopeless") < 0.004 }

// outage makes the downstream fail, or hang, for a while.
func (d *downstream) outage(lasts time.Duration, hangs bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down, d.hangs = time.Now().Add(lasts), hangs
}
