package gate_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pool"
)

// mixed is a stream of n jobs of which so many in a hundred are for us, the
// others for eu.
func mixed(n, us int) *stream {
	s := newStream(n)
	for i, j := range s.ready {
		j.Subject = "jobs.eu"
		if i*us/100 != (i+1)*us/100 {
			j.Subject = "jobs.us"
		}
	}
	return s
}

// bySubject is the way to eu or us.
func bySubject(j *job.Job) int { return slices.Index([]string{"jobs.eu", "jobs.us"}, j.Subject) }

// targets are those of such a pool; us is down.
func targets(concurrency int) (eu, us *lane) {
	eu, us = newLane(concurrency, limiter.Config{}, limiter.Rate{}), newLane(concurrency, limiter.Config{}, limiter.Rate{})
	eu.name, us.name = "eu", "us"
	eu.service.does(fine(20 * time.Millisecond))
	us.service.does(always(job.Failure, job.Status5xx, 503))
	return eu, us
}

// until waits for something in virtual time, and returns how long that took.
func until(t *testing.T, what string, most time.Duration, is func() bool) time.Duration {
	t.Helper()
	for began := time.Now(); ; {
		synctest.Wait()
		took := time.Since(began)
		if is() {
			return took
		}
		if took > most {
			t.Fatalf("%s: not after %s", what, took)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestRoutes_aDeadTargetDoesNotStopTheOthers: of 5000 jobs two in five are for a
// target that is down. The others take as long as if these were not there, and
// when it is back everything is done.
func TestRoutes_aDeadTargetDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency, all, others = 16, 5000, 3000
		alone := newLane(concurrency, limiter.Config{}, limiter.Rate{})
		alone.service.does(fine(20 * time.Millisecond))
		w := alone.work(newStream(others), concurrency)
		best := until(t, "alone", time.Minute, func() bool { return alone.service.calls() == others })
		w.stop()

		eu, us := targets(concurrency)
		w = work(mixed(all, 40), concurrency, bySubject, eu, us)
		defer w.stop()
		took := until(t, "the jobs of eu", time.Minute, func() bool { return eu.service.calls() == others })
		t.Logf("alone %s, beside a dead target %s; that was called %d times", best, took, us.service.calls())
		if took > best*11/10 {
			t.Errorf("the jobs of eu took %s beside a dead target, %s without it", took, best)
		}
		if n := us.service.calls(); n > 3*concurrency {
			t.Errorf("the dead target was called %d times", n)
		}
		time.Sleep(10 * time.Minute)
		us.service.does(fine(20 * time.Millisecond))
		until(t, "the jobs of us", 15*time.Minute, func() bool { _, acked, _, _ := w.stream.counts(); return acked == all })
		if _, _, dead, left := w.stream.counts(); dead != 0 || left != 0 {
			t.Errorf("%d jobs are dead, %d left", dead, left)
		}
	})
}

// TestRoutes_aTargetThatHangsKeepsNoMoreThanItsShare: until it is seen that it does
// not answer it takes what it may, half of the permits here. Then its jobs are set
// aside.
func TestRoutes_aTargetThatHangsKeepsNoMoreThanItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency, all, others = 32, 10_000, 6000
		eu, _ := targets(concurrency)
		us := newLane(2*concurrency, limiter.Config{Max: concurrency / 2}, limiter.Rate{})
		us.service.does(fine(20 * time.Millisecond))
		w := work(mixed(all, 40), concurrency, bySubject, eu, us)
		defer w.stop()
		time.Sleep(time.Second)
		us.service.does(fine(time.Hour)) // until its timeout of 10 s
		took := until(t, "the jobs of eu", time.Minute, func() bool { return eu.service.calls() == others })
		t.Logf("%s, of the hanging target %d calls", took, us.service.calls())
		if took > 7*time.Second {
			t.Errorf("the jobs of eu took %s beside a target that hangs", took)
		}
	})
}

// TestRoutes_aThirdForADeadTargetNeverStopsTheOthers, however often its jobs come
// back, and redeliveries come first: those of the other that are published while it is
// down are done at once.
func TestRoutes_aThirdForADeadTargetNeverStopsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eu, us := targets(16)
		w := work(mixed(6000, 33), 16, bySubject, eu, us)
		defer w.stop()
		done := 6000 - 6000*33/100
		until(t, "the jobs of eu", 10*time.Second, func() bool { return eu.service.calls() == done })
		for i := range 30 {
			time.Sleep(time.Minute)
			w.stream.publish(&job.Job{ID: fmt.Sprintf("late-%d", i), Subject: "jobs.eu", Stream: "S", Sequence: uint64(10_000 + i), Deliveries: 1, Enqueued: time.Now()})
			done++
			if took := until(t, "one more job of eu", time.Minute, func() bool { return eu.service.calls() == done }); took > 2*time.Second {
				t.Errorf("after %d minutes a job of the healthy target took %s", i+1, took)
			}
		}
		pulled, _, _, _ := w.stream.counts()
		t.Logf("%d deliveries", pulled)
		if pulled > 6000+1800*200 {
			t.Errorf("%d deliveries in half an hour", pulled)
		}
	})
}

// TestRoutes_mostlyDeadPullsOnePerSecond: nine jobs in ten are for the dead
// target, and they are more than are carried out of the stream and back. So the
// backlog stays in the stream, and the pool says why.
func TestRoutes_mostlyDeadPullsOnePerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency, all = 16, 40_000
		eu, us := targets(concurrency)
		w := work(mixed(all, 90), concurrency, bySubject, eu, us)
		defer w.stop()
		until(t, "mostly dead", time.Minute, func() bool { return w.pool.Stats().Hold.Reason == pool.MostlyDead })
		if h := w.pool.Stats().Hold; h.Target != "us" || h.Holds(0) {
			t.Errorf("the pool says %+v", h)
		}
		before, _, _, left := w.stream.counts()
		time.Sleep(200 * time.Second)
		synctest.Wait()
		after, _, _, _ := w.stream.counts()
		t.Logf("%d deliveries until it was seen, %d in the next 200 s, %d jobs left; the dead target was called %d times", before, after-before, left, us.service.calls())
		if n := after - before; n > 200+100 {
			t.Errorf("%d deliveries in 200 s of outage", n)
		}
		us.service.does(fine(20 * time.Millisecond))
		until(t, "all done", 15*time.Minute, func() bool { _, acked, _, _ := w.stream.counts(); return acked == all })
		if h := w.pool.Stats().Hold; h.Reason != "" {
			t.Errorf("afterwards the pool says %+v", h)
		}
	})
}

// TestRoutes_outageChargesNobodyAndKillsNobody: half an hour.
func TestRoutes_outageChargesNobodyAndKillsNobody(t *testing.T) {
	for _, share := range []int{10, 50, 90} {
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const concurrency, all = 16, 1000
				eu, us := targets(concurrency)
				w := work(mixed(all, share), concurrency, bySubject, eu, us)
				defer w.stop()
				time.Sleep(30 * time.Minute)
				synctest.Wait()
				calls, charged := us.service.calls(), w.ledger.charged()
				pulled, _, dead, _ := w.stream.counts()
				t.Logf("%d calls of the dead target, %d attempts charged, %d deliveries", calls, charged, pulled)
				if charged > calls || calls > 3*concurrency+60 || dead != 0 {
					t.Errorf("%d calls, %d attempts charged, %d dead", calls, charged, dead)
				}
				us.service.does(fine(20 * time.Millisecond))
				until(t, "all done", 30*time.Minute, func() bool { _, acked, _, _ := w.stream.counts(); return acked == all })
				if _, _, dead, left := w.stream.counts(); dead != 0 || left != 0 {
					t.Errorf("afterwards %d dead, %d left", dead, left)
				}
			})
		})
	}
}

// TestRoutes_aPoolIsHeldWhileAllItsTargetsAre, and pulls nothing.
func TestRoutes_aPoolIsHeldWhileAllItsTargetsAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency = 8
		eu, us := targets(concurrency)
		hold := func(l *lane) {
			if err := l.breaker.Override(breaker.ForcedOpen, time.Hour, "", time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		hold(eu)
		hold(us)
		for _, l := range []*lane{eu, us} {
			l.service.does(fine(time.Millisecond))
		}
		w := work(mixed(100, 50), concurrency, bySubject, eu, us)
		defer w.stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		if pulled, _, _, _ := w.stream.counts(); pulled != 0 || !w.pool.Stats().Hold.Holds(0) {
			t.Errorf("%d jobs were pulled, the pool says %+v", pulled, w.pool.Stats().Hold)
		}
		eu.breaker.Reset(time.Now())
		until(t, "the jobs of eu", time.Minute, func() bool { return eu.service.calls() == 50 })
		if us.service.calls() != 0 {
			t.Errorf("%d calls while the breaker is forced open", us.service.calls())
		}
		us.breaker.Reset(time.Now())
		until(t, "the jobs of us", 2*time.Hour, func() bool { return us.service.calls() == 50 })
	})
}

// TestRoutes_eachTargetGetsWhatItCanTake: limits, rates and probes are those of
// the target, whatever the pool could run.
func TestRoutes_eachTargetGetsWhatItCanTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eu := newLane(32, limiter.Config{Limit: limiter.Fixed, Max: 3}, limiter.Rate{})
		us := newLane(32, limiter.Config{}, limiter.Rate{Rate: 5})
		eu.service.does(fine(100 * time.Millisecond))
		us.service.does(fine(100 * time.Millisecond))
		w := work(mixed(600, 50), 32, bySubject, eu, us)
		defer w.stop()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		// The slower holds up the faster in the end, but neither starves.
		if n := us.service.calls(); n < 20 || n > 35 {
			t.Errorf("%d calls in 5 s of a target with a rate of 5 per second", n)
		}
		until(t, "all done", 3*time.Minute, func() bool { _, acked, _, _ := w.stream.counts(); return acked == 600 })
		if eu.service.most > 3 {
			t.Errorf("%d calls at once of a target that takes 3", eu.service.most)
		}
	})
}

// TestRoutes_drainHandsBackWhatWaitsForItsTarget.
func TestRoutes_drainHandsBackWhatWaitsForItsTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency = 8
		eu, us := targets(concurrency)
		eu.service.does(fine(time.Second))
		w := work(mixed(500, 40), concurrency, bySubject, eu, us)
		until(t, "jobs wait for us", time.Minute, func() bool { return w.pool.Stats().Parked == concurrency })
		w.stop()
		s := w.pool.Stats()
		pulled, _, _, _ := w.stream.counts()
		w.stream.mu.Lock()
		settled := 0
		for _, n := range w.stream.settled {
			settled += n
		}
		w.stream.mu.Unlock()
		if s.Parked != 0 || s.Held != [job.Priorities]int{} || settled != pulled {
			t.Errorf("after the drain %+v; %d of %d deliveries settled", s, settled, pulled)
		}
	})
}
