package pool_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

// flood publishes n jobs to a stream, published so long ago.
func flood(s *stream, name string, n int, age time.Duration) {
	for i := range n {
		s.publish(&job.Job{
			ID: fmt.Sprintf("%s-%d", name, i), Stream: name, Sequence: uint64(i + 1), Priority: s.priority, Deliveries: 1, Enqueued: time.Now().Add(-age),
		})
	}
}

// startedOf counts how many jobs with this name have started.
func (w *world) startedOf(name string) (n int) {
	w.handler.mu.Lock()
	defer w.handler.mu.Unlock()
	for _, id := range w.handler.order {
		if strings.HasPrefix(id, name+"-") {
			n++
		}
	}
	return n
}

// TestPromotion_oldJobsShareWithThePriorityAbove: under sustained overload of
// normal, low gets one start in twenty; once its jobs are old, half.
func TestPromotion_oldJobsShareWithThePriorityAbove(t *testing.T) {
	for _, c := range []struct {
		name     string
		age      time.Duration
		min, max int // of the 400 that start
	}{
		{"young", 0, 15, 30},
		{"old", 16 * time.Minute, 180, 220},
	} {
		synctest.Test(t, func(t *testing.T) {
			normal, low := newStream(job.Normal, 0), newStream(job.Low, 0)
			w := start(t, pool.Config{Concurrency: 4}, takes(time.Second), normal, low)
			flood(normal, "normal", 1000, 0)
			flood(low, "low", 1000, c.age)
			time.Sleep(100*time.Second - time.Millisecond)
			synctest.Wait()
			if got := w.startedOf("low"); got < c.min || got > c.max {
				t.Errorf("%s: %d of %d jobs that started are low, want %d to %d", c.name, got, w.handler.started(), c.min, c.max)
			}
			w.stop()
			w.settledOnce()
		})
	}
}

// TestPromotion_comesWhileAJobWaits: it need not be old when it arrives.
func TestPromotion_comesWhileAJobWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		normal, low := newStream(job.Normal, 0), newStream(job.Low, 0)
		cfg := pool.Config{Concurrency: 1, Priorities: map[string]pool.Priority{"low": {PromoteAfter: 3500 * time.Millisecond}}}
		w := start(t, cfg, takes(time.Second), normal, low)
		flood(normal, "normal", 100, 0)
		time.Sleep(time.Millisecond)
		flood(low, "low", 1, 0)
		time.Sleep(3 * time.Second)
		if n := w.startedOf("low"); n != 0 {
			t.Fatal("the low job started past normal ones that waited")
		}
		time.Sleep(2500 * time.Millisecond)
		if n := w.startedOf("low"); n != 1 {
			t.Errorf("the low job has not started 2 s after it began to count as normal")
		}
		w.stop()
		w.settledOnce()
	})
}

// TestInvariant32_criticalKeepsItsGoodputAndLowGoesOn.
func TestInvariant32_criticalKeepsItsGoodputAndLowGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		critical, low := newStream(job.Critical, 0), newStream(job.Low, 0)
		w := start(t, pool.Config{Concurrency: 5}, takes(time.Second), critical, low)
		flood(critical, "critical", 10_000, 0)
		flood(low, "low", 10_000, 0)
		time.Sleep(200*time.Second - time.Millisecond)
		synctest.Wait()
		if n, all := w.startedOf("critical"), 1000; n < all*95/100 {
			t.Errorf("%d critical jobs started where %d could, want 95 in 100", n, all)
		}
		if n := w.startedOf("low"); n < 30 {
			t.Errorf("%d low jobs started, want some", n)
		}
		w.stop()
		w.settledOnce()
	})
}

// TestInvariant30_withoutOthersThePriorityHasItAll.
func TestInvariant30_withoutOthersThePriorityHasItAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, pool.Config{Concurrency: 60}, takes(time.Second), newStream(job.Critical, 1000), newStream(job.High, 0), newStream(job.Low, 0))
		for range 10 {
			time.Sleep(time.Second)
			synctest.Wait()
			if n := w.pool.Stats().InFlight; n != 60 {
				t.Errorf("%d critical jobs run, want 60", n)
			}
		}
		w.stop()
		w.settledOnce()
	})
}

// TestWish_lowersAlwaysAndRaisesOnlyIfTrusted.
func TestWish_lowersAlwaysAndRaisesOnlyIfTrusted(t *testing.T) {
	for _, c := range []struct {
		trust bool
		wish  job.Priority
		want  string
	}{
		{false, job.Low, "running normal normal wishing"},
		{true, job.Low, "running normal normal wishing"},
		{false, job.Critical, "running normal wishing normal"},
		{true, job.Critical, "running wishing normal normal"},
	} {
		synctest.Test(t, func(t *testing.T) {
			normal, low := newStream(job.Normal, 0), newStream(job.Low, 0)
			w := start(t, pool.Config{Concurrency: 1, Prefetch: 3, TrustPriority: c.trust}, takes(time.Second), normal, low)
			for i, name := range []string{"running", "normal", "wishing", "normal"} {
				j := &job.Job{ID: name, Stream: "S", Sequence: uint64(i + 1), Priority: job.Normal, Deliveries: 1, Enqueued: time.Now()}
				if name == "wishing" {
					j.Priority = c.wish
				}
				normal.publish(j)
				synctest.Wait()
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if got := strings.Join(w.handler.order, " "); got != c.want {
				t.Errorf("wish %s, trusted %v: order is %s, want %s", c.wish, c.trust, got, c.want)
			}
			w.stop()
		})
	}
}

// TestOnShed_oldJobsWithoutRoomGoAndYoungOnesWait.
func TestOnShed_oldJobsWithoutRoomGoAndYoungOnesWait(t *testing.T) {
	for _, c := range []struct{ onShed, verb string }{{"drop", "ack"}, {"dead_letter", "term"}, {"defer", "none"}} {
		synctest.Test(t, func(t *testing.T) {
			high, low := newStream(job.High, 0), newStream(job.Low, 0)
			cfg := pool.Config{Concurrency: 2, Priorities: map[string]pool.Priority{"low": {OnShed: c.onShed, ShedAfter: 10 * time.Second}}}
			w := start(t, cfg, takes(time.Minute), high, low)
			flood(high, "high", 1000, 0)
			synctest.Wait()
			flood(low, "old", 50, 11*time.Second)
			flood(low, "young", 50, 8*time.Second)
			time.Sleep(time.Second)
			want := map[string]int{"none": 0}[c.verb]
			if c.verb != "none" {
				want = 50
			}
			if got := w.outcomes(job.Shed); got != want || low.count(c.verb) != want {
				t.Errorf("on_shed %s: %d were shed, %d settled with %s, want %d", c.onShed, got, low.count(c.verb), c.verb, want)
			}
			time.Sleep(2 * time.Second) // the young have grown old too
			if got := w.outcomes(job.Shed); got != 2*want {
				t.Errorf("on_shed %s: %d were shed in the end, want %d", c.onShed, got, 2*want)
			}
			w.stopFetching()
			w.interrupt(job.ErrInterrupted)
			<-w.done
			w.settledOnce()
		})
	}
}

// TestOnShed_anOutageShedsNothing: what waits because a gate is closed does not
// wait for want of room.
func TestOnShed_anOutageShedsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		high, low := newStream(job.High, 0), newStream(job.Low, 0)
		cfg := pool.Config{Concurrency: 2, MaxPark: time.Hour, Priorities: map[string]pool.Priority{"low": {OnShed: "drop", ShedAfter: 10 * time.Second}}}
		w := start(t, cfg, takes(5*time.Second), high, low)
		flood(high, "high", 2, 0)
		synctest.Wait()
		flood(low, "low", 5, 0)
		synctest.Wait() // one of them waits in hand
		w.gate.set(pool.Hold{Reason: "breaker"})
		time.Sleep(10 * time.Minute)
		synctest.Wait() // who waits looks at the clock each second, at this instant, too
		if n := w.outcomes(job.Shed); n != 0 || w.pool.Stats().Waiting == 0 {
			t.Errorf("%d jobs were dropped during an outage, %d wait", n, w.pool.Stats().Waiting)
		}
		w.gate.set(pool.Hold{Credit: pool.Unlimited})
		time.Sleep(time.Minute) // from here on they are late in a pool that works
		if n := w.outcomes(job.OK) + w.outcomes(job.Shed); n != 7 || w.startedOf("low") == 0 {
			t.Errorf("%d jobs have ended after the outage, want all 7, some of them done", n)
		}
		w.stop()
		w.settledOnce()
	})
}
