package breaker

import "time"

// tally counts completed calls.
type tally struct {
	total, bad, slow int
}

func (t *tally) add(o tally) {
	t.total += o.total
	t.bad += o.bad
	t.slow += o.slow
}

func (t *tally) sub(o tally) {
	t.total -= o.total
	t.bad -= o.bad
	t.slow -= o.slow
}

// window remembers the calls of the recent past. Times given to it never
// decrease, except through move.
type window interface {
	// add counts one call that completed now and returns the sum of the window.
	add(now time.Time, call tally) tally
	// sum of the window as of now.
	sum(now time.Time) tally
	// move sets the window to another clock.
	move(to func(time.Time) time.Time)
}

func newWindow(now time.Time, r rules) window {
	if r.WindowCalls > 0 {
		return &countRing{calls: make([]tallyBits, r.WindowCalls)}
	}
	width := r.Window / buckets
	return &timeRing{width: width, end: now.Add(width)}
}

// buckets of a time window. A call counts for more than 9 and at most 10
// tenths of the window.
const buckets = 10

// timeRing is a window over time: a ring of buckets that starts with its
// first instant, each as wide as a tenth of it.
type timeRing struct {
	width   time.Duration
	end     time.Time // of the current bucket
	current int
	all     tally
	ring    [buckets]tally
}

func (w *timeRing) add(now time.Time, call tally) tally {
	w.roll(now)
	w.ring[w.current].add(call)
	w.all.add(call)
	return w.all
}

func (w *timeRing) sum(now time.Time) tally {
	w.roll(now)
	return w.all
}

func (w *timeRing) move(to func(time.Time) time.Time) { w.end = to(w.end) }

// roll forgets what has left the window, in at most one turn of the ring.
func (w *timeRing) roll(now time.Time) {
	if now.Before(w.end) {
		return
	}
	steps := now.Sub(w.end) / w.width
	w.end = now.Add(w.width - now.Sub(w.end)%w.width)
	for range min(steps+1, buckets) {
		w.current = (w.current + 1) % buckets
		w.all.sub(w.ring[w.current])
		w.ring[w.current] = tally{}
	}
}

// countRing is a window over the last calls, one byte each.
type countRing struct {
	calls []tallyBits
	next  int
	all   tally
}

type tallyBits uint8

const (
	bitCall tallyBits = 1 << iota
	bitBad
	bitSlow
)

func (w *countRing) add(_ time.Time, call tally) tally {
	w.all.sub(w.calls[w.next].tally())
	w.calls[w.next] = pack(call)
	w.all.add(call)
	w.next = (w.next + 1) % len(w.calls)
	return w.all
}

func (w *countRing) sum(time.Time) tally { return w.all }

func (w *countRing) move(func(time.Time) time.Time) {}

func pack(call tally) tallyBits {
	return bitCall | bitBad*tallyBits(call.bad) | bitSlow*tallyBits(call.slow)
}

func (b tallyBits) tally() tally {
	return tally{total: int(b & bitCall), bad: int(b & bitBad >> 1), slow: int(b & bitSlow >> 2)}
}
