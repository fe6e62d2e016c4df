package bulkhead_test

import (
	"cmp"
	"context"
	"errors"
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
	waiting         []*client
}

func (m *model) serve() {
	slices.SortFunc(m.waiting, func(a, b *client) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.id, b.id))
	})
	for m.inFlight < m.limit && len(m.waiting) > 0 {
		m.waiting[0].want = "granted"
		m.waiting = m.waiting[1:]
		m.inFlight++
	}
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
	if ended {
		cancel(errEnough)
		c.want = "cancelled"
	} else {
		w.model.waiting = append(w.model.waiting, c)
		w.model.serve()
	}
	w.running.Go(func() {
		switch err := w.real.Acquire(ctx, priority); {
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
		w.real.Release()
	}
}

func (w *world) setLimit(n int) {
	w.model.limit = n
	w.model.serve()
	w.real.SetLimit(n)
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
			r.Repeat(map[string]func(*rapid.T){
				"acquire":       func(r *rapid.T) { w.acquire(rapid.IntRange(0, 3).Draw(r, "priority"), false) },
				"acquire ended": func(r *rapid.T) { w.acquire(rapid.IntRange(0, 3).Draw(r, "priority"), true) },
				"try": func(r *rapid.T) {
					want := w.model.inFlight < w.model.limit
					if want {
						w.model.inFlight++
					}
					if got := w.real.TryAcquire(rapid.IntRange(0, 3).Draw(r, "priority")); got != want {
						r.Fatalf("try got %v, want %v", got, want)
					}
				},
				"release":   func(*rapid.T) { w.release() },
				"set limit": func(r *rapid.T) { w.setLimit(rapid.IntRange(0, 6).Draw(r, "limit")) },
				"cancel": func(r *rapid.T) {
					if n := len(w.model.waiting); n > 0 {
						c := w.model.waiting[rapid.IntRange(0, n-1).Draw(r, "waiter")]
						w.model.cancel(c)
						c.cancel(errEnough)
					}
				},
				"cancel and release": func(*rapid.T) {
					if len(w.model.waiting) > 0 && w.model.inFlight > 0 {
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
			if bulk.Acquire(cancellable, 2) == nil {
				bulk.Release()
			}
		}
	})
	b.Run("try", func(b *testing.B) {
		bulk := bulkhead.New(64)
		b.ReportAllocs()
		for b.Loop() {
			if bulk.TryAcquire(2) {
				bulk.Release()
			}
		}
	})
	b.Run("free/parallel", func(b *testing.B) {
		bulk := bulkhead.New(64)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if bulk.Acquire(cancellable, 2) == nil {
					bulk.Release()
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
				if bulk.Acquire(cancellable, 2) == nil {
					bulk.Release()
				}
			}
		})
	})
}
