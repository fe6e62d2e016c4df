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
	kinds := []string{
		"broker restart", "cut", "silence", "crash", "drain", "outage", "hang", "consumer deleted", "cut", "crash", "drain",
		"cut, then drain", "hang, then drain", "dead letters full",
	}
	kind := kinds[w.seed.between(0, len(kinds)-1, n, "kind")]
	w.note("fault %s, replica %d", kind, r.id)
	switch kind {
	case "broker restart":
		began := time.Now()
		w.broker.restart(ctx, w.seed.span(10*time.Millisecond, 15*time.Second, n, "down"))
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
	case "cut, then drain":
		r.link.cut()
		w.drain(r, w.shape.drain)
	case "hang, then drain":
		w.down.outage(w.seed.span(time.Second, 10*time.Second, n, "outage"), true)
		pause(ctx, w.seed.span(0, 2*time.Second, n, "until the drain"))
		w.drain(r, min(w.shape.drain, 2*time.Second))
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
	nc, js := w.client()
	defer nc.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	name := "pool0-" + priorities()[w.seed.between(0, 3, n, "consumer")]
	if err := js.DeleteConsumer(ctx, "JOBS", name); err != nil {
		w.note("consumer %s was not deleted: %v", name, err)
	}
}

// fillDeadLetters lets the stream of dead letters refuse further ones for a
// while.
func (w *world) fillDeadLetters(ctx context.Context, lasts time.Duration) {
	nc, js := w.client()
	defer nc.Close()
	limit := func(full bool) {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		s, err := js.Stream(try, "WORKERD_DLQ")
		if err != nil {
			return // nothing is there to be full
		}
		cfg := s.CachedInfo().Config
		if cfg.MaxMsgs = -1; full { // a lower limit would throw some away
			cfg.MaxMsgs = max(1, int64(s.CachedInfo().State.Msgs))
		}
		if _, err := js.UpdateStream(try, cfg); err != nil {
			w.note("the limit of the dead letters was not set: %v", err)
		}
	}
	limit(true)
	pause(ctx, lasts)
	limit(false)
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
