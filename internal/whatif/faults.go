package whatif

import (
	"context"
	"slices"
	"time"
)

// narrate tells of the steps of the targets as they come.
func (w *world) narrate(ctx context.Context) {
	type turn struct {
		at   time.Duration
		text string
	}
	var turns []turn
	for _, name := range sorted(w.test.Targets) {
		at := time.Duration(0)
		for _, s := range w.test.Targets[name] {
			turns = append(turns, turn{at, "target " + name + " " + s.behaves()})
			at += s.For
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return int(a.at - b.at) })
	began := time.Now()
	for _, t := range turns {
		if pause(ctx, time.Until(began.Add(t.at))); ctx.Err() != nil {
			return
		}
		w.book.note("%s", t.text)
	}
}

// disturb restarts the broker and workerd at the times that were written down,
// one after the other.
func (w *world) disturb(ctx context.Context) {
	type fault struct {
		at time.Duration
		do func()
	}
	var faults []fault
	for _, o := range w.test.NATS {
		faults = append(faults, fault{o.At, func() { w.outage(ctx, o.Down) }})
	}
	for _, r := range w.test.Restarts {
		faults = append(faults, fault{r.At, w.restart})
	}
	slices.SortStableFunc(faults, func(a, b fault) int { return int(a.at - b.at) })
	began := time.Now()
	for _, f := range faults {
		if pause(ctx, time.Until(began.Add(f.at))); ctx.Err() != nil {
			return
		}
		f.do()
	}
}

func (w *world) outage(ctx context.Context, down time.Duration) {
	w.book.note("NATS goes down for %s", short(down))
	w.broker.stop()
	pause(ctx, down)
	if err := w.broker.start(); err != nil {
		w.book.note("NATS does not come back: %v", err)
		return
	}
	w.book.note("NATS is back")
}

func (w *world) restart() {
	w.book.note("workerd is told to drain")
	if err := w.stop(); err != nil {
		w.book.note("workerd has drained: %v", err)
	} else {
		w.book.note("workerd has drained, all clean")
	}
	if err := w.start(); err != nil {
		w.book.note("workerd does not start again: %v", err)
	}
}
