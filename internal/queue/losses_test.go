package queue

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world is a stream with a filtered consumer, as the broker keeps it, with the
// truth about what was lost.
type world struct {
	first, last uint64
	there       map[uint64]bool // jobs in the stream that match the filter
	undelivered []uint64        // of them, in order
	held        []uint64
	deliveries  uint64
	delivered   uint64
	again       uint64
	lost        uint64
	clock       time.Time
}

func newWorld() *world {
	return &world{first: 1, there: map[uint64]bool{}, clock: time.Unix(1e9, 0)}
}

func (w *world) publish(n int, match bool) {
	for range n {
		w.last++
		if match {
			w.there[w.last] = true
			w.undelivered = append(w.undelivered, w.last)
		}
	}
}

func (w *world) deliver(n int) {
	for range min(n, len(w.undelivered)) {
		seq := w.undelivered[0]
		w.undelivered, w.held = w.undelivered[1:], append(w.held, seq)
		w.deliveries++
		w.delivered = seq
	}
}

// redeliver delivers something again, to us or to another replica.
func (w *world) redeliver(n int, ours bool) {
	if len(w.held) == 0 {
		return
	}
	w.deliveries += uint64(n)
	if ours {
		w.again += uint64(n)
	}
}

// drop takes the n oldest sequences away, as max_age and limits do.
func (w *world) drop(n int) {
	for range n {
		if w.first > w.last {
			return
		}
		if len(w.undelivered) > 0 && w.undelivered[0] == w.first {
			w.undelivered = w.undelivered[1:]
			w.lost++
		}
		delete(w.there, w.first)
		w.first++
	}
}

// ask is what Lag does: the stream first, then the consumer.
func (w *world) ask(between func()) reading {
	w.clock = w.clock.Add(time.Second)
	s := streamState{at: w.clock, created: 1, first: w.first, last: w.last}
	between()
	w.clock = w.clock.Add(time.Second)
	return reading{
		at: w.clock, stream: s, pending: uint64(len(w.undelivered)), deliveries: w.deliveries, delivered: w.delivered, again: w.again,
	}
}

func (w *world) step(t *rapid.T) {
	n := rapid.IntRange(0, 5).Draw(t, "n")
	switch rapid.SampledFrom([]string{"ours", "others", "deliver", "redeliver", "drop"}).Draw(t, "what") {
	case "ours":
		w.publish(n, true)
	case "others":
		w.publish(n, false)
	case "deliver":
		w.deliver(n)
	case "redeliver":
		w.redeliver(n, rapid.Bool().Draw(t, "ours"))
	case "drop":
		w.drop(n)
	}
}

// TestMark_neverCountsMoreThanWasLost whatever happens, and whenever it asks.
func TestMark_neverCountsMoreThanWasLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, m, counted := newWorld(), &mark{}, uint64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "ask") > 0 {
				w.step(t)
				continue
			}
			counted += m.note(w.ask(func() { w.step(t) }))
			if counted > w.lost {
				t.Fatalf("counted %d, lost %d", counted, w.lost)
			}
		}
	})
}

// TestMark_seesMostOfASteadyOverload: jobs come faster than they are done, and the
// stream drops the oldest. Nothing shows in the number of pending jobs.
func TestMark_seesMostOfASteadyOverload(t *testing.T) {
	w, m, counted := newWorld(), &mark{}, uint64(0)
	w.publish(1000, true)
	for range 1000 {
		w.publish(10, true)
		w.publish(10, false)
		w.deliver(6)
		w.redeliver(1, true)
		for uint64(len(w.undelivered)) > 1000 {
			w.drop(1)
		}
		counted += m.note(w.ask(func() {}))
	}
	if counted < w.lost*8/10 || counted > w.lost {
		t.Errorf("counted %d of %d lost", counted, w.lost)
	}
}

func TestMark_seesAtOnceWhatVanishesWhileNothingComes(t *testing.T) {
	w, m := newWorld(), &mark{}
	w.publish(100, true)
	w.deliver(10)
	m.note(w.ask(func() {}))
	w.drop(60)
	if n := m.note(w.ask(func() {})); n != 50 {
		t.Errorf("counted %d, want 50: ten of the sixty had been delivered", n)
	}
	w.drop(40)
	if n := m.note(w.ask(func() {})); n != 40 {
		t.Errorf("counted %d more, want 40", n)
	}
}

func TestMark_beginsAnewWhereCountersDo(t *testing.T) {
	w, m := newWorld(), &mark{}
	w.publish(100, true)
	w.deliver(10)
	old := w.ask(func() {})
	for name, change := range map[string]func(r *reading){
		"another consumer":         func(r *reading) { r.settings.created++ },
		"another stream":           func(r *reading) { r.stream.created++ },
		"another leader":           func(r *reading) { r.leader = "b" },
		"another connection":       func(r *reading) { r.reconnects++ },
		"the broker has forgotten": func(r *reading) { r.deliveries-- },
	} {
		m.note(old)
		r := w.ask(func() {})
		r.pending = 0
		change(&r)
		if n := m.note(r); n != 0 {
			t.Errorf("%s: counted %d", name, n)
		}
		*m = mark{}
	}
}
