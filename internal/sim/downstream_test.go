package sim

import (
	"bytes"
	"context"
	"errors"
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
	lanes   map[*lane][]*call
	running map[*lane]int
	most    map[*lane]int
	down    time.Time // until when it is not well
	how     trouble   // while it is not
	mended  bool      // no job is hopeless any more
}

// call is one call as the downstream saw it.
type call struct {
	replica    *replica
	begin, end time.Time // end is zero while it runs
	class      job.Class
	done       bool      // answered with success, and the answer was received
	taken      time.Time // since when the broker had given the job to somebody else as it began; zero: it had not
	because    time.Time // when it was given back by somebody who did not have it, so that it was taken; zero: for another reason
}

func newDownstream(w *world) *downstream {
	return &downstream{
		w: w, calls: make(map[string][]*call), lanes: make(map[*lane][]*call), running: make(map[*lane]int), most: make(map[*lane]int),
	}
}

// door is the downstream as one lane calls it.
type door struct {
	d *downstream
	l *lane
}

// Close implements target.Target.
func (door) Close() {}

// Call implements target.Target.
func (d door) Call(ctx context.Context, r target.Request) job.Result {
	w, id := d.d.w, idOf(r.Job.Payload)
	if !bytes.Equal(r.Job.Payload, w.payload(id)) || r.Job.ID != id {
		w.fail("I3: %s (%s) came with another payload", id, r.Job.ID)
	}
	if at := r.Job.Deadline; !at.IsZero() && time.Now().After(at) {
		w.fail("I7: %s was called (try %d) %s after its deadline", id, r.Try, time.Since(at))
	}
	taken, because := w.taken(r.Job.Stream, r.Job.Consumer, r.Job.Sequence, r.Job.Deliveries)
	c, n, down := d.begin(id, r.Try)
	c.taken, c.because = taken, because
	result := job.Result{Class: job.Panicked}
	defer func() { d.finish(id, c, result) }()
	result = d.work(ctx, id, n, down)
	d.l.r.frozen.pass()
	if result.Class == job.Success && w.seed.chance(id, n, "dies before the ack") < 0.0004 {
		d.l.r.dies("crash before an ack")
	}
	return result
}

func (d door) work(ctx context.Context, id string, n int, down trouble) job.Result {
	w := d.d.w
	if w.seed.chance(id, n, "panic") < 0.001 {
		panic("sim: a fault of our own")
	}
	takes := d.latency(id, n)
	if down == hanging {
		takes = time.Hour
	}
	if w.kills(id) {
		d.l.r.dies("crash by a job")
		takes = time.Hour
	}
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), job.ErrTryTimeout) {
			return job.Result{Class: job.Timeout, Reason: job.TimedOut, Err: job.ErrTryTimeout}
		}
		return job.Result{Class: job.Ignored, Reason: job.Interrupted, Err: context.Cause(ctx)}
	}
	return d.answer(id, n, down)
}

// Troubles of a downstream.
const (
	failing     trouble = "failing"
	hanging     trouble = "hanging"
	flaky       trouble = "flaky"
	conflicting trouble = "conflicting" // it cannot do any job now, and is well
)

// profile tells whether a pool's target has a brown-out now, or is flaky: both
// last ten seconds.
func (d door) profile(what string) bool {
	return d.d.w.seed.chance(d.l.n, int(time.Since(d.d.w.began)/(10*time.Second)), what) < 0.07
}

// latency is mostly short, and now and then longer than the call's timeout.
func (d door) latency(id string, n int) time.Duration {
	s, longer := d.d.w.seed, 1
	if d.profile("brown-out") {
		longer = 10
	}
	switch u := s.chance(id, n, "kind of latency"); {
	case u < 0.005:
		return s.span(time.Second, 8*time.Second, id, n, "latency")
	case u < 0.1:
		return s.span(time.Duration(longer)*20*time.Millisecond, time.Duration(longer)*300*time.Millisecond, id, n, "latency")
	}
	return s.span(time.Duration(longer)*time.Millisecond, time.Duration(longer)*20*time.Millisecond, id, n, "latency")
}

func (d door) answer(id string, n int, down trouble) job.Result {
	failed := errors.New("sim: failed")
	s := d.d.w.seed
	switch {
	case down == failing, down == flaky && s.chance(id, n, "flaky") < 0.6:
		return job.Result{Class: job.Failure, Reason: job.Status5xx, Status: 503, Err: failed}
	case down == conflicting:
		return job.Result{Class: job.Neutral, Reason: job.Status4xx, Status: 409, Err: failed}
	case d.d.w.hopeless(id) && !d.d.isMended(), d.d.w.hasty(id) && n < 2 && s.chance(id, "fails first") < 0.5:
		return job.Result{Class: job.Failure, Reason: job.Status5xx, Status: 500, Err: failed}
	case s.chance(id, "broken job") < 0.004:
		return job.Result{Class: job.Permanent, Reason: job.Status4xx, Status: 422, Err: failed}
	}
	switch u := s.chance(id, n, "answer"); {
	case u < 0.02:
		return job.Result{Class: job.Failure, Reason: job.Status5xx, Status: 500, Err: failed}
	case u < 0.022:
		return job.Result{Class: job.Failure, Reason: job.Connect, Err: failed}
	case u < 0.026:
		return job.Result{Class: job.Throttled, Reason: job.StatusThrottled, Status: 429, RetryAfter: time.Second, Err: failed}
	case u < 0.03:
		return job.Result{Class: job.Neutral, Reason: job.Status4xx, Status: 409, Err: failed}
	}
	return job.Result{Class: job.Success, Reason: job.OK, Status: 200}
}

func (d door) begin(id string, try int) (c *call, n int, down trouble) {
	is := d.d
	is.mu.Lock()
	defer is.mu.Unlock()
	now := time.Now()
	c = &call{replica: d.l.r, begin: now, class: job.Panicked}
	n = len(is.calls[id])
	is.calls[id] = append(is.calls[id], c)
	is.lanes[d.l] = append(is.lanes[d.l], c)
	is.running[d.l]++
	is.most[d.l] = max(is.most[d.l], is.running[d.l])
	if try > 1 {
		d.l.again++
	}
	switch {
	case d.l.alternate:
	case now.Before(is.down):
		down = is.how
	case d.profile("flaky"):
		down = flaky
	}
	return c, n, down
}

func (d door) finish(id string, c *call, r job.Result) {
	d.l.checkLease(id, c)
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	c.end, c.class, c.done = time.Now(), r.Class, r.Class == job.Success
	d.d.running[d.l]--
}

func (d *downstream) mend() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mended = true
}

func (d *downstream) isMended() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mended
}

// hopeless jobs fail at every call, until they are mended.
func (w *world) hopeless(id string) bool { return w.seed.chance(id, "hopeless") < 0.003 }

// hasty jobs are worth something for a moment only, and many of them fail at
// first: their time is over between two calls.
func (w *world) hasty(id string) bool {
	u := w.seed.chance(id, "header")
	return u >= 0.01 && u < 0.02
}

// kills tells whether a job kills its worker.
func (w *world) kills(id string) bool { return w.seed.chance(id, "kills") < 0.0003 }

// drops tells whether a pool drops jobs that have expired.
func (w *world) drops(n int) bool { return w.seed.chance(n, "drops") < 0.3 }

// trouble begins, and lasts for a while.
func (d *downstream) trouble(how trouble, lasts time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down, d.how = time.Now().Add(lasts), how
}
