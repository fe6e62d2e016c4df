package pool_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

// inBubble hides a test's deadline from rapid, which must not be asked for in
// a bubble.
type inBubble struct{ rapid.TB }

// halfOpen is what a breaker with probe_priority: lowest says.
func halfOpen(permits int) pool.Hold {
	return pool.Hold{Credit: permits, Reason: "breaker", LowestFirst: true}
}

// TestProbePriority_theLowestThatHasJobsProbes: exactly the permits are pulled,
// and none of it is a job that matters more than another that could have probed.
func TestProbePriority_theLowestThatHasJobsProbes(t *testing.T) {
	for _, c := range []struct {
		permits               int
		critical, normal, low int // jobs in the streams
		wantC, wantN, wantL   int // started after a second
		prefetch              int
		promotedLow           bool
	}{
		{permits: 1, critical: 100, normal: 100, low: 100, wantL: 1},
		{permits: 1, critical: 100, normal: 100, wantN: 1},
		{permits: 1, critical: 100, wantC: 1},
		{permits: 3, critical: 100, normal: 100, low: 1, wantL: 1, wantN: 2},
		{permits: 3, critical: 100, normal: 1, low: 1, wantL: 1, wantN: 1, wantC: 1},
		{permits: 3, critical: 100, low: 100, wantL: 3, prefetch: 10},
		{permits: 1, critical: 100, low: 100, wantL: 1, promotedLow: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			critical, normal, low := newStream(job.Critical, 0), newStream(job.Normal, 0), newStream(job.Low, 0)
			g := newGate()
			g.set(halfOpen(0))
			w := startBehind(t, []*gate{g}, pool.Config{Concurrency: 10, Prefetch: c.prefetch}, takes(time.Hour), critical, normal, low)
			age := time.Duration(0)
			if c.promotedLow {
				age = 16 * time.Minute
			}
			flood(critical, "critical", c.critical, 0)
			flood(normal, "normal", c.normal, 0)
			flood(low, "low", c.low, age)
			synctest.Wait()
			if n := critical.given() + normal.given() + low.given(); n != 0 {
				t.Errorf("%+v: %d jobs were pulled while the breaker is open", c, n)
			}
			g.set(halfOpen(c.permits))
			time.Sleep(time.Second)
			synctest.Wait()
			if got, want := fmt.Sprint(w.startedOf("critical"), w.startedOf("normal"), w.startedOf("low")), fmt.Sprint(c.wantC, c.wantN, c.wantL); got != want {
				t.Errorf("%+v: started critical, normal, low: %s, want %s", c, got, want)
			}
			if n := critical.given() + normal.given() + low.given(); n != c.permits {
				t.Errorf("%+v: %d jobs were pulled for %d permits", c, n, c.permits)
			}
			w.interrupt(job.ErrInterrupted)
			w.stop()
			w.settledOnce()
		})
	}
}

// TestProbePriority_jobsInHandWaitForThoseThatMatterLess: the breaker opens while
// critical ones are in hand; the probes are low ones from the stream all the same.
// Once it is closed again the critical ones go first.
func TestProbePriority_jobsInHandWaitForThoseThatMatterLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		critical, low := newStream(job.Critical, 0), newStream(job.Low, 0)
		w := start(t, pool.Config{Concurrency: 2, Prefetch: 8, MaxPark: time.Hour}, takes(time.Second), critical, low)
		flood(critical, "critical", 8, 0)
		synctest.Wait()
		w.gate.set(halfOpen(0))
		time.Sleep(time.Minute)
		flood(low, "low", 100, 0)
		synctest.Wait()
		before, lows := w.startedOf("critical"), w.startedOf("low")
		for range 3 {
			w.gate.set(halfOpen(1))
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			w.gate.set(halfOpen(0))
			time.Sleep(2 * time.Second)
		}
		synctest.Wait()
		if c, l := w.startedOf("critical")-before, w.startedOf("low")-lows; c != 0 || l != 3 {
			t.Errorf("%d critical and %d low jobs probed, want the low ones 3 times", c, l)
		}
		w.handler.mu.Lock()
		n := len(w.handler.order)
		w.handler.mu.Unlock()
		w.gate.set(pool.Hold{Credit: pool.Unlimited})
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		w.handler.mu.Lock()
		next := w.handler.order[n : n+2]
		w.handler.mu.Unlock()
		for _, id := range next {
			if id[:4] != "crit" {
				t.Errorf("after the outage %v go first, want critical ones", next)
			}
		}
		w.interrupt(job.ErrInterrupted)
		w.stop()
		w.settledOnce()
	})
}

// TestProbePriority_whoeverHasJobsTheProbesStart: wherever the jobs lie, in hand or
// in which stream, and whenever they come, the permits are used within two seconds.
func TestProbePriority_whoeverHasJobsTheProbesStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			var streams []*stream
			for _, p := range rapid.SliceOfNDistinct(rapid.SampledFrom([]job.Priority{job.Critical, job.High, job.Normal, job.Low}), 1, 4, rapid.ID).Draw(r, "used") {
				streams = append(streams, newStream(p, rapid.IntRange(0, 5).Draw(r, "at once")))
			}
			w := start(t, pool.Config{Concurrency: 2, Prefetch: rapid.IntRange(0, 4).Draw(r, "prefetch"), MaxPark: time.Hour}, takes(time.Millisecond), streams...)
			time.Sleep(time.Duration(rapid.IntRange(0, 3).Draw(r, "ms")) * time.Millisecond)
			w.gate.set(halfOpen(0))
			time.Sleep(time.Second)
			jobs := 0
			for _, s := range streams {
				flood(s, "more"+s.priority.String(), rapid.IntRange(0, 3).Draw(r, "later"), 0)
				s.mu.Lock()
				jobs += len(s.jobs) + s.delivered - len(s.settled)
				s.mu.Unlock()
			}
			permits := rapid.IntRange(1, 4).Draw(r, "permits")
			before := w.handler.started()
			w.gate.set(halfOpen(permits))
			time.Sleep(2 * time.Second) // each priority is waited for in its turn
			synctest.Wait()
			if got := w.handler.started() - before; got < min(permits, jobs) {
				r.Errorf("%d started within two seconds, with %d permits and %d jobs", got, permits, jobs)
			}
			w.stop()
		})
	})
}

// TestProbePriority_aJobGoneElsewhereWedgesNothing: the low jobs are taken by
// another replica in the moment in which they are asked for.
func TestProbePriority_aJobGoneElsewhereWedgesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		critical, low := newStream(job.Critical, 10), newStream(job.Low, 10)
		g := newGate()
		g.set(halfOpen(0))
		w := startBehind(t, []*gate{g}, pool.Config{Concurrency: 2}, func(context.Context, *job.Job, job.Record) job.Outcome {
			return job.Outcome{Action: job.Done, Reason: job.OK}
		}, critical, low)
		synctest.Wait()
		low.mu.Lock()
		low.jobs = nil
		low.mu.Unlock()
		g.set(halfOpen(1))
		time.Sleep(600 * time.Millisecond)
		synctest.Wait()
		if w.startedOf("critical") == 0 {
			t.Error("no probe has started 600 ms after there are no low jobs")
		}
		w.stop()
		w.settledOnce()
	})
}
