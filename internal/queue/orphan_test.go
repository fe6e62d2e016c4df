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

// holder has the delivery of a consumer that has just been deleted.
type holder struct {
	*kit
	conn     *queue.Conn
	said     *journal
	source   *queue.Source
	got      *catcher
	delivery job.Delivery
}

func newHolder(t *testing.T) *holder {
	t.Helper()
	h := &holder{kit: newKit(t), got: newCatcher()}
	h.conn, h.said = h.dialAs(queue.Config{})
	h.source = h.kit.source(h.conn, 30*time.Second)
	t.Cleanup(run(h.source, h.got))
	h.supervise(h.conn, h.source)
	h.source.Request(1)
	h.publish(1)
	h.delivery = h.got.await(t, 1)[0]
	h.do(h.js.DeleteConsumer(t.Context(), "JOBS", "p-normal"))
	return h
}

func (h *holder) awaitNoticed() {
	h.t.Helper()
	h.awaitFor("it is noticed", func() bool { return h.said.times(disowned) == 1 })
}

// TestOrphan_whatIsOfAConsumerThatIsGoneIsNotTakenFromOthers: what is said of a
// delivery names stream, consumer and numbers only, and is as good for a consumer
// of the same name that was made since (found by sim, I9).
func TestOrphan_whatIsOfAConsumerThatIsGoneIsNotTakenFromOthers(t *testing.T) {
	for _, verb := range []job.Verb{job.Nak, job.Term} {
		h := newHolder(t)
		other := newCatcher()
		o := h.kit.source(h.dial(), 30*time.Second)
		t.Cleanup(run(o, other))
		o.Request(1)
		now := other.await(t, 1)[0]
		h.awaitNoticed()
		if err := h.delivery.Settle(verb, 0); !errors.Is(err, job.ErrLeaseLost) {
			t.Errorf("verb %d got %v, want that the lease is lost", verb, err)
		}
		h.flush(h.conn)
		if i := h.consumer(); i.NumAckPending != 1 || i.NumRedelivered != 0 || h.left() != 1 {
			t.Errorf("verb %d: the job was taken from who has it: %+v", verb, i)
		}
		settle(t, job.Ack, now)
	}
}

// TestOrphan_theAckOfASuccessCounts: it is done, whoever else has it.
func TestOrphan_theAckOfASuccessCounts(t *testing.T) {
	h := newHolder(t)
	h.awaitNoticed()
	settle(t, job.Ack, h.delivery)
	h.source.Request(1) // it comes again, and is known
	h.flush(h.conn)
	h.awaitFor("it is gone", func() bool { return h.left() == 0 })
	if n := len(h.got.await(t, 1)); n != 1 {
		t.Errorf("%d deliveries, want 1", n)
	}
}

// TestOrphan_whatTheNewConsumerBringsHereIsOursAgain: one replica alone loses
// nothing by it.
func TestOrphan_whatTheNewConsumerBringsHereIsOursAgain(t *testing.T) {
	h := newHolder(t)
	h.awaitNoticed()
	h.source.Request(1)
	h.awaitFor("it came again", func() bool { return h.source.Stats().Suppressed == 1 })
	settle(t, job.Nak, h.delivery)
	h.source.Request(1)
	if again := h.got.await(t, 2)[1]; again.Job().Deliveries != 2 {
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
