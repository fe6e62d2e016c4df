package queue_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/queue"
)

// TestSupervision_jobsThatTheStreamDropsAreCounted: by age, by number, by hand.
// Each time two of seven are in hand, and those of another subject are not ours.
func TestSupervision_jobsThatTheStreamDropsAreCounted(t *testing.T) {
	for _, c := range []struct {
		name   string
		stream jetstream.StreamConfig
		drop   func(k *kit)
	}{
		{"max_age", jetstream.StreamConfig{MaxAge: 2 * time.Second, Retention: jetstream.WorkQueuePolicy}, func(*kit) {}},
		{"max_age of a limits stream", jetstream.StreamConfig{MaxAge: 2 * time.Second}, func(*kit) {}},
		{"discard old", jetstream.StreamConfig{MaxMsgs: 14, Discard: jetstream.DiscardOld, Retention: jetstream.WorkQueuePolicy}, func(k *kit) {
			for range 14 {
				_, err := k.js.Publish(k.t.Context(), "other.a", nil)
				k.do(err)
			}
		}},
		{"purge", jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy}, func(k *kit) { k.do(k.stream.Purge(k.t.Context())) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.stream.Subjects = []string{"jobs.>", "other.>"}
			k := newKitWith(t, c.stream)
			conn, said := k.dialAs(queue.Config{})
			s, got := k.source(conn, 30*time.Second), newCatcher()
			t.Cleanup(run(s, got))
			k.publish(7)
			for range 7 {
				_, err := k.js.Publish(t.Context(), "other.a", nil)
				k.do(err)
			}
			s.Request(2)
			got.await(t, 2)
			k.awaitFor("the backlog was seen", func() bool {
				l, err := s.Lag(t.Context())
				return err == nil && l.Pending == 5
			})
			c.drop(k)
			k.awaitFor("all five are counted", func() bool {
				_, err := s.Lag(t.Context())
				return err == nil && s.Stats().Lost == 5
			})
			if n := said.times("jobs left the stream before anybody took them"); n != 1 {
				t.Errorf("said %d times", n)
			}
			if _, err := s.Lag(t.Context()); err != nil || s.Stats().Lost != 5 {
				t.Errorf("%d jobs counted, want 5 (%v)", s.Stats().Lost, err)
			}
		})
	}
}

// TestSupervision_nothingIsCountedAsLostThatWasDone over restarts, redeliveries
// and a broker that is killed.
func TestSupervision_nothingIsCountedAsLostThatWasDone(t *testing.T) {
	k := newKit(t)
	c, _ := k.dialAs(queue.Config{})
	s, w := k.working(c)
	for round := range 3 {
		k.publish(200)
		w.await(t, 200*(round+1))
		k.flush(c)
		k.broker.Restart()
	}
	k.answers()
	k.awaitFor("all are done", func() bool { return k.left() == 0 })
	k.awaitFor("the source is ready", func() bool { return s.Stats().Ready })
	for range 3 {
		k.lag(c, s)
	}
	if lost := s.Stats().Lost; lost != 0 {
		t.Errorf("%d jobs counted as lost, none was", lost)
	}
}
