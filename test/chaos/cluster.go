package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// clusterStorm kills the leader of the stream of a three-node cluster again
// and again, now and then stops a node in an orderly way, and at last kills
// all three. Each time it waits until all are there again.
func clusterStorm(ctx context.Context, w *world) error {
	r := rand.New(rand.NewPCG(w.seed, 33))
	for n := 0; pause(ctx, between(r, 1500*time.Millisecond, 3*time.Second)); n++ {
		if err := w.whole(ctx); err != nil {
			return err
		}
		began := w.clock()
		kind, whom, err := w.fell(ctx, r, n)
		if err != nil {
			return err
		}
		stalled := w.untilTaken(ctx)
		// The leases are longer than an election takes; what the broker had not
		// confirmed is sent again. Only an ack that was under way is explained,
		// and with all three gone, what they had not written down.
		f := fault{Kind: kind, Whom: whom, Began: began, Ended: w.clock(), Excuses: []string{"*"}, Before: ackOnItsWay}
		if whom == "all" || f.Ended-f.Began > w.ackWait/2 {
			f.Before, f.Wakes = acksFlushed, true
		}
		w.did(f)
		w.event("broker stall", whom, round(stalled))
		if err := w.startBrokers(); err != nil {
			return err
		}
	}
	return nil
}

// fell takes one node down, or all.
func (w *world) fell(ctx context.Context, r *rand.Rand, n int) (kind, whom string, err error) {
	leader, err := w.leader(ctx)
	if err != nil {
		return "", "", err
	}
	switch n % 4 {
	case 1:
		b := w.brokers[r.IntN(len(w.brokers))]
		b.end()
		return "broker stopped, rolling", b.node.Name, nil
	case 3:
		for _, b := range w.brokers {
			b.kill()
		}
		return "broker SIGKILL, all three", "all", w.startBrokers()
	default:
		leader.kill()
		return "broker SIGKILL, leader", leader.node.Name, nil
	}
}

func (w *world) leader(ctx context.Context) (*broker, error) {
	var found *broker
	err := until(ctx, 30*time.Second, "the stream has a leader", func() bool {
		info, err := w.info(ctx)
		for _, b := range w.brokers {
			if err == nil && info.Cluster != nil && info.Cluster.Leader == b.node.Name {
				found = b
			}
		}
		return found != nil
	})
	return found, err
}

func (w *world) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := w.js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	return s.CachedInfo(), nil
}

// whole waits until all nodes are there and have all of the stream.
func (w *world) whole(ctx context.Context) error {
	return until(ctx, time.Minute, "all three nodes are current", func() bool {
		info, err := w.info(ctx)
		if err != nil || info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != len(w.brokers)-1 {
			return false
		}
		for _, p := range info.Cluster.Replicas {
			if !p.Current || p.Offline {
				return false
			}
		}
		return true
	})
}

// untilTaken publishes until the stream takes it and its consumers answer, and
// returns how long that took: what the broker alone takes to recover.
func (w *world) untilTaken(ctx context.Context) time.Duration {
	began := w.clock()
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("%s-probe-%d-%d", w.name, began.Milliseconds(), n)
		pub, cancel := context.WithTimeout(ctx, time.Second)
		ack, err := w.js.Publish(pub, "jobs.high", payload(w.seed, id, w.size), jetstream.WithMsgID(id))
		cancel()
		w.mu.Lock()
		if err == nil {
			w.probes[id] = ack.Sequence
		} else {
			w.unknown = append(w.unknown, id)
		}
		w.mu.Unlock()
		if err == nil {
			break
		}
		pause(ctx, 20*time.Millisecond)
	}
	// The consumers are replicated by themselves and have leaders of their own.
	for _, consumer := range []string{"work-high", "work-normal"} {
		for ctx.Err() == nil && !w.led(ctx, consumer) {
			pause(ctx, 20*time.Millisecond)
		}
	}
	return w.clock() - began
}

func (w *world) led(ctx context.Context, consumer string) bool {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	c, err := w.js.Consumer(ctx, stream, consumer)
	return err == nil && c.CachedInfo().Cluster != nil && c.CachedInfo().Cluster.Leader != ""
}
