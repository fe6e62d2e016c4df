package gate_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pool"
)

// inBubble hides a test's deadline from rapid, which must not be asked for in
// a bubble.
type inBubble struct{ rapid.TB }

// TestInvariant36_noOutageKillsAJob, however long it is, of whatever kind, and
// however few jobs have to probe: all are done afterwards.
func TestInvariant36_noOutageKillsAJob(t *testing.T) {
	outages := map[string]func(ctx context.Context, n int) job.Result{
		"503":     always(job.Failure, job.Status5xx, 503),
		"refused": always(job.Failure, job.Connect, 0),
		"hangs":   fine(time.Hour),
		"429": func(ctx context.Context, _ int) job.Result {
			r := result(job.Throttled, job.StatusThrottled, 429)
			r.RetryAfter = time.Minute
			return after(ctx, time.Millisecond, r)
		},
	}
	for _, c := range []struct {
		jobs  int
		kind  string
		lasts time.Duration
	}{{1, "503", 6 * time.Hour}, {3, "hangs", 6 * time.Hour}, {3, "refused", 6 * time.Hour}, {10, "503", 6 * time.Hour}, {40, "429", 20 * time.Hour}} {
		t.Run(fmt.Sprint(c.jobs, " jobs ", c.kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				eu, us := targets(8)
				us.service.does(outages[c.kind])
				w := work(mixed(2*c.jobs, 50), 8, bySubject, eu, us)
				defer w.stop()
				alone := newLane(8, limiter.Config{}, limiter.Rate{})
				alone.service.does(outages[c.kind])
				v := alone.work(newStream(c.jobs), 8)
				defer v.stop()
				time.Sleep(c.lasts)
				us.service.does(fine(20 * time.Millisecond))
				alone.service.does(fine(20 * time.Millisecond))
				time.Sleep(30 * time.Minute) // the longest wait of the breaker, and the longest backoff
				synctest.Wait()
				for name, s := range map[string]*stream{"routed": w.stream, "alone": v.stream} {
					if _, acked, dead, left := s.counts(); dead != 0 || left != 0 || acked < c.jobs {
						t.Errorf("%s: %d done, %d dead, %d left", name, acked, dead, left)
					}
				}
			})
		})
	}
}

// clerk runs jobs and keeps accounts of its own.
type clerk struct {
	pool.Handler
	report func(format string, args ...any)

	mu       sync.Mutex
	charged  map[string]int
	most     int
	stopping bool
}

func (c *clerk) Handle(ctx context.Context, j *job.Job, before job.Record, draining <-chan struct{}) job.Outcome {
	out := c.Handler.Handle(ctx, j, before, draining)
	c.mu.Lock()
	defer c.mu.Unlock()
	if before.Attempts != c.charged[j.ID] {
		c.report("job %s comes with %d attempts, %d executions failed", j.ID, before.Attempts, c.charged[j.ID])
	}
	failed := out.Tries > 0 && (out.Last.Class == job.Failure || out.Last.Class == job.Timeout || out.Last.Class == job.Permanent || out.Last.Class == job.Neutral)
	// The stop of the pool costs no job an attempt, and what it cut off, a call or
	// the wait for the next one, is not an execution that has ended.
	cut := out.Reason == job.Released || out.Reason == job.Interrupted
	if cut && !c.stopping {
		c.report("job %s is handed back (%s), and the pool goes on", j.ID, out.Reason)
	}
	switch {
	case out.Charged && !failed:
		c.report("job %s pays for %s (%s)", j.ID, out.Last.Class, out.Action)
	case cut && out.Charged:
		c.report("job %s pays for the stop of the pool (%s)", j.ID, out.Reason)
	case cut:
	case failed && !out.Charged && out.Action != job.Defer:
		c.report("job %s does not pay for %s (%s, %s)", j.ID, out.Last.Class, out.Action, out.Reason)
	case failed && !out.Charged && c.charged[j.ID] < c.most-1:
		c.report("job %s does not pay for %s, and it would not be its last attempt", j.ID, out.Last.Class)
	}
	if out.Charged {
		c.charged[j.ID]++
	}
	if out.Reason == job.MaxAttempts && c.charged[j.ID] != c.most {
		c.report("job %s is dead after %d of %d attempts", j.ID, c.charged[j.ID], c.most)
	}
	return out
}

// TestInvariant35_attemptsAreTheExecutionsThatFailed, whatever the target does and
// whenever jobs are parked, deferred and redelivered meanwhile.
func TestInvariant35_attemptsAreTheExecutionsThatFailed(t *testing.T) {
	classes := []job.Class{job.Success, job.Failure, job.Timeout, job.Throttled, job.Permanent, job.Neutral}
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			script := rapid.SliceOfN(rapid.SampledFrom(classes), 1, 40).Draw(r, "script")
			l := newLane(4, limiter.Config{}, limiter.Rate{})
			l.service.does(func(ctx context.Context, n int) job.Result {
				class := script[n%len(script)]
				res := job.Result{Class: class, Reason: job.OK}
				if class != job.Success {
					res.Reason, res.Err = job.Status5xx, fmt.Errorf("%s", class)
				}
				return after(ctx, 10*time.Millisecond, res)
			})
			jobs := rapid.IntRange(1, 20).Draw(r, "jobs")
			books := &clerk{report: r.Errorf, charged: map[string]int{}, most: pool.Config{}.WithDefaults().Redelivery.MaxAttempts}
			w := workBy(newStream(jobs), 4, nil, func(h pool.Handler) pool.Handler { books.Handler = h; return books }, l)
			time.Sleep(time.Duration(rapid.IntRange(1, 300).Draw(r, "minutes")) * time.Minute)
			books.mu.Lock()
			books.stopping = true
			books.mu.Unlock()
			w.stop()
		})
	})
}

// TestInvariant26_aWedgedPoolDoesNotDelayAnother: pools share nothing but their
// process.
func TestInvariant26_aWedgedPoolDoesNotDelayAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency, jobs = 8, 1000
		alone := func(beside bool) time.Duration {
			good, hangs := newLane(concurrency, limiter.Config{}, limiter.Rate{}), newLane(concurrency, limiter.Config{}, limiter.Rate{})
			good.service.does(fine(20 * time.Millisecond))
			hangs.service.does(fine(time.Hour))
			if beside {
				v := hangs.work(newStream(jobs), concurrency)
				defer v.stop()
				time.Sleep(time.Second)
			}
			w := good.work(newStream(jobs), concurrency)
			defer w.stop()
			return until(t, "all jobs", time.Minute, func() bool { _, acked, _, _ := w.stream.counts(); return acked == jobs })
		}
		if best, took := alone(false), alone(true); took > best*105/100 {
			t.Errorf("%s beside a pool whose target hangs, %s alone", took, best)
		}
	})
}

// TestInvariant27_aPanicCostsNoSlot, be it in the target or in our own code: the
// pool goes on at full width, and the jobs become dead letters.
func TestInvariant27_aPanicCostsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency, jobs = 4, 40
		l := newLane(concurrency, limiter.Config{}, limiter.Rate{})
		l.service.does(func(ctx context.Context, n int) job.Result {
			if n%2 == 0 {
				panic("boom")
			}
			return after(ctx, 20*time.Millisecond, result(job.Success, job.OK, 200))
		})
		w := l.work(newStream(jobs), concurrency)
		defer w.stop()
		until(t, "all jobs", 3*time.Hour, func() bool { _, acked, dead, _ := w.stream.counts(); return acked+dead == jobs })
		if s := w.pool.Stats(); s.InFlight != 0 || s.Waiting != 0 || l.limiter.Stats(time.Now()).InFlight != 0 {
			t.Errorf("afterwards %+v", s)
		}
	})
}
