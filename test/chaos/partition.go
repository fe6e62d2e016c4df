package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// partitionStorm cuts the nodes of a cluster off from each other. Replicas and
// the publisher reach all of them all the time, but where even that is cut: a
// leader that is in the minority and does not know it yet is asked and told
// things.
func partitionStorm(ctx context.Context, w *world) error {
	r := rand.New(rand.NewPCG(w.seed, 44))
	if err := w.whole(ctx); err != nil {
		return err
	}
	for n := 0; pause(ctx, between(r, 200*time.Millisecond, time.Second)); n++ {
		leader, err := w.leader(ctx)
		if err != nil {
			return err
		}
		began := w.clock()
		kind, who, err := w.part(r, n, leader)
		if err != nil {
			return err
		}
		// An election takes 4 to 9 s; some cuts need none, as the leader still
		// has a majority or is still heard.
		hold, cancel := context.WithTimeout(ctx, between(r, 4*time.Second, 7*time.Second))
		stalled := w.untilTaken(hold)
		held := hold.Err() == nil
		cancel()
		if held {
			pause(ctx, between(r, 500*time.Millisecond, 2*time.Second))
		}
		if err := w.lab.heal(); err != nil {
			return err
		}
		// A node that comes back makes the others elect anew: it is not over
		// before all are of one mind. What a leader in the minority was told, it
		// may have to forget.
		err = w.whole(context.WithoutCancel(ctx))
		w.did(fault{Kind: kind, Whom: who, Began: began, Ended: w.clock(), Excuses: []string{"*"}, Before: ackOnItsWay, Wakes: true})
		w.event("broker stall", who, round(stalled), held)
		if err != nil {
			return err
		}
	}
	return nil
}

// part cuts something.
func (w *world) part(r *rand.Rand, n int, leader *broker) (kind, who string, err error) {
	l := slices.Index(w.brokers, leader)
	i := (l + 1 + r.IntN(len(w.brokers)-1)) % len(w.brokers) // another one
	switch n % 5 {
	case 0:
		return "partition: leader against the rest", leader.node.Name, w.apart(l, true, true)
	case 1:
		return "partition: leader is not heard", leader.node.Name, w.apart(l, true, false)
	case 2:
		return "partition: leader does not hear", leader.node.Name, w.apart(l, false, true)
	case 3:
		return "partition: follower against the rest", w.brokers[i].node.Name, w.apart(i, true, true)
	default:
		return "partition: leader unplugged", leader.node.Name, w.lab.unplug(l)
	}
}

// apart cuts node i off from the others: what it sends, what it is sent, or both.
func (w *world) apart(i int, sends, hears bool) error {
	var errs []error
	for j := range w.brokers {
		if j == i {
			continue
		}
		if sends {
			errs = append(errs, w.lab.cut(i, j))
		}
		if hears {
			errs = append(errs, w.lab.cut(j, i))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cut node %d off: %w", i+1, err)
	}
	return nil
}
