package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// acksFlushed is how long a single nats-server (R1) may take to write down an
// ack that it has confirmed: it does so about ten times a second.
const acksFlushed = time.Second

// ackOnItsWay is how long after an answer its ack may not be at the broker,
// for a process that was killed.
const ackOnItsWay = 200 * time.Millisecond

// pause waits, less if the load ends.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// between is a random duration.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}

// each runs a driver of its own for each worker, all with a random source of
// their own, so that faults overlap and one does not move the others.
func (w *world) each(ctx context.Context, drive func(context.Context, *worker, *rand.Rand) error) error {
	var wg sync.WaitGroup
	errs := make(chan error, len(w.workers))
	for i, k := range w.workers {
		r := rand.New(rand.NewPCG(w.seed, uint64(i)))
		wg.Go(func() {
			if err := drive(ctx, k, r); err != nil && !errors.Is(err, ctx.Err()) {
				errs <- err
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// killStorm kills replicas at random times.
func killStorm(low, high time.Duration) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		return w.each(ctx, func(ctx context.Context, k *worker, r *rand.Rand) error {
			for pause(ctx, between(r, low, high)) {
				w.killWorker(k)
				if err := k.start(); err != nil {
					return err
				}
				// Now and then it is killed again before it is ready.
				if r.IntN(4) > 0 && k.ready(ctx, 20*time.Second) != nil {
					return ctx.Err()
				}
			}
			return nil
		})
	}
}

// killWorker kills a replica and waits until it is gone.
func (w *world) killWorker(k *worker) {
	replica, began := k.replica(), w.clock()
	k.end()
	w.did(fault{Kind: "workerd SIGKILL", Whom: replica, Began: began, Ended: w.clock(), Excuses: []string{replica}, Before: ackOnItsWay})
}

// termStorm ends replicas by SIGTERM at random times, one in three by two.
func termStorm(low, high time.Duration) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		return w.each(ctx, func(ctx context.Context, k *worker, r *rand.Rand) error {
			for pause(ctx, between(r, low, high)) {
				if err := w.termWorker(ctx, k, r.IntN(3) == 0, between(r, 10*time.Millisecond, time.Second)); err != nil {
					return err
				}
				if err := k.start(); err != nil {
					return err
				}
				if r.IntN(4) > 0 && k.ready(ctx, 20*time.Second) != nil {
					return ctx.Err()
				}
			}
			return nil
		})
	}
}

// termWorker ends a replica by SIGTERM. A call that is interrupted at its very
// end may have been answered: only from the interruption on that is excused.
func (w *world) termWorker(ctx context.Context, k *worker, twice bool, gap time.Duration) error {
	replica, began := k.replica(), w.clock()
	if err := k.signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("%s: %w", replica, err)
	}
	f := fault{Kind: "workerd SIGTERM", Whom: replica, Began: began + w.drain - w.drain/4 - 100*time.Millisecond, Excuses: []string{replica}}
	if twice && pause(ctx, gap) && k.running() {
		f.Kind, f.Began = "workerd SIGTERM twice", w.clock()
		_ = k.signal(syscall.SIGTERM)
	}
	code, err := k.wait(context.WithoutCancel(ctx), w.drain+5*time.Second)
	f.Ended = w.clock()
	if f.Ended < f.Began { // it ended before it would have interrupted anything
		f.Began, f.Excuses = began, nil
	}
	w.did(f)
	w.event("exit", replica, code, " after ", round(f.Ended-began))
	if err != nil {
		w.problem("SIGTERM: %v", err)
		k.end()
	} else if code != 0 && code != 75 {
		w.problem("SIGTERM: %s ended with code %d", replica, code)
	}
	return nil
}

// rolling restarts one replica after the other, the next when it is ready.
func rolling(ctx context.Context, w *world) error {
	for {
		for _, k := range w.workers {
			replica, began := k.replica(), w.clock()
			if err := k.signal(syscall.SIGTERM); err != nil {
				return err
			}
			code, err := k.wait(context.WithoutCancel(ctx), w.drain+5*time.Second)
			if err != nil || code != 0 {
				w.problem("rolling: %s ended with code %d: %v", replica, code, err)
			}
			w.did(fault{Kind: "workerd SIGTERM, rolling", Whom: replica, Began: began, Ended: w.clock()})
			if err := k.start(); err != nil {
				return err
			}
			if err := k.ready(context.WithoutCancel(ctx), 20*time.Second); err != nil {
				return err
			}
			if !pause(ctx, 100*time.Millisecond) {
				return nil
			}
		}
	}
}

// stopStorm stops replicas, most for longer than their leases, and lets them go
// on: they wake up with jobs that others have by now. A stop of less than half a
// lease explains nothing.
func stopStorm(low, high time.Duration) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		return w.each(ctx, func(ctx context.Context, k *worker, r *rand.Rand) error {
			for pause(ctx, between(r, low, high)) {
				f := fault{Kind: "workerd SIGSTOP", Whom: k.replica(), Began: w.clock()}
				if err := k.signal(syscall.SIGSTOP); err != nil {
					return err
				}
				pause(ctx, between(r, w.ackWait/8, 2*w.ackWait))
				if err := k.signal(syscall.SIGCONT); err != nil {
					return err
				}
				w.lapsed(&f)
				w.did(f)
			}
			return nil
		})
	}
}

// brokerStorm kills a single broker and starts it again on the same store, and
// now and then stops it for a while.
func brokerStorm(low, high time.Duration) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		r := rand.New(rand.NewPCG(w.seed, 77))
		for n := 0; pause(ctx, between(r, low, high)); n++ {
			b, began := w.brokers[0], w.clock()
			if n%3 == 2 {
				_ = b.signal(syscall.SIGSTOP)
				pause(ctx, between(r, 500*time.Millisecond, 2*w.ackWait))
				_ = b.signal(syscall.SIGCONT)
				// Leases lapse at the broker while the signs of life lie in its sockets.
				w.did(fault{Kind: "broker SIGSTOP", Whom: b.node.Name, Began: began, Ended: w.clock(), Excuses: []string{"*"}, Before: ackOnItsWay, Wakes: true})
				continue
			}
			b.kill()
			pause(ctx, between(r, 0, 500*time.Millisecond))
			if err := b.start(); err != nil {
				return err
			}
			w.did(fault{Kind: "broker SIGKILL", Whom: b.node.Name, Began: began, Ended: w.clock(), Excuses: []string{"*"}, Before: acksFlushed, Wakes: true})
		}
		return nil
	}
}

// oneByOne kills a replica, ends another by SIGTERM and kills the broker, over
// and over, each when the jobs of the one before are in other hands.
func oneByOne(ctx context.Context, w *world) error {
	for n := 0; pause(ctx, 500*time.Millisecond); n++ {
		k := w.workers[n%len(w.workers)]
		w.untilBusy(ctx, k)
		w.killWorker(k)
		if !pause(ctx, w.ackWait+1500*time.Millisecond) {
			return nil
		}
		if err := k.start(); err != nil {
			return err
		}
		if err := k.ready(ctx, 20*time.Second); err != nil {
			return err
		}
		k = w.workers[(n+1)%len(w.workers)]
		w.untilBusy(ctx, k)
		if err := w.termWorker(ctx, k, true, 10*time.Millisecond); err != nil {
			return err
		}
		if !pause(ctx, time.Second) {
			return nil
		}
		if err := k.start(); err != nil {
			return err
		}
		if err := k.ready(ctx, 20*time.Second); err != nil {
			return err
		}
		b, began := w.brokers[0], w.clock()
		b.kill()
		if err := b.start(); err != nil {
			return err
		}
		w.did(fault{Kind: "broker SIGKILL", Whom: b.node.Name, Began: began, Ended: w.clock(), Excuses: []string{"*"}, Before: acksFlushed, Wakes: true})
		w.goOn(ctx)
		pause(ctx, 1500*time.Millisecond)
	}
	return nil
}

// untilBusy waits for a moment in which a fault of the replica leaves jobs to
// others: without one it would measure nothing.
func (w *world) untilBusy(ctx context.Context, k *worker) {
	_ = until(ctx, 2*time.Second, k.replica()+" is busy", func() bool { return w.down.busy(k.replica()) > 2 })
}
