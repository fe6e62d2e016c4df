package sim

import (
	"context"
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
	r := alive[w.seed.between(0, len(alive)-1, n, "victim")]
	kinds := []string{"broker restart", "cut", "silence", "crash", "drain", "outage", "hang", "consumer deleted", "cut", "crash", "drain"}
	kind := kinds[w.seed.between(0, len(kinds)-1, n, "kind")]
	w.note("fault %s, replica %d", kind, r.id)
	switch kind {
	case "broker restart":
		began := time.Now()
		w.broker.restart(ctx, w.seed.span(10*time.Millisecond, 8*time.Second, n, "down"))
		w.rememberSince(began, kind, nil)
	case "cut":
		w.remember(kind, r)
		r.link.cut()
	case "silence":
		w.remember(kind, r)
		r.link.silence()
	case "crash":
		w.remember(kind, r)
		r.crash()
		w.startReplica()
	case "drain":
		w.startReplica()
		if !r.drain(w.shape.drain) {
			w.remember("incomplete drain", r)
		} else {
			w.remember(kind, r)
		}
	case "outage", "hang":
		w.remember(kind, nil)
		w.down.outage(w.seed.span(time.Second, 20*time.Second, n, "outage"), kind == "hang")
	case "consumer deleted":
		w.remember(kind, nil)
		w.deleteConsumer(ctx, n)
	}
}

func (w *world) deleteConsumer(ctx context.Context, n int) {
	nc, js := w.client()
	defer nc.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	name := "pool0-" + priorities()[w.seed.between(0, 3, n, "consumer")]
	if err := js.DeleteConsumer(ctx, "JOBS", name); err != nil {
		w.note("consumer %s was not deleted: %v", name, err)
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
