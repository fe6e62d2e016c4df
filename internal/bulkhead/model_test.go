package bulkhead_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/bulkhead"
)

// inBubble hides a test's deadline from rapid, which must not be asked for in
// a bubble.
type inBubble struct{ rapid.TB }

// client is one Acquire, in the model and in fact.
type client struct {
	id, priority int
	cancel       context.CancelCauseFunc
	want, got    string // "": waits; granted, cancelled
}

// model is the bulkhead as one would write it without a thought for cost: the
// waiting are a slice that is sorted each time.
type model struct {
	limit, inFlight int
	reserve         [4]int
	turned          bool
	waiting         []*client
	contested       int
	passed          [4]int
}

func (m *model) serve() {
	slices.SortFunc(m.waiting, func(a, b *client) int {
		byPriority := cmp.Compare(a.priority, b.priority)
		if m.turned {
			byPriority = -byPriority
		}
		return cmp.Or(byPriority, cmp.Compare(a.id, b.id))
	})
	for len(m.waiting) > 0 && m.free(m.waiting[0].priority) {
		c := m.next()
		c.want = "granted"
		m.waiting = slices.DeleteFunc(m.waiting, func(w *client) bool { return w == c })
		m.inFlight++
	}
}

func (m *model) free(priority int) bool { return m.inFlight+m.reserve[priority] < m.limit }

// next is the first in line, or the first of the lower priority passed most
// often, one time in twenty.
func (m *model) next() *client {
	heads := map[int]*client{}
	for _, c := range slices.Backward(m.waiting) {
		heads[c.priority] = c
	}
	first := m.waiting[0]
	if len(heads) == 1 {
		return first
	}
	var most *client
	order := slices.Sorted(maps.Keys(heads))
	if m.turned {
		slices.Reverse(order)
	}
	for _, p := range order {
		if p != first.priority {
			m.passed[p]++
			if most == nil || m.passed[p] >= m.passed[most.priority] {
				most = heads[p]
			}
		}
	}
	if m.contested++; m.contested < 20 {
		return first
	}
	m.contested, m.passed[most.priority] = 0, 0
	return most
}

func (m *model) cancel(c *client) {
	c.want = "cancelled"
	m.waiting = slices.DeleteFunc(m.waiting, func(w *client) bool { return w == c })
}

func (m *model) stats() bulkhead.Stats {
	s := bulkhead.Stats{Limit: m.limit, InFlight: m.inFlight}
	for _, c := range m.waiting {
		s.Waiting[c.priority]++
	}
	return s
}

// world runs the bulkhead and its model side by side.
type world struct {
	ctx     context.Context
	model   model
	real    *bulkhead.Bulkhead
	clients []*client
	running sync.WaitGroup
}

func (w *world) acquire(priority int, ended bool) {
	ctx, cancel := context.WithCancelCause(w.ctx)
	c := &client{id: len(w.clients), priority: priority, cancel: cancel}
	w.clients = append(w.clients, c)
	switch {
	case ended:
		cancel(errEnough)
		c.want = "cancelled"
	default:
		w.model.waiting = append(w.model.waiting, c)
		w.model.serve()
	}
	w.running.Go(func() {
		switch err := w.real.Acquire(ctx, bulkhead.Claim{Priority: priority}); {
		case err == nil:
			c.got = "granted"
		case errors.Is(err, errEnough):
			c.got = "cancelled"
		default:
			c.got = err.Error()
		}
	})
}

func (w *world) release() {
	if w.model.inFlight > 0 {
		w.model.inFlight--
		w.model.serve()
		w.real.Release(bulkhead.Claim{})
	}
}

func (w *world) setLimit(n int) {
	w.model.limit = n
	w.model.serve()
	w.real.SetLimit(n)
}

func (w *world) setOrder(r [4]int, turned bool) {
	w.model.reserve, w.model.turned = r, turned
	w.model.serve()
	w.real.SetOrder(r, turned)
}

// check compares every client, so also that each waiter ends exactly once.
func (w *world) check(t *rapid.T) {
	synctest.Wait()
	for _, c := range w.clients {
		if c.got != c.want {
			t.Fatalf("client %d of priority %d is %q, want %q", c.id, c.priority, c.got, c.want)
		}
	}
	if got, want := w.real.Stats(), w.model.stats(); got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func (w *world) end() {
	for _, c := range w.clients {
		c.cancel(errEnough)
	}
	w.running.Wait()
}

func TestInvariants23to25_bulkheadIsASortedSlice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			limit := rapid.IntRange(0, 4).Draw(r, "limit")
			w := &world{ctx: t.Context(), model: model{limit: limit}, real: bulkhead.New(limit)}
			defer w.end()
			// A permit that comes with a cancellation is passed on, and counts as
			// one more that went past the lower; with one priority there are none.
			lowest := rapid.SampledFrom([]int{0, 3}).Draw(r, "lowest")
			r.Repeat(map[string]func(*rapid.T){
				"acquire":       func(r *rapid.T) { w.acquire(rapid.IntRange(0, lowest).Draw(r, "priority"), false) },
				"acquire ended": func(r *rapid.T) { w.acquire(rapid.IntRange(0, lowest).Draw(r, "priority"), true) },
				"try": func(r *rapid.T) {
					p := rapid.IntRange(0, lowest).Draw(r, "priority")
					c := &client{id: 1 << 30, priority: p}
					if w.model.free(p) {
						w.model.waiting = append(w.model.waiting, c)
						w.model.serve()
					}
					want := c.want == "granted"
					if !want {
						w.model.cancel(c)
					}
					if got := w.real.TryAcquire(bulkhead.Claim{Priority: p}); got != want {
						r.Fatalf("try got %v, want %v", got, want)
					}
				},
				"release":   func(*rapid.T) { w.release() },
				"set limit": func(r *rapid.T) { w.setLimit(rapid.IntRange(0, 6).Draw(r, "limit")) },
				"set order": func(r *rapid.T) {
					var reserve [4]int
					for p, least := 1, 0; p < 4; p++ {
						least += rapid.IntRange(0, 2).Draw(r, "more")
						reserve[p] = least
					}
					turned := rapid.Bool().Draw(r, "turned")
					if turned {
						slices.Reverse(reserve[:])
					}
					w.setOrder(reserve, turned)
				},
				"many come and go": func(r *rapid.T) { // so that everybody gets a turn
					for range rapid.IntRange(1, 50).Draw(r, "jobs") {
						w.acquire(rapid.IntRange(0, lowest).Draw(r, "priority"), false)
						synctest.Wait() // in this order
						w.release()
					}
				},
				"cancel": func(r *rapid.T) {
					if n := len(w.model.waiting); n > 0 {
						c := w.model.waiting[rapid.IntRange(0, n-1).Draw(r, "waiter")]
						w.model.cancel(c)
						c.cancel(errEnough)
					}
				},
				"cancel and release": func(*rapid.T) {
					if lowest == 0 && len(w.model.waiting) > 0 && w.model.inFlight > 0 {
						c := w.model.waiting[0]
						w.model.cancel(c)
						c.cancel(errEnough)
						w.release()
					}
				},
				"": w.check,
			})
		})
	})
}

func BenchmarkAcquireRelease(b *testing.B) {
	cancellable, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.Run("free", func(b *testing.B) {
		bulk := bulkhead.New(64)
		b.ReportAllocs()
		for b.Loop() {
			if bulk.Acquire(cancellable, bulkhead.Claim{Priority: 2}) == nil {
				bulk.Release(bulkhead.Claim{})
			}
		}
	})
	b.Run("try", func(b *testing.B) {
		bulk := bulkhead.New(64)
		b.ReportAllocs()
		for b.Loop() {
			if bulk.TryAcquire(bulkhead.Claim{Priority: 2}) {
				bulk.Release(bulkhead.Claim{})
			}
		}
	})
	b.Run("free/parallel", func(b *testing.B) {
		bulk := bulkhead.New(64)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if bulk.Acquire(cancellable, bulkhead.Claim{Priority: 2}) == nil {
					bulk.Release(bulkhead.Claim{})
				}
			}
		})
	})
	b.Run("contended", func(b *testing.B) {
		bulk := bulkhead.New(4)
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if bulk.Acquire(cancellable, bulkhead.Claim{Priority: 2}) == nil {
					bulk.Release(bulkhead.Claim{})
				}
			}
		})
	})
}
