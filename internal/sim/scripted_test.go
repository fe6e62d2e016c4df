package sim

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/attempts"
	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/gate"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/shed"
)

// These scenarios are told step by step, as they take coincidences that chance
// brings about too seldom. They run before those by chance.

// someone is a client of the lab with a source of its own, and keeps what it gets.
type someone struct {
	*lab
	link *link
	conn *queue.Conn
	*queue.Source
	got  chan job.Delivery
	stop func() // leaves
}

// someone comes and asks for n jobs.
func (l *lab) someone(n int) *someone {
	l.Helper()
	s := l.stranger()
	s.runs(func(ctx context.Context) { s.Run(ctx, s) })
	s.Request(n)
	l.wait(500 * time.Millisecond)
	return s
}

// pool is someone who works as workerd does, one job at a time.
func (l *lab) pool(h pool.Handler) *someone {
	l.Helper()
	s := l.stranger()
	p := pool.New("pool0", pool.Config{Target: "t", Stream: jobStream, Concurrency: 1, AckWait: labAckWait}.WithDefaults(), pool.Deps{
		Sources: [job.Priorities]pool.Source{job.Normal: s.Source},
		Ledger:  attempts.New(s.conn, attempts.Config{}.WithDefaults()),
		Lanes: []pool.Lane{{
			Handler:     h,
			DeadLetters: dlq.New(s.conn, dlq.Config{}.WithDefaults(), "pool0", "t"),
			Gates:       []pool.Gate{gate.Breaker(breaker.New(breakerConfig(), func(breaker.Change) {}), breaker.ProbeHighest)},
		}},
		Shares: shed.Config{}.WithDefaults().For([]job.Priority{job.Normal}),
		Report: func(pool.Report) {},
	})
	s.runs(func(ctx context.Context) { p.Run(ctx, l.Context()) })
	l.wait(500 * time.Millisecond)
	return s
}

// stranger is someone who does nothing yet.
func (l *lab) stranger() *someone {
	l.Helper()
	s := &someone{lab: l, link: &link{to: l.broker}, got: make(chan job.Delivery, 10)}
	var err error
	s.conn, err = queue.Dial(queue.Config{URL: "nats://sim"}.WithDefaults(), slog.New(slog.DiscardHandler), nats.InProcessServer(s.link))
	if err != nil {
		l.Fatal(err)
	}
	s.stop = s.conn.Close
	s.Source = s.conn.Source(queue.SourceConfig{
		Stream: jobStream, Consumer: "pool0-normal", Subjects: []string{"jobs.0.normal"}, Priority: job.Normal, AckWait: labAckWait, MaxMessage: 1000, Limit: 10,
	})
	return s
}

func (s *someone) runs(run func(context.Context)) {
	ctx, end := context.WithCancel(s.Context())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	s.stop = func() { end(); running.Wait(); s.conn.Close() }
}

// Deliver implements job.Receiver.
func (s *someone) Deliver(d job.Delivery, _ uint64) { s.got <- d }

// Returned implements job.Receiver.
func (s *someone) Returned(n int) { s.Request(n) }

func (s *someone) next(within time.Duration) job.Delivery {
	s.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case d := <-s.got:
		return d
	case <-timer.C:
		s.Fatalf("no job came within %s", within)
		return nil
	}
}

// standStill lets nothing move on the connection for a while; meanwhile there
// are new jobs.
func (s *someone) standStill(lasts time.Duration, jobs ...string) {
	s.Helper()
	s.link.stall()
	for _, j := range jobs {
		s.publish(j)
	}
	s.wait(lasts)
	s.link.flow()
	s.wait(500 * time.Millisecond)
}

// holder is someone who has the only job.
func (l *lab) holder() (*someone, job.Delivery) {
	l.Helper()
	s := l.someone(1)
	l.publish("a")
	return s, s.next(time.Minute)
}

// keeps fails if another gets a job from whoever has it and gives signs of life.
func (l *lab) keeps(has job.Delivery, other *someone) {
	l.Helper()
	for range 10 {
		has.Extend()
		l.wait(labAckWait / 4)
	}
	select {
	case <-other.got:
		l.Error("it was taken from who had it")
	default:
	}
}

func (l *lab) wait(d time.Duration) { pause(l.Context(), d) }

// TestSim_whatLayInTheNetworkCountsAsOldAsItMayBe: a connection that stood still for
// longer than a lease brings jobs that are somebody else's.
func TestSim_whatLayInTheNetworkCountsAsOldAsItMayBe(t *testing.T) {
	conforms(t, func(l *lab) {
		s := l.someone(1)
		defer s.stop()
		s.standStill(labAckWait+500*time.Millisecond, "a")
		if lasts := time.Until(s.next(time.Minute).LeaseUntil()); lasts > 0 {
			l.Errorf("it is believed to be ours for another %s", lasts)
		}
	})
}

// TestSim_whatComesOverAnInboxThatWasGivenUpCountsAsOldAsItMayBe: requests that were
// given up wait at the broker yet, while nothing is asked for any more, so that no
// sign of life is missed when the connection stands still. Found by SIM_SEED=1073:
// a job was called for that was somebody else's.
func TestSim_whatComesOverAnInboxThatWasGivenUpCountsAsOldAsItMayBe(t *testing.T) {
	conforms(t, func(l *lab) {
		s := l.someone(2)
		defer s.stop()
		s.standStill(3 * time.Second)         // the first request is given up, and a second made
		s.standStill(3*time.Second, "a", "b") // so is that; each has one of two jobs left, and a third is not needed
		for range 2 {
			_ = s.next(time.Minute).Settle(job.Ack, 0) // whoever has it now
		}
		asks := time.AfterFunc(labAckWait, func() { s.Request(1) }) // until then nobody waits for anything
		defer asks.Stop()
		s.standStill(labAckWait+500*time.Millisecond, "c")
		if lasts := time.Until(s.next(time.Minute).LeaseUntil()); lasts > 0 {
			l.Errorf("it is believed to be ours for another %s", lasts)
		}
	})
}

// timed are jobs that say how long they take, and what became of them.
type timed chan error

// Handle implements pool.Handler.
func (t timed) Handle(ctx context.Context, j *job.Job, _ job.Record, _ <-chan struct{}) job.Outcome {
	takes, err := time.ParseDuration(string(j.Payload))
	if pause(ctx, takes); err == nil {
		err = context.Cause(ctx)
	}
	t <- err
	return job.Outcome{Action: job.Done}
}

func (t timed) next(l *lab) error {
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	select {
	case err := <-t:
		return err
	case <-timer.C:
		return errors.New("no job came to its end within a minute")
	}
}

// TestSim_whatHasLittleLeftOfItsLeaseKeepsIt: a job that may have lain in the network
// for nearly a lease needs a sign of life before the pool's next look at its leases.
func TestSim_whatHasLittleLeftOfItsLeaseKeepsIt(t *testing.T) {
	conforms(t, func(l *lab) {
		ended := make(timed, 2)
		s := l.pool(ended)
		defer s.stop()
		l.publish("0s") // seen now, after half a second, so that the lease does not end as the pool looks at it
		l.wait(100 * time.Millisecond)
		s.standStill(labAckWait-200*time.Millisecond, "8s")
		for range 2 {
			if err := ended.next(l); err != nil {
				l.Error(err)
			}
		}
	})
}

// TestSim_aSignOfLifeThatComesTooLateChangesNothing: it stood still until somebody else
// had the job, and the broker confirms it.
func TestSim_aSignOfLifeThatComesTooLateChangesNothing(t *testing.T) {
	conforms(t, func(l *lab) {
		first, had := l.holder()
		defer first.stop()
		second := l.someone(1)
		defer second.stop()
		l.wait(labAckWait / 2)
		first.link.stall()
		had.Extend()
		second.next(labAckWait)
		l.wait(500 * time.Millisecond)
		first.link.flow()
		l.wait(500 * time.Millisecond)
		if lasts := time.Until(had.LeaseUntil()); lasts > 0 {
			l.Errorf("it is believed to be ours for another %s", lasts)
		}
	})
}

// TestSim_whatIsGivenBackTooLateIsNotTakenFromOthers: a job is given back while
// the broker cannot be reached, and somebody else has it when it can be.
func TestSim_whatIsGivenBackTooLateIsNotTakenFromOthers(t *testing.T) {
	conforms(t, func(l *lab) {
		first, had := l.holder()
		defer first.stop()
		first.link.leave()
		l.wait(time.Second)
		_ = had.Settle(job.Nak, 0) // it waits for a connection
		second := l.someone(1)
		defer second.stop()
		has := second.next(labAckWait)
		third := l.someone(1)
		defer third.stop()
		first.link.back()
		l.keeps(has, third)
		if !first.conn.Connected() {
			l.Error("the first is not connected again")
		}
	})
}

// TestSim_whatWasGivenBackIsNotTakenFromOthers: a job is given back, the confirmation
// is lost, and somebody else has it when it would be time to give it back again.
func TestSim_whatWasGivenBackIsNotTakenFromOthers(t *testing.T) {
	conforms(t, func(l *lab) {
		first, had := l.holder()
		defer first.stop()
		second := l.someone(1)
		defer second.stop()
		first.link.deafen()
		_ = had.Settle(job.Nak, 0)
		has := second.next(labAckWait / 2)
		third := l.someone(1)
		defer third.stop()
		l.keeps(has, third)
	})
}

// TestSim_whatIsOfAConsumerThatIsGoneIsNotTakenFromOthers: who has a job of the old
// consumer gives it back once it is known that there is another one.
func TestSim_whatIsOfAConsumerThatIsGoneIsNotTakenFromOthers(t *testing.T) {
	conforms(t, func(l *lab) {
		first, had := l.holder()
		defer first.stop()
		if err := l.js.DeleteConsumer(l.Context(), jobStream, "pool0-normal"); err != nil {
			l.Fatal(err)
		}
		l.createConsumer()
		second := l.someone(1)
		defer second.stop()
		has := second.next(labAckWait)
		if _, err := first.Lag(l.Context()); err != nil { // as app does now and then
			l.Fatal(err)
		}
		l.wait(time.Second)
		third := l.someone(1)
		defer third.stop()
		_ = had.Settle(job.Nak, 0)
		l.keeps(has, third)
	})
}

// TestSim_flushWaitsForAConnection: what was done while the broker could not be
// reached is said before workerd ends.
func TestSim_flushWaitsForAConnection(t *testing.T) {
	conforms(t, func(l *lab) {
		first, had := l.holder()
		defer first.stop()
		first.link.leave()
		_ = had.Settle(job.Ack, 0)
		time.AfterFunc(time.Second, first.link.back)
		if err := first.conn.Flush(l.Context()); err != nil {
			l.Error(err)
		}
		if left, err := l.broker.left(l.Context()); left != 0 || err != nil {
			l.Errorf("%d jobs are left (%v)", left, err)
		}
	})
}
