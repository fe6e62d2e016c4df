package sim

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// fault is something that went wrong, and from when to when it could explain
// that a job was done twice.
type fault struct {
	kind      string
	at, until time.Time
	replica   *replica // nil: all of them
}

// disturb lets the scenario's faults happen, one after the other.
func (w *world) disturb(ctx context.Context) {
	for n := range w.shape.faults {
		pause(ctx, w.seed.span(0, 2*w.shape.length/time.Duration(w.shape.faults), n, "gap"))
		if ctx.Err() != nil {
			return
		}
		w.happen(ctx, n)
	}
}

func (w *world) happen(ctx context.Context, n int) {
	alive := w.alive()
	if len(alive) == 0 { // they have just died
		alive = append(alive, w.startReplica())
	}
	r := alive[w.seed.between(0, len(alive)-1, n, "victim")]
	kinds := []string{
		"broker restart", "cut", "silence", "crash", "drain", "outage", "hang", "consumer deleted", "cut", "crash", "drain",
		"cut, then drain", "hang, then drain", "dead letters full", "drain at once", "freeze", "stall",
	}
	if w.layer == fakeLayer {
		kinds = append(kinds, "broker killed", string(noLeader), string(lostConfirmations), string(lostRequests), slowThenDrain)
	}
	kind := kinds[w.seed.between(0, len(kinds)-1, n, "kind")]
	w.note("fault %s, replica %d", kind, r.id)
	<-r.ready
	switch kind {
	case "broker restart":
		began := time.Now()
		w.broker.restart(ctx, w.seed.span(10*time.Millisecond, longestDown, n, "down"))
		w.rememberSince(began, kind, nil)
	case "broker killed":
		began := time.Now()
		w.broker.(*fake).kill(ctx, w.seed.span(10*time.Millisecond, 5*time.Second, n, "down"), w.seed.span(0, longestForgotten, n, "forgotten"))
		w.rememberSince(began, kind, nil)
	case string(noLeader), string(lostConfirmations), string(lostRequests):
		began, lasts := time.Now(), w.seed.span(100*time.Millisecond, 8*time.Second, n, "trouble")
		w.broker.(*fake).begin(trouble(kind), lasts)
		pause(ctx, lasts)
		w.rememberSince(began, kind, nil)
	case "cut":
		w.remember(kind, r)
		r.link.cut()
	case "silence":
		w.remember(kind, r)
		r.silent.Store(true)
		r.link.silence()
	case "freeze":
		began := time.Now()
		r.freeze()
		pause(ctx, w.seed.span(w.shape.ackWait/2, 2*w.shape.ackWait, n, "frozen"))
		r.thaw()
		w.rememberSince(began, kind, r)
	case "stall":
		began := time.Now()
		r.link.stall()
		pause(ctx, w.seed.span(time.Second, min(2*w.shape.ackWait, noticed), n, "stalled"))
		r.link.flow()
		w.rememberSince(began, kind, r)
	case "crash":
		r.dies(kind)
	case "drain at once":
		began := time.Now()
		var meanwhile sync.WaitGroup
		meanwhile.Go(func() { w.broker.restart(ctx, 2*time.Second) })
		w.startReplica().drain(time.Second)
		meanwhile.Wait()
		w.rememberSince(began, kind, nil)
	case "cut, then drain":
		r.link.cut()
		w.drain(r, w.shape.drain)
	case "hang, then drain":
		w.down.outage(w.seed.span(time.Second, 10*time.Second, n, "outage"), true)
		pause(ctx, w.seed.span(0, 2*time.Second, n, "until the drain"))
		w.drain(r, min(w.shape.drain, 2*time.Second))
	case slowThenDrain:
		w.drainWhileMarking(ctx, n, r)
	case "drain":
		w.drain(r, w.shape.drain)
	case "outage", "hang":
		w.remember(kind, nil)
		w.down.outage(w.seed.span(time.Second, 20*time.Second, n, "outage"), kind == "hang")
	case "dead letters full":
		w.remember(kind, nil)
		w.fillDeadLetters(ctx, w.seed.span(5*time.Second, 40*time.Second, n, "full"))
	case "consumer deleted":
		w.remember(kind, nil)
		w.deleteConsumer(ctx, n)
	}
}

// slowThenDrain is a crash, whose jobs the others mark before they run them,
// but the bucket is slow, and meanwhile these are told to drain.
const slowThenDrain = "slow bucket, then drain"

func (w *world) drainWhileMarking(ctx context.Context, n int, r *replica) {
	began := time.Now()
	r.dies("crash")
	w.broker.(*fake).begin(slowBucket, w.shape.ackWait+10*time.Second)
	pause(ctx, w.seed.span(w.shape.ackWait/2, w.shape.ackWait, n, "until the drain"))
	w.broker.(*fake).awaitSlow(ctx, w.shape.ackWait)
	for _, r := range w.alive() {
		w.drain(r, w.shape.drain)
	}
	w.rememberSince(began, slowThenDrain, nil)
}

// drain replaces a replica as a deployment does.
func (w *world) drain(r *replica, patience time.Duration) {
	w.startReplica()
	kind := "drain"
	if !r.drain(patience) {
		kind = "incomplete drain"
	}
	w.remember(kind, r)
}

func (w *world) deleteConsumer(ctx context.Context, n int) {
	name := fmt.Sprintf("pool%d-", w.seed.between(0, w.shape.pools-1, n, "pool")) + priorities()[w.seed.between(0, 3, n, "consumer")]
	if err := w.broker.deleteConsumer(ctx, name); err != nil {
		w.note("consumer %s was not deleted: %v", name, err)
	}
}

// fillDeadLetters lets the stream of dead letters refuse further ones for a
// while. If there is none, nothing can be full.
func (w *world) fillDeadLetters(ctx context.Context, lasts time.Duration) {
	if err := w.broker.limitLetters(ctx, true); err != nil {
		w.note("the limit of the dead letters was not set: %v", err)
		return
	}
	pause(ctx, lasts)
	for ctx.Err() == nil && w.broker.limitLetters(ctx, false) != nil {
		pause(ctx, time.Second)
	}
}

func (w *world) alive() (list []*replica) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.replicas {
		if !r.gone.Load() {
			list = append(list, r)
		}
	}
	return list
}

func (w *world) remember(kind string, r *replica) { w.rememberSince(time.Now(), kind, r) }

func (w *world) rememberSince(began time.Time, kind string, r *replica) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fault{kind, began, time.Now(), r})
}
