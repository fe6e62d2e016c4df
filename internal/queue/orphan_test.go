package queue_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/queue"
)

const disowned = "the consumer is another one than before"

// TestOrphan_whatIsOfAConsumerThatIsGoneIsNotTakenFromOthers: what is said of a
// delivery names stream, consumer and numbers only, and is as good for a consumer
// of the same name that was made since (found by sim, I9).
func TestOrphan_whatIsOfAConsumerThatIsGoneIsNotTakenFromOthers(t *testing.T) {
	for _, verb := range []job.Verb{job.Nak, job.Term} {
		k := newKit(t)
		one, said := k.dialAs(queue.Config{})
		s, c := k.source(one, 30*time.Second), newCatcher()
		t.Cleanup(run(s, c))
		k.supervise(one, s)
		s.Request(1)
		k.publish(1)
		d := c.await(t, 1)[0]
		k.do(k.js.DeleteConsumer(t.Context(), "JOBS", "p-normal"))
		other := newCatcher()
		o := k.source(k.dial(), 30*time.Second)
		t.Cleanup(run(o, other))
		o.Request(1)
		now := other.await(t, 1)[0]
		k.awaitFor("it is noticed", func() bool { return said.times(disowned) == 1 })
		if err := d.Settle(verb, 0); !errors.Is(err, job.ErrLeaseLost) {
			t.Errorf("verb %d got %v, want that the lease is lost", verb, err)
		}
		k.flush(one)
		if i := k.consumer(); i.NumAckPending != 1 || i.NumRedelivered != 0 || k.left() != 1 {
			t.Errorf("verb %d: the job was taken from who has it: %+v", verb, i)
		}
		settle(t, job.Ack, now)
	}
}

// TestOrphan_theAckOfASuccessCounts: it is done, whoever else has it.
func TestOrphan_theAckOfASuccessCounts(t *testing.T) {
	k := newKit(t)
	c, said := k.dialAs(queue.Config{})
	s, got := k.source(c, 30*time.Second), newCatcher()
	t.Cleanup(run(s, got))
	k.supervise(c, s)
	s.Request(1)
	k.publish(1)
	d := got.await(t, 1)[0]
	k.do(k.js.DeleteConsumer(t.Context(), "JOBS", "p-normal"))
	k.awaitFor("it is noticed", func() bool { return said.times(disowned) == 1 })
	settle(t, job.Ack, d)
	s.Request(1) // it comes again, and is known
	k.flush(c)
	k.awaitFor("it is gone", func() bool { return k.left() == 0 })
	if n := len(got.await(t, 1)); n != 1 {
		t.Errorf("%d deliveries, want 1", n)
	}
}

// TestOrphan_whatTheNewConsumerBringsHereIsOursAgain: one replica alone loses
// nothing by it.
func TestOrphan_whatTheNewConsumerBringsHereIsOursAgain(t *testing.T) {
	k := newKit(t)
	c, said := k.dialAs(queue.Config{})
	s, got := k.source(c, 30*time.Second), newCatcher()
	t.Cleanup(run(s, got))
	k.supervise(c, s)
	s.Request(1)
	k.publish(1)
	d := got.await(t, 1)[0]
	k.do(k.js.DeleteConsumer(t.Context(), "JOBS", "p-normal"))
	k.awaitFor("it is noticed", func() bool { return said.times(disowned) == 1 })
	s.Request(1)
	k.awaitFor("it came again", func() bool { return s.Stats().Suppressed == 1 })
	settle(t, job.Nak, d)
	s.Request(1)
	if again := got.await(t, 2)[1]; again.Job().Deliveries != 2 {
		t.Errorf("delivery %d, want the second of the new consumer", again.Job().Deliveries)
	}
}

// TestOrphan_aCountThatBeginsAnewIsLookedInto: nobody asks for the consumer here
// but the source itself, and what came since is of the new one.
func TestOrphan_aCountThatBeginsAnewIsLookedInto(t *testing.T) {
	k := newKitWith(t, jetstream.StreamConfig{Subjects: []string{"jobs.>"}}) // in a work queue it could not begin with the third
	c, said := k.dialAs(queue.Config{})
	s, got := k.source(c, 30*time.Second), newCatcher()
	t.Cleanup(run(s, got))
	s.Request(2)
	k.publish(2)
	old := got.await(t, 2)
	was, err := k.js.Consumer(t.Context(), "JOBS", "p-normal")
	k.do(err)
	k.do(k.js.DeleteConsumer(t.Context(), "JOBS", "p-normal"))
	cfg := was.CachedInfo().Config
	cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, 3
	_, err = k.js.CreateConsumer(context.Background(), "JOBS", cfg)
	k.do(err)
	s.Request(1)
	k.publish(1)
	fresh := got.await(t, 3)[2]
	k.awaitFor("it is noticed", func() bool { return said.times(disowned) == 1 })
	if err := old[0].Settle(job.Nak, 0); !errors.Is(err, job.ErrLeaseLost) {
		t.Errorf("got %v, want that the lease is lost", err)
	}
	settle(t, job.Nak, fresh)
	settle(t, job.Ack, old[1])
}
