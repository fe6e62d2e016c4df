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
	"github.com/workerd/workerd/internal/shed"
)

// lanes is a pool with several targets, each with a gate and a handler that counts.
type lanes struct {
	*world
	gates    []*gate
	handlers []*handler
}

// startLanes makes a pool whose jobs go over n lanes in turn, by their sequence.
func startLanes(t *testing.T, n int, cfg pool.Config, do func(context.Context, *job.Job, job.Record) job.Outcome, streams ...*stream) *lanes {
	l := &lanes{world: &world{t: t, gate: newGate(), letters: &letters{}, ledger: &ledger{records: map[string]job.Record{}}, done: make(chan struct{})}}
	deps := pool.Deps{
		Ledger: l.ledger, Gates: []pool.Gate{l.gate}, Report: l.report,
		Route: func(j *job.Job) int { return int(j.Sequence) % n },
	}
	for i := range n {
		l.gates, l.handlers = append(l.gates, newGate()), append(l.handlers, &handler{do: do})
		deps.Lanes = append(deps.Lanes, pool.Lane{Target: fmt.Sprint(i), Handler: l.handlers[i], DeadLetters: l.letters, Gates: []pool.Gate{l.gates[i]}})
	}
	var used []job.Priority
	for _, s := range streams {
		l.streams[s.priority], deps.Sources[s.priority] = s, s
		used = append(used, s.priority)
	}
	deps.Shares = shed.Config{}.WithDefaults().For(used)
	l.pool = pool.New("p", cfg.WithDefaults(), deps)
	fetch, stop := context.WithCancel(context.Background())
	work, interrupt := context.WithCancelCause(context.Background())
	l.stopFetching, l.interrupt = stop, interrupt
	go func() { l.pool.Run(fetch, work); close(l.done) }()
	return l
}

// TestInvariant33_everyDeliveryIsSettledOnce, over any number of targets whose gates
// open and close as they like, and ends well once all are open. Nothing starts for
// a target that lets nothing through, but for jobs that it had let through before
// and that wait for a permit: the real handler sends these back without a call.
func TestInvariant33_everyDeliveryIsSettledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			n := rapid.IntRange(1, 3).Draw(r, "targets")
			var streams []*stream
			jobs := 0
			for _, p := range rapid.SliceOfNDistinct(rapid.SampledFrom([]job.Priority{job.High, job.Normal, job.Low}), 1, 3, rapid.ID).Draw(r, "used") {
				s := newStream(p, rapid.IntRange(0, 60).Draw(r, "jobs"))
				s.again, s.ackWait = true, time.Hour
				for i := range s.jobs { // so that no two streams have the same
					s.jobs[i].Stream = p.String()
				}
				jobs += len(s.jobs)
				streams = append(streams, s)
			}
			cfg := pool.Config{Concurrency: rapid.IntRange(1, 6).Draw(r, "concurrency"), Prefetch: rapid.IntRange(0, 3).Draw(r, "prefetch"), MaxPark: 5 * time.Second}
			l := startLanes(t, n, cfg, takes(time.Duration(rapid.IntRange(0, 300).Draw(r, "ms"))*time.Millisecond), streams...)
			for range rapid.IntRange(0, 12).Draw(r, "steps") {
				i := rapid.IntRange(-1, n-1).Draw(r, "gate")
				g := l.gate
				if i >= 0 {
					g = l.gates[i]
				}
				h := pool.Hold{Credit: pool.Unlimited}
				if credit := rapid.IntRange(-1, 2).Draw(r, "credit"); credit >= 0 {
					h = pool.Hold{Credit: credit, Reason: "breaker", Down: rapid.Bool().Draw(r, "down"), Full: rapid.Bool().Draw(r, "full"), LowestFirst: rapid.Bool().Draw(r, "lowest")}
					if credit == 0 && rapid.Bool().Draw(r, "known") {
						h.Until = time.Now().Add(time.Duration(rapid.IntRange(1, 20).Draw(r, "until")) * time.Second)
					}
				}
				g.set(h)
				synctest.Wait()
				before, passed := 0, l.pool.Stats().Waiting // for a permit
				if i >= 0 {
					before = l.handlers[i].started()
				}
				time.Sleep(time.Duration(rapid.IntRange(1, 3000).Draw(r, "wait")) * time.Millisecond)
				synctest.Wait()
				if i >= 0 && h.Credit == 0 && !h.Full && l.handlers[i].started() > before+passed {
					r.Errorf("%d jobs started for a target that lets nothing through, %d had passed before", l.handlers[i].started()-before, passed)
				}
				if s := l.pool.Stats(); s.InFlight > cfg.Concurrency {
					r.Errorf("%d jobs run, %d may", s.InFlight, cfg.Concurrency)
				}
			}
			for _, g := range append(l.gates, l.gate) {
				g.set(pool.Hold{Credit: pool.Unlimited})
			}
			time.Sleep(time.Hour)
			l.stop()
			acked, delivered, verbs := 0, 0, 0
			for _, s := range streams {
				s.mu.Lock()
				delivered += s.delivered
				for id, settled := range s.settled {
					verbs += len(settled)
					if settled[len(settled)-1] != "ack" {
						r.Errorf("job %s was settled %v", id, settled)
					}
				}
				s.mu.Unlock()
				acked += s.count("ack")
			}
			if acked != jobs || verbs != delivered {
				r.Errorf("%d of %d jobs are done; %d deliveries were settled %d times", acked, jobs, delivered, verbs)
			}
		})
	})
}

// TestInvariant34_aClosedGateAsksForNothing: what comes nevertheless was asked for
// before, and waits or is given back.
func TestInvariant34_aClosedGateAsksForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			s := newStream(job.Normal, rapid.IntRange(0, 30).Draw(r, "jobs"))
			w := start(t, pool.Config{Concurrency: rapid.IntRange(1, 8).Draw(r, "concurrency"), Prefetch: rapid.IntRange(0, 5).Draw(r, "prefetch")},
				takes(time.Duration(rapid.IntRange(1, 50).Draw(r, "ms"))*time.Millisecond), s)
			time.Sleep(time.Duration(rapid.IntRange(0, 200).Draw(r, "before")) * time.Millisecond)
			w.gate.set(pool.Hold{Reason: "breaker", Until: time.Now().Add(time.Duration(rapid.IntRange(1, 120).Draw(r, "for")) * time.Second), Down: true})
			synctest.Wait()
			s.mu.Lock()
			asked, outstanding, delivered := s.wanted+s.delivered, s.wanted, s.delivered
			s.mu.Unlock()
			started := w.handler.started()
			flood(s, "late", 30, 0)
			time.Sleep(time.Second - time.Millisecond)
			synctest.Wait()
			s.mu.Lock()
			if n := s.wanted + s.delivered; n != asked {
				r.Errorf("%d more were asked for through a closed gate", n-asked)
			}
			if n := s.delivered - delivered; n > outstanding {
				r.Errorf("%d came, %d were asked for before", n, outstanding)
			}
			s.mu.Unlock()
			if n := w.handler.started() - started; n != 0 {
				r.Errorf("%d jobs started through a closed gate", n)
			}
			w.interrupt(job.ErrInterrupted)
			w.stop()
			w.settledOnce()
		})
	})
}

// TestRoutes_aConsumerThatIsMostlyDeadCostsNothing: one job was asked for, and does
// not come. Nobody looks at the clock a thousand times a second meanwhile.
func TestRoutes_aConsumerThatIsMostlyDeadCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(job.Normal, 0)
		l := startLanes(t, 2, pool.Config{Concurrency: 2}, takes(time.Millisecond), s)
		l.gates[1].set(pool.Hold{Reason: "breaker", Down: true, Until: time.Now().Add(time.Hour)})
		for i := range 24_200 { // a line of two minutes, 200 a second
			s.publish(&job.Job{ID: fmt.Sprint(i), Stream: "S", Sequence: uint64(2*i + 1), Deliveries: 1, Enqueued: time.Now()})
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if h := l.pool.Stats().Hold; h.Reason != pool.MostlyDead || h.Target != "1" {
			t.Fatalf("the pool says %+v", h)
		}
		l.gates[1].mu.Lock()
		before := l.gates[1].asked
		l.gates[1].mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		l.gates[1].mu.Lock()
		n := l.gates[1].asked - before
		l.gates[1].mu.Unlock()
		if n > 600 {
			t.Errorf("the gate was asked %d times in a minute in which nothing happened", n)
		}
		l.stop()
		l.settledOnce()
	})
}
