package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// clusterStorm does to the nodes of a three-node cluster what happens to nodes,
// one after the other; each time it waits until all are there again. An
// election takes 4 to 9 s (nats-server), so that most of the time is waited.
func clusterStorm(ctx context.Context, w *world) error {
	r := rand.New(rand.NewPCG(w.seed, 33))
	for n := 0; pause(ctx, between(r, 200*time.Millisecond, time.Second)); n++ {
		if err := w.whole(ctx); err != nil {
			return err
		}
		f, err := w.fell(ctx, r, n)
		if err != nil {
			return err
		}
		// Jobs go on and are settled meanwhile, as far as the nodes let them.
		// The end of the load is no end of that.
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		stalled := w.untilTaken(wait)
		cancel()
		if err := w.raise(); err != nil {
			return err
		}
		// The leases are longer than an election takes; what the broker had not
		// confirmed is sent again. Only an ack that was under way is explained,
		// and with all three gone, what they had not written down.
		f.Ended, f.Excuses, f.Before = w.clock(), []string{"*"}, ackOnItsWay
		if f.Whom == "all" || f.Ended-f.Began > w.ackWait/2 {
			f.Before, f.Wakes = acksFlushed, true
		}
		w.did(f)
		w.event("broker stall", f.Whom, round(stalled))
		w.goOn(ctx)
	}
	return nil
}

// fell takes one node down, or all, or stops one.
func (w *world) fell(ctx context.Context, r *rand.Rand, n int) (f fault, err error) {
	leader, err := w.leader(ctx)
	if err != nil {
		return f, err
	}
	f = fault{Whom: leader.node.Name, Began: w.clock()}
	other := w.brokers[(slices.Index(w.brokers, leader)+1+r.IntN(len(w.brokers)-1))%len(w.brokers)]
	switch n % 8 {
	case 0:
		f.Kind = "broker SIGKILL, leader"
		leader.kill()
	case 1:
		f.Kind, f.Whom = "broker SIGKILL, follower", other.node.Name
		other.kill()
	case 2:
		f.Kind = "broker stopped in an orderly way, leader"
		leader.end()
	case 3:
		f.Kind = "broker SIGKILL, leader"
		leader.kill()
		if n < 8 { // its jobs wait for their leases to end, which is long
			return f, nil
		}
		k := w.workers[r.IntN(len(w.workers))]
		w.killWorker(k)
		return f, k.start()
	case 4:
		f.Kind, f.Whom = "broker stopped in an orderly way, follower", other.node.Name
		other.end()
	case 5:
		f.Kind = "broker a lame duck, leader"
		return f, leader.duck()
	case 6: // it wakes up as the leader that it no longer is
		f.Kind = "broker SIGSTOP, leader"
		err := leader.signal(syscall.SIGSTOP)
		pause(ctx, time.Second)
		return f, err
	case 7:
		f.Kind, f.Whom = "broker SIGKILL, all three", "all"
		for _, b := range w.brokers {
			b.kill()
		}
		return f, w.startBrokers()
	}
	return f, nil
}

// raise starts the nodes that are down and lets those go on that are stopped.
func (w *world) raise() error {
	for _, b := range w.brokers {
		if b.running() {
			_ = b.signal(syscall.SIGCONT)
		}
	}
	return w.startBrokers()
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

// goOn publishes a job that tells when the replicas go on. All else may have
// been published before, and the load may be over.
func (w *world) goOn(ctx context.Context) {
	if !w.takes(context.WithoutCancel(ctx), 10*time.Second) {
		w.problem("the broker is there again and takes no job")
	}
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
	for n := 0; ctx.Err() == nil && !w.probe(ctx, fmt.Sprintf("%s-probe-%d-%d", w.pub.prefix, began.Milliseconds(), n)); n++ {
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
