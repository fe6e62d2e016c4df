package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// smallDisk gives the broker a file system of its own that can be filled.
func smallDisk(_ context.Context, w *world) error {
	undo, err := mountSmall(w.brokers[0].node.Dir, 64<<20)
	if err == nil {
		w.undo = append(w.undo, undo)
	}
	return err
}

// mountSmall mounts a file system of so many bytes, in memory.
func mountSmall(dir string, size int) (undo func(), err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		return nil, fmt.Errorf("mount a file system at %s: %w", dir, err)
	}
	return func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }, nil
}

// diskStorm fills the disk under the broker, and whatever is freed there too,
// for a while. Then it makes room. A nats-server that has met a full disk may
// have switched JetStream off for good: then it is restarted, as its operator
// would.
func diskStorm(ctx context.Context, w *world) error {
	r := rand.New(rand.NewPCG(w.seed, 55))
	ballast := filepath.Join(w.brokers[0].node.Dir, "ballast")
	defer os.Remove(ballast)
	for pause(ctx, between(r, time.Second, 3*time.Second)) {
		f := fault{Kind: "broker without disk space", Whom: w.brokers[0].node.Name, Began: w.clock(), Excuses: []string{"*"}, Before: acksFlushed, Wakes: true}
		full, cancel := context.WithTimeout(ctx, between(r, time.Second, 4*time.Second))
		err := fill(full, ballast)
		cancel()
		if err := errors.Join(err, os.Remove(ballast)); err != nil {
			return err
		}
		took := w.takes(ctx, 3*time.Second)
		w.event("takes jobs again", f.Whom, took)
		if !took {
			b := w.brokers[0]
			b.end()
			if err := b.start(); err != nil {
				return err
			}
			if !w.takes(context.WithoutCancel(ctx), 20*time.Second) {
				return errors.New("a broker with room on its disk again takes no jobs after a restart")
			}
		}
		f.Ended = w.clock()
		w.did(f)
	}
	return nil
}

// fill writes a file until there is no room, again and again.
func fill(ctx context.Context, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	met := false
	piece := make([]byte, 4<<10)
	for {
		_, err := f.Write(piece)
		switch {
		case errors.Is(err, syscall.ENOSPC):
			if met = true; !pause(ctx, 5*time.Millisecond) {
				return nil
			}
		case err != nil:
			return err
		case ctx.Err() != nil:
			if !met {
				return errors.New("the disk could not be filled in time")
			}
			return nil
		}
	}
}

// takes publishes until the stream takes it, and tells whether it did in time.
func (w *world) takes(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for n := 0; ctx.Err() == nil; n++ {
		if w.probe(ctx, fmt.Sprintf("%s-probe-%d-%d", w.pub.prefix, w.clock().Milliseconds(), n)) {
			return true
		}
		pause(ctx, 50*time.Millisecond)
	}
	return false
}

// probe publishes a job beside the publisher and waits for the answer.
func (w *world) probe(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	at := w.clock()
	ack, err := w.js.Publish(ctx, "jobs.high", payload(w.seed, id, w.size), jetstream.WithMsgID(id))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probed[id] = at
	if err != nil {
		w.unknown = append(w.unknown, id)
		return false
	}
	w.probes[id] = ack.Sequence
	return true
}
