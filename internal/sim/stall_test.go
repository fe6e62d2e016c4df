package sim

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/queue"
)

// kept is a receiver that keeps what it gets.
type kept struct {
	deliveries chan job.Delivery
}

func (k kept) Deliver(d job.Delivery, _ uint64) { k.deliveries <- d }
func (k kept) Returned(int)                     {}

// TestStall_whatComesOverAnInboxThatWasGivenUpCountsAsOldAsItMayBe: requests that
// were given up wait at the broker yet, while nothing is asked for any more, so
// that no sign of life is missed when the connection stands still. Found by
// SIM_SEED=1073: a job was called for that was somebody else's.
func TestStall_whatComesOverAnInboxThatWasGivenUpCountsAsOldAsItMayBe(t *testing.T) {
	conforms(t, func(l *lab) {
		way := &link{to: l.broker}
		conn, err := queue.Dial(queue.Config{URL: "nats://sim"}.WithDefaults(), slog.New(slog.DiscardHandler), nats.InProcessServer(way))
		if err != nil {
			l.Fatal(err)
		}
		defer conn.Close()
		s := conn.Source(queue.SourceConfig{
			Stream: jobStream, Consumer: "pool0-normal", Subjects: []string{"jobs.0.normal"}, Priority: job.Normal, AckWait: labAckWait, MaxMessage: 1000, Limit: 10,
		})
		ctx, stop := context.WithCancel(l.Context())
		got := kept{make(chan job.Delivery, 10)}
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx, got) })
		defer running.Wait()
		defer stop()

		standStill := func(lasts time.Duration, jobs ...string) {
			way.stall()
			for _, j := range jobs {
				l.publish(j)
			}
			time.Sleep(lasts)
			way.flow()
			time.Sleep(500 * time.Millisecond)
		}
		next := func() job.Delivery {
			select {
			case d := <-got.deliveries:
				return d
			case <-time.After(time.Minute):
				l.Fatal("nothing came within a minute")
				return nil
			}
		}
		s.Request(2)
		time.Sleep(500 * time.Millisecond)
		standStill(3 * time.Second)         // the first request is given up, and a second made
		standStill(3*time.Second, "a", "b") // so is that; each has one of two jobs left, and a third is not needed
		for range 2 {
			_ = next().Settle(job.Ack, 0) // whoever has it now
		}
		standStill(labAckWait+500*time.Millisecond, "c") // nobody waits for anything
		if lasts := time.Until(next().LeaseUntil()); lasts > 0 {
			l.Errorf("what lay in the network for longer than its lease is believed to be ours for another %s", lasts)
		}
	})
}
