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

// Kinds of faults that are spoken of in several places.
const (
	drain = "drain" // a replica is told to end, and another begins
	stall = "stall" // a connection stands still, and goes on
	// unreachable is a replica whose network is gone for about as long as its
	// leases last, while others work.
	unreachable = "unreachable"
	// cutThenDrain is a replica whose network is gone as it drains, and back soon.
	// What it has to say of its jobs waits for that; what it wants to have written
	// down of those it hands back may not.
	cutThenDrain = "cut, then drain"
	// deletedThenDrain are consumers that are deleted while what is in hand takes
	// long, and a replica that drains once it knows that these are others: what
	// it has of the old ones is not its own to give back.
	deletedThenDrain = "consumers deleted, then drain"
	// slowNotes is a bucket that is slow while the end of each call has to be
	// written down: what has run is in hand for long, and not to make room for more.
	slowNotes = "slow bucket"
	// slowThenDrain is a crash, whose jobs the others mark before they run them, but
	// the bucket is slow, and meanwhile these are told to drain.
	slowThenDrain = "slow bucket, then drain"
)

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

// themes are kinds of faults that happen for themselves, so that nothing else
// explains what comes of them.
func themes(l layer) [][]string {
	all := [][]string{{unreachable}, {stall}, {cutThenDrain, drain}, {deletedThenDrain}}
	if l == fakeLayer {
		all = append(all, []string{slowNotes})
	}
	return all
}

// kinds of faults that may happen.
func (w *world) kinds() []string {
	if theme := w.shape.theme; theme != nil {
		return theme
	}
	kinds := []string{
		"broker restart", "cut", "silence", "crash", drain, "outage", "hang", "consumer deleted", "cut", "crash", drain,
		cutThenDrain, "hang, then drain", "dead letters full", "drain at once", "freeze", stall, unreachable, deletedThenDrain,
	}
	if w.layer == fakeLayer {
		kinds = append(kinds, "broker killed", string(noLeader), string(lostConfirmations), string(lostRequests), slowNotes, slowThenDrain)
	}
	return kinds
}

func (w *world) happen(ctx context.Context, n int) {
	alive := w.alive()
	if len(alive) == 0 { // they have just died
		alive = append(alive, w.startReplica())
	}
	r := alive[w.seed.between(0, len(alive)-1, n, "victim")]
	kinds := w.kinds()
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
	case unreachable:
		began, lasts := time.Now(), w.seed.span(w.shape.ackWait/2, 2*w.shape.ackWait, n, "away")
		r.link.leave()
		w.perhapsDown(n, lasts)
		pause(ctx, lasts)
		r.link.back()
		w.rememberSince(began, kind, r)
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
	case stall:
		began, lasts := time.Now(), w.seed.span(time.Second, min(2*w.shape.ackWait, noticed), n, "stalled")
		r.link.stall()
		w.perhapsDown(n, lasts)
		pause(ctx, lasts)
		r.link.flow()
		w.rememberSince(began, kind, r)
	case slowNotes:
		began, lasts := time.Now(), w.seed.span(time.Second, 8*time.Second, n, "slow")
		w.broker.(*fake).begin(slowBucket, lasts)
		w.down.trouble(conflicting, lasts)
		pause(ctx, lasts)
		w.rememberSince(began, kind, nil)
	case "crash":
		r.dies(kind)
	case "drain at once":
		began := time.Now()
		var meanwhile sync.WaitGroup
		meanwhile.Go(func() { w.broker.restart(ctx, 2*time.Second) })
		w.startReplica().drain(time.Second)
		meanwhile.Wait()
		w.rememberSince(began, kind, nil)
	case cutThenDrain:
		began := time.Now()
		r.link.leave()
		time.AfterFunc(w.seed.span(0, w.shape.ackWait/5, n, "away"), r.link.back) // in time for its leases
		w.drain(r, w.shape.drain)
		w.rememberSince(began, kind, r)
	case "hang, then drain":
		w.down.trouble(hanging, w.seed.span(time.Second, 10*time.Second, n, "outage"))
		pause(ctx, w.seed.span(0, 2*time.Second, n, "until the drain"))
		w.drain(r, min(w.shape.drain, 2*time.Second))
	case deletedThenDrain:
		w.drainOrphans(ctx, n, r)
	case slowThenDrain:
		w.drainWhileMarking(ctx, n, r)
	case drain:
		w.drain(r, w.shape.drain)
	case "outage", "hang":
		w.remember(kind, nil)
		w.down.trouble(map[string]trouble{"outage": failing, "hang": hanging}[kind], w.seed.span(time.Second, 20*time.Second, n, "outage"))
	case "dead letters full":
		w.remember(kind, nil)
		w.fillDeadLetters(ctx, w.seed.span(5*time.Second, 40*time.Second, n, "full"))
	case "consumer deleted":
		w.remember(kind, nil)
		w.deleteConsumer(ctx, w.seed.between(0, w.shape.pools-1, n, "pool"), priorities()[w.seed.between(0, 3, n, "consumer")])
	}
}

// perhapsDown lets the target be down, too, until a fault is over and a little more:
// who has a job then has it for long, or wants it back later.
func (w *world) perhapsDown(n int, lasts time.Duration) {
	switch u := w.seed.chance(n, "and the target"); {
	case u < 0.4:
		w.down.trouble(hanging, lasts+callTimeout)
	case u < 0.8:
		w.down.trouble(failing, lasts+callTimeout)
	}
}

func (w *world) drainOrphans(ctx context.Context, n int, r *replica) {
	w.down.trouble(hanging, 3*askEvery+w.seed.span(time.Second, 10*time.Second, n, "outage"))
	pause(ctx, w.seed.span(200*time.Millisecond, 2*time.Second, n, "until it is deleted"))
	began, pool := time.Now(), w.seed.between(0, w.shape.pools-1, n, "pool")
	for _, priority := range priorities() {
		w.deleteConsumer(ctx, pool, priority)
	}
	w.rememberSince(began, "consumer deleted", nil)
	pause(ctx, w.seed.span(askEvery, 3*askEvery, n, "until the drain"))
	w.drain(r, w.seed.span(0, time.Second, n, "drain"))
}

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
	kind := drain
	if !r.drain(patience) {
		kind = "incomplete drain"
	}
	w.remember(kind, r)
}

func (w *world) deleteConsumer(ctx context.Context, pool int, priority string) {
	name := fmt.Sprintf("pool%d-%s", pool, priority)
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
