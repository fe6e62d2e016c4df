package pool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

func TestPool_everyJobIsHandledAndSettledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 500)
		w := start(t, pool.Config{Concurrency: 7}, takes(time.Second), s)
		time.Sleep(75 * time.Second)
		synctest.Wait()
		w.stop()
		w.settledOnce()
		if acks := s.count("ack"); acks != 500 {
			t.Errorf("%d acks, want 500", acks)
		}
		if w.handler.most != 7 {
			t.Errorf("%d ran at once, want exactly the limit of 7", w.handler.most)
		}
	})
}

func TestPool_asksForNoMoreThanMayStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 100)
		w := start(t, pool.Config{Concurrency: 5, Prefetch: 2}, takes(time.Minute), s)
		synctest.Wait()
		if s.delivered != 7 {
			t.Errorf("%d jobs in hand, want 5 running + 2 prefetched", s.delivered)
		}
		w.interrupt(job.ErrInterrupted)
		w.stop()
		w.settledOnce()
	})
}

func TestPool_closedGatePullsNothingAndOpenGateGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 100)
		w := start(t, pool.Config{Concurrency: 5}, takes(time.Second), s)
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		w.gate.set(pool.Hold{Reason: "breaker"})
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.handler.started() != 5 {
			t.Errorf("%d jobs started, want only the 5 from before the gate closed", w.handler.started())
		}
		if st := w.pool.Stats(); st.Hold.Reason != "breaker" || time.Since(st.HeldSince) < time.Hour-time.Second {
			t.Errorf("the pool does not say why it is held: %+v", st)
		}
		w.gate.set(pool.Hold{Credit: pool.Unlimited})
		time.Sleep(time.Minute)
		synctest.Wait()
		w.stop()
		w.settledOnce()
		if acks := s.count("ack"); acks != 100 {
			t.Errorf("%d acks, want 100", acks)
		}
	})
}

func TestPool_theStrictestOfSeveralGatesDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, first, second := newStream(job.Normal, 100), newGate(), newGate()
		first.set(pool.Hold{Reason: "breaker"})
		second.set(pool.Hold{Credit: 3})
		w := startBehind(t, []*gate{first, second}, pool.Config{Concurrency: 5}, takes(time.Minute), s)
		synctest.Wait()
		if w.handler.started() != 0 {
			t.Errorf("%d jobs started through a closed gate", w.handler.started())
		}
		first.set(pool.Hold{Credit: pool.Unlimited})
		synctest.Wait()
		if w.handler.started() != 3 {
			t.Errorf("%d jobs started, want the 3 of the stricter gate", w.handler.started())
		}
		first.set(pool.Hold{Reason: "breaker", Until: time.Now().Add(time.Second)})
		second.set(pool.Hold{Reason: "throttled", Until: time.Now().Add(time.Hour)})
		synctest.Wait()
		if h := w.pool.Stats().Hold; h.Reason != "throttled" {
			t.Errorf("the reason is %q, want that of the gate that opens last", h.Reason)
		}
		w.interrupt(job.ErrInterrupted)
		w.stop()
		w.settledOnce()
	})
}

func TestPool_halfOpenGateStartsExactlyItsCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newStream(job.Normal, 100), newGate()
		g.set(pool.Hold{Reason: "breaker"})
		w := startBehind(t, []*gate{g}, pool.Config{Concurrency: 5}, takes(time.Minute), s)
		synctest.Wait()
		if s.delivered != 0 {
			t.Errorf("%d jobs were pulled through a closed gate", s.delivered)
		}
		g.set(pool.Hold{Credit: 2})
		synctest.Wait()
		if s.delivered != 2 || w.handler.started() != 2 {
			t.Errorf("%d pulled, %d started, want the 2 probes", s.delivered, w.handler.started())
		}
		w.interrupt(job.ErrInterrupted)
		w.stop()
		w.settledOnce()
	})
}

func TestPool_jobsRejectedByTheBreakerAreParkedNotCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newStream(job.Normal, 3), newGate()
		w := startBehind(t, []*gate{g}, pool.Config{Concurrency: 5}, func(context.Context, *job.Job, job.Record) job.Outcome {
			g.set(pool.Hold{Reason: "breaker", Until: time.Now().Add(5 * time.Second)})
			return job.Outcome{Action: job.Park, Reason: job.BreakerOpen, After: 5 * time.Second}
		}, s)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if n := s.count("ack") + s.count("nak"); n != 0 {
			t.Errorf("%d jobs were settled while parked", n)
		}
		w.handler.set(takes(0))
		g.set(pool.Hold{Credit: pool.Unlimited})
		time.Sleep(time.Second)
		synctest.Wait()
		w.stop()
		w.settledOnce()
		if acks := s.count("ack"); acks != 3 {
			t.Errorf("%d acks, want 3", acks)
		}
	})
}

// TestPool_aFullTargetIsNotAskedAgainAndAgain: the target takes two calls and
// refuses the others. Those wait until one has ended; they do not take turns in
// being refused, which would keep the processor busy (found by sim).
func TestPool_aFullTargetIsNotAskedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newStream(job.Normal, 8), newGate()
		var mu sync.Mutex
		calls, refused := 0, 0
		refusals := func() int {
			mu.Lock()
			defer mu.Unlock()
			return refused
		}
		w := startBehind(t, []*gate{g}, pool.Config{Concurrency: 4, Prefetch: 4}, func(ctx context.Context, j *job.Job, r job.Record) job.Outcome {
			mu.Lock()
			full := calls == 2 && refused < 10_000
			if full {
				refused++
			} else {
				calls++
			}
			mu.Unlock()
			if full {
				if refusals() <= 2 { // all four permits are taken meanwhile
					time.Sleep(time.Millisecond)
				}
				g.set(pool.Hold{Reason: "limit", Full: true})
				return job.Outcome{Action: job.Park, Reason: "limit"}
			}
			return takes(time.Minute)(ctx, j, r)
		}, s)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		mu.Lock()
		if refused > 20 {
			t.Errorf("refused %d times by a target that is full", refused)
		}
		mu.Unlock()
		w.handler.set(takes(0))
		g.set(pool.Hold{Credit: pool.Unlimited})
		time.Sleep(time.Minute)
		synctest.Wait()
		w.stop()
		w.settledOnce()
		if acks := s.count("ack"); acks != 8 {
			t.Errorf("%d acks, want 8", acks)
		}
	})
}

func TestPool_longHoldGivesWaitingJobsBackWithItsDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 8)
		w := start(t, pool.Config{Concurrency: 2, Prefetch: 6, MaxPark: 10 * time.Second}, takes(time.Second), s)
		synctest.Wait()
		w.gate.set(pool.Hold{Reason: "breaker", Until: time.Now().Add(time.Minute)})
		synctest.Wait()
		if n := s.count("nak 1m0s"); n != 6 {
			t.Errorf("%d jobs were given back with the delay of the hold, want the 6 that waited", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		w.stop()
		w.settledOnce()
	})
}

func TestDrain_releasesWaitingDeliveriesAtOnceAndRunningOnesFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 20)
		w := start(t, pool.Config{Concurrency: 4, Prefetch: 6}, takes(10*time.Second), s)
		synctest.Wait()
		w.stopFetching()
		synctest.Wait()
		if n := s.count("nak"); n != 6 {
			t.Errorf("%d jobs were released at once, want the 6 that waited", n)
		}
		select {
		case <-w.pool.Released():
		default:
			t.Error("the pool does not say that everything unstarted is released")
		}
		w.stop()
		w.settledOnce()
		if acks := s.count("ack"); acks != 4 {
			t.Errorf("%d acks, want the 4 that ran", acks)
		}
		if w.handler.started() != 4 {
			t.Errorf("%d jobs started, want none after the drain began", w.handler.started())
		}
	})
}

// TestPool_anAckDoesNotWaitForTheLedger: while it did, the job could come again,
// and was not known to be done (found by sim).
func TestPool_anAckDoesNotWaitForTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newStream(job.Normal, 1), newGate()
		s.jobs[0].Deliveries = 2
		g.set(pool.Hold{Reason: "breaker"})
		w := startBehind(t, []*gate{g}, pool.Config{}, takes(0), s)
		w.ledger.mu.Lock()
		w.ledger.records["S:1"] = job.Record{Attempts: 1} // accounted for: no mark
		w.ledger.takes = 2 * time.Second
		w.ledger.mu.Unlock()
		g.set(pool.Hold{Credit: pool.Unlimited})
		synctest.Wait()
		if n := s.count("ack"); n != 1 {
			t.Errorf("%d acks before the ledger has forgotten the job, want 1", n)
		}
		w.stop()
		w.settledOnce()
	})
}

// TestDrain_aJobWhoseMarkTookTooLongDoesNotStart: a suspect is marked in the
// broker before it runs, and the broker is slow (found by sim).
func TestDrain_aJobWhoseMarkTookTooLongDoesNotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newStream(job.Normal, 1), newGate()
		s.jobs[0].Deliveries = 2
		g.set(pool.Hold{Reason: "breaker"})
		w := startBehind(t, []*gate{g}, pool.Config{}, takes(time.Second), s)
		synctest.Wait()
		w.ledger.mu.Lock()
		w.ledger.takes = 2 * time.Second
		w.ledger.mu.Unlock()
		g.set(pool.Hold{Credit: pool.Unlimited})
		time.Sleep(time.Second)
		w.stop()
		w.settledOnce()
		if n := w.handler.started(); n != 0 || s.count("nak") != 1 {
			t.Errorf("%d jobs started after the drain had begun, %d were handed back", n, s.count("nak"))
		}
	})
}

func TestDrain_interruptedJobsAreHandedBackUncharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 4)
		w := start(t, pool.Config{Concurrency: 4}, takes(time.Hour), s)
		synctest.Wait()
		w.stopFetching()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		w.interrupt(job.ErrInterrupted)
		<-w.done
		w.settledOnce()
		if n := s.count("nak"); n != 4 || w.outcomes(job.Interrupted) != 4 {
			t.Errorf("%d naks, %d interrupted, want 4 of each", n, w.outcomes(job.Interrupted))
		}
	})
}

func TestPool_everythingInHandIsKeptAliveUntilSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 5)
		w := start(t, pool.Config{Concurrency: 2, Prefetch: 3}, takes(5*time.Minute), s)
		time.Sleep(4 * time.Minute) // eight leases: two run, three wait
		synctest.Wait()
		for id, n := range s.extended {
			if n < 8*2 {
				t.Errorf("job %s got %d signs of life in 8 leases", id, n)
			}
		}
		if len(s.extended) != 5 {
			t.Errorf("%d jobs are kept alive, want all 5", len(s.extended))
		}
		w.stopFetching()
		<-w.done
		w.settledOnce()
		if acks := s.count("ack"); acks != 2 {
			t.Errorf("%d acks, want the 2 that ran through the drain", acks)
		}
	})
}

func TestPool_lostLeaseCancelsTheCallAndIsNotSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 1)
		s.deaf = true
		w := start(t, pool.Config{Concurrency: 1}, takes(time.Hour), s)
		time.Sleep(time.Minute)
		synctest.Wait()
		w.stop()
		if w.outcomes(job.LeaseLost) != 1 || s.count("dropped") != 1 {
			t.Errorf("outcomes %+v, settled %v", w.reports, s.settled)
		}
	})
}

// TestPool_whoLostItsLeaseOverwritesNothing: a process that was stopped has an old record
// of a job that others have tried since. Only its own mark is taken back.
func TestPool_whoLostItsLeaseOverwritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newStream(job.Normal, 1), newGate()
		j := s.jobs[0]
		g.set(pool.Hold{Reason: "breaker"})
		s.deaf, j.Deliveries = true, 2
		var w *world
		w = startBehind(t, []*gate{g}, pool.Config{}, func(context.Context, *job.Job, job.Record) job.Outcome {
			time.Sleep(s.ackWait + time.Second)
			w.ledger.mu.Lock()
			defer w.ledger.mu.Unlock()
			w.ledger.records[j.Key()] = job.Record{Attempts: 3, Started: 2}
			return job.Outcome{Action: job.Retry, Charged: true}
		}, s)
		g.set(pool.Hold{Credit: pool.Unlimited})
		time.Sleep(time.Minute)
		w.stop()
		if got, want := w.ledger.records[j.Key()], (job.Record{Attempts: 3, Started: 1}); !cmp.Equal(got, want) {
			t.Errorf("%+v is left, want %+v", got, want)
		}
	})
}

// TestPool_aDeadLetterIsNotSentAfterTheLease: whoever has the job then may do it. A lease
// that is extended meanwhile is none that is over.
func TestPool_aDeadLetterIsNotSentAfterTheLease(t *testing.T) {
	for deaf, want := range map[bool]time.Duration{true: 5 * time.Second, false: 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := newStream(job.Normal, 1)
			s.deaf, s.lay = deaf, s.ackWait-5*time.Second
			g := newGate()
			g.set(pool.Hold{Reason: "breaker"})
			w := startBehind(t, []*gate{g}, pool.Config{}, func(context.Context, *job.Job, job.Record) job.Outcome {
				return job.Outcome{Action: job.DeadLetter, Reason: job.MaxAttempts}
			}, s)
			w.letters.silent = true
			began := time.Now()
			g.set(pool.Hold{Credit: pool.Unlimited})
			time.Sleep(15 * time.Second)
			w.stop()
			if took := w.letters.gaveUp.Sub(began); took != want {
				t.Errorf("broker deaf %v: given up after %s, want %s", deaf, took, want)
			}
		})
	}
}

// TestPool_aLostLeaseIsNoticedAtOnce, not at the next sign of life: else a call
// that has just failed is made again for a job that is somebody else's (found by
// sim, I9).
func TestPool_aLostLeaseIsNoticedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 1)
		s.deaf, s.lay = true, time.Second
		w := start(t, pool.Config{Concurrency: 1}, takes(time.Hour), s)
		time.Sleep(s.ackWait - s.lay + 5*time.Millisecond)
		synctest.Wait()
		if n := w.outcomes(job.LeaseLost); n != 1 {
			t.Errorf("%d jobs were given up 5ms after their lease, want 1", n)
		}
		w.stop()
	})
}

// TestPool_whoWasGivenUpIsNotRunAgainAndAgain: with a fallback the gate is open
// though the target refuses, and who was given up does not get to the fallback
// (found by sim, as a loop).
func TestPool_whoWasGivenUpIsNotRunAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		refused := func(ctx context.Context, _ *job.Job, _ job.Record) job.Outcome {
			if calls.Add(1); calls.Load() < 100 {
				<-ctx.Done()
			}
			return job.Outcome{Action: job.Park, Reason: job.BreakerOpen, After: time.Second}
		}
		w := start(t, pool.Config{Concurrency: 1}, refused, newStream(job.Normal, 1))
		synctest.Wait()
		w.interrupt(job.ErrInterrupted)
		synctest.Wait()
		if n := calls.Load(); n != 1 || w.outcomes(job.Released) != 1 {
			t.Errorf("it was run %d times; outcomes %+v", n, w.reports)
		}
		w.stop()
	})
}

// TestPool_aShortLeaseIsKeptOrGivenUpInTime: of a job that has lain in a process
// that was stopped little is left of the lease, less than until the next look
// (found by sim, I9).
func TestPool_aShortLeaseIsKeptOrGivenUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, deaf := range []bool{false, true} {
			s := newStream(job.Normal, 1)
			s.deaf, s.lay = deaf, s.ackWait-10*time.Millisecond
			w := start(t, pool.Config{Concurrency: 1}, takes(time.Minute), s)
			time.Sleep(15 * time.Millisecond)
			synctest.Wait()
			if n := w.outcomes(job.LeaseLost); (n == 1) != deaf {
				t.Errorf("broker deaf %v: %d jobs were given up after their lease", deaf, n)
			}
			w.stop()
		}
	})
}

// TestPool_aLeaseThatIsOverStartsNoCall: the process was stopped for longer than
// its leases, and finds deliveries that are somebody else's by now (found by
// chaos, stop).
func TestPool_aLeaseThatIsOverStartsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 3)
		s.lay = s.ackWait + time.Millisecond
		w := start(t, pool.Config{Concurrency: 2}, takes(time.Second), s)
		synctest.Wait()
		w.stop()
		if n := w.handler.started(); n != 0 || w.outcomes(job.LeaseLost) != 3 || s.count("dropped") != 3 {
			t.Errorf("%d calls, outcomes %+v, settled %v", n, w.reports, s.settled)
		}
	})
}

func TestPool_deadLetterIsStoredBeforeTheJobIsTerminated(t *testing.T) {
	dead := func(context.Context, *job.Job, job.Record) job.Outcome {
		return job.Outcome{Action: job.DeadLetter, Reason: job.Status4xx, Err: errors.New("no")}
	}
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 1)
		w := start(t, pool.Config{}, dead, s)
		synctest.Wait()
		w.stop()
		w.settledOnce()
		if len(w.letters.put) != 1 || s.count("term") != 1 {
			t.Errorf("dead letters %v, settled %v", w.letters.put, s.settled)
		}
	})
	for why, again := range map[error]string{errors.New("stream is full"): "nak 30s", job.ErrTooLarge: "nak 1h0m0s"} {
		synctest.Test(t, func(t *testing.T) {
			s := newStream(job.Normal, 1)
			g := newGate()
			g.set(pool.Hold{Reason: "breaker"})
			w := startBehind(t, []*gate{g}, pool.Config{}, dead, s)
			w.letters.refuse(why)
			g.set(pool.Hold{Credit: pool.Unlimited})
			synctest.Wait()
			w.stop()
			w.settledOnce()
			if s.count("term") != 0 || s.count(again) != 1 || w.outcomes(job.NoDLQ) != 1 {
				t.Errorf("%v: a job whose dead letter was not stored was settled %v", why, s.settled)
			}
		})
	}
}

func TestPool_attemptsAreCountedOverDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 0)
		var seen []job.Record
		w := start(t, pool.Config{}, func(_ context.Context, _ *job.Job, before job.Record) job.Outcome {
			seen = append(seen, before)
			return job.Outcome{Action: job.Retry, Reason: job.Status5xx, Charged: len(seen) != 2, Err: errors.New("boom")}
		}, s)
		for n := range 4 {
			s.mu.Lock()
			s.jobs = append(s.jobs, &job.Job{ID: "x", Stream: "S", Sequence: 9, Deliveries: n + 1, Enqueued: time.Now()})
			s.mu.Unlock()
			s.Request(0)
			synctest.Wait()
		}
		w.stop()
		for i, want := range []int{0, 1, 1, 2} {
			if seen[i].Attempts != want {
				t.Errorf("delivery %d saw %d attempts, want %d", i+1, seen[i].Attempts, want)
			}
		}
		if seen[3].Deferrals != 1 || len(seen[3].Errors) != 3 {
			t.Errorf("record %+v, want 1 deferral and 3 errors", seen[3])
		}
	})
}

// TestPool_onlySuspectsAreMarkedBeforeTheyRun, and the mark is gone when they
// come back.
func TestPool_onlySuspectsAreMarkedBeforeTheyRun(t *testing.T) {
	for _, c := range []struct {
		name       string
		deliveries int
		before     job.Record
		during     job.Record
		out        job.Outcome
		after      job.Record
		writes     int
	}{
		{"first delivery", 1, job.Record{}, job.Record{}, job.Outcome{Action: job.Done}, job.Record{}, 0},
		{"accounted for", 3, job.Record{Attempts: 2}, job.Record{Attempts: 2}, job.Outcome{Action: job.Retry, Charged: true}, job.Record{Attempts: 3}, 1},
		{"suspect fails", 2, job.Record{}, job.Record{Started: 1}, job.Outcome{Action: job.Retry, Charged: true}, job.Record{Attempts: 1}, 2},
		{"suspect is given back", 4, job.Record{Started: 2}, job.Record{Started: 3}, job.Outcome{Action: job.Release}, job.Record{Started: 2, Deferrals: 1}, 2},
		{"suspect succeeds", 2, job.Record{}, job.Record{Started: 1}, job.Outcome{Action: job.Done}, job.Record{}, 2},
		{"what others know of it is read late", 5, job.Record{Attempts: 3, Unread: true}, job.Record{Attempts: 3, Started: 1}, job.Outcome{Action: job.Retry, Charged: true}, job.Record{Attempts: 4}, 2},
		{"given back", 1, job.Record{}, job.Record{}, job.Outcome{Action: job.Release}, job.Record{}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, g := newStream(job.Normal, 1), newGate()
			j := s.jobs[0]
			j.Deliveries = c.deliveries
			g.set(pool.Hold{Reason: "breaker"})
			var w *world
			w = startBehind(t, []*gate{g}, pool.Config{}, func(_ context.Context, _ *job.Job, seen job.Record) job.Outcome {
				if stored := w.ledger.Load(t.Context(), j); !cmp.Equal(seen, c.during) || !cmp.Equal(stored, c.during) {
					t.Errorf("%s: runs with %+v, %+v is stored; want %+v", c.name, seen, stored, c.during)
				}
				return c.out
			}, s)
			if c.deliveries > 1 {
				w.ledger.unread = c.before.Unread
				c.before.Unread = false
				w.ledger.records[j.Key()] = c.before
			}
			g.set(pool.Hold{Credit: pool.Unlimited})
			synctest.Wait()
			w.stop()
			if got := w.ledger.records[j.Key()]; !cmp.Equal(got, c.after) || w.ledger.writes != c.writes {
				t.Errorf("%s: %+v is left after %d writes, want %+v after %d", c.name, got, w.ledger.writes, c.after, c.writes)
			}
		})
	}
}

func TestPriorities_lowTakesWhatHighDoesNotNeedAndHighGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		high, low := newStream(job.High, 0), newStream(job.Low, 1000)
		w := start(t, pool.Config{Concurrency: 10}, takes(time.Second), high, low)
		time.Sleep(5500 * time.Millisecond)
		synctest.Wait()
		if n := w.pool.Stats().InFlight; n != 10 {
			t.Errorf("%d low jobs run at once, want all 10: nothing else has needed room", n)
		}
		for i := range 200 {
			high.publish(&job.Job{ID: fmt.Sprint("h-", i), Stream: "H", Sequence: uint64(i + 1), Priority: job.High, Deliveries: 1, Enqueued: time.Now()})
		}
		before := low.given()
		time.Sleep(24 * time.Second)
		synctest.Wait()
		if got := high.given(); got != 200 {
			t.Errorf("%d high jobs started within 24 s, want all 200", got)
		}
		if got := low.given() - before; got < 8 || got > 40 {
			t.Errorf("%d low jobs started meanwhile, want about one in twenty", got)
		}
		w.stop()
		w.settledOnce()
		if w.handler.most > 10 {
			t.Errorf("%d ran at once, limit is 10", w.handler.most)
		}
	})
}
