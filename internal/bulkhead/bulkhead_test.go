package bulkhead_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/workerd/workerd/internal/bulkhead"
)

var errEnough = errors.New("enough")

func mustPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if got := recover(); got != want {
			t.Errorf("panicked with %v, want %q", got, want)
		}
	}()
	f()
}

func TestBulkhead_endedContextGetsNoFreePermit(t *testing.T) {
	b := bulkhead.New(1)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnough)
	for range 100 {
		if err := b.Acquire(ctx, bulkhead.Claim{}); !errors.Is(err, errEnough) {
			t.Fatalf("got %v, want the cause", err)
		}
	}
	if s := b.Stats(); s != (bulkhead.Stats{Limit: 1}) {
		t.Errorf("got %+v", s)
	}
}

// TestInvariant25_cancellationWinsOverAPermitAtTheSameTime makes both ready, in
// either order, mostly before the waiter can run. The permit goes to the next.
func TestInvariant25_cancellationWinsOverAPermitAtTheSameTime(t *testing.T) {
	for _, releasedFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("released first %v", releasedFirst), func(t *testing.T) {
			for range 200 { // select picks at random
				synctest.Test(t, func(t *testing.T) {
					b := bulkhead.New(1)
					b.TryAcquire(bulkhead.Claim{})
					ctx, cancel := context.WithCancelCause(t.Context())
					var first, second error
					var waiters sync.WaitGroup
					waiters.Go(func() {
						if first = b.Acquire(ctx, bulkhead.Claim{}); first == nil {
							b.Release(bulkhead.Claim{})
						}
					})
					synctest.Wait()
					waiters.Go(func() { second = b.Acquire(t.Context(), bulkhead.Claim{Priority: 3}) })
					synctest.Wait()
					if releasedFirst {
						b.Release(bulkhead.Claim{})
						cancel(errEnough)
					} else {
						cancel(errEnough)
						b.Release(bulkhead.Claim{})
					}
					waiters.Wait()
					// On another processor it may have run between the two.
					inTime := releasedFirst && first == nil
					if !inTime && !errors.Is(first, errEnough) || second != nil {
						t.Errorf("first got %v, second %v", first, second)
					}
					if s := b.Stats(); s != (bulkhead.Stats{Limit: 1, InFlight: 1}) {
						t.Errorf("got %+v", s)
					}
				})
			}
		})
	}
}

func TestInvariant23_shrinkInterruptsNobodyAndGrowWakesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(3)
		for range 3 {
			b.TryAcquire(bulkhead.Claim{Priority: 2})
		}
		var mu sync.Mutex
		var order []int
		var waiters sync.WaitGroup
		for _, priority := range []int{3, 2, 0, 1} {
			waiters.Go(func() {
				if err := b.Acquire(t.Context(), bulkhead.Claim{Priority: priority}); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, priority)
				mu.Unlock()
			})
			synctest.Wait()
		}
		started := func(want int) {
			t.Helper()
			synctest.Wait()
			if len(order) != want {
				t.Errorf("%v have started, want %d", order, want)
			}
		}
		b.SetLimit(0)
		if s := b.Stats(); s != (bulkhead.Stats{InFlight: 3, Waiting: [4]int{1, 1, 1, 1}}) {
			t.Errorf("got %+v", s)
		}
		b.Release(bulkhead.Claim{})
		b.Release(bulkhead.Claim{})
		started(0)
		for n := range 4 {
			b.SetLimit(n + 2) // one is still in flight
			started(n + 1)
		}
		waiters.Wait()
		for i, priority := range order {
			if i != priority {
				t.Fatalf("served in the order %v", order)
			}
		}
	})
}

func TestBulkhead_limit0LetsNobodyStart(t *testing.T) {
	b := bulkhead.New(0)
	if b.TryAcquire(bulkhead.Claim{}) {
		t.Error("a permit out of nothing")
	}
	b.SetLimit(1)
	if !b.TryAcquire(bulkhead.Claim{}) {
		t.Error("no permit at limit 1")
	}
}

func TestBulkhead_misusePanics(t *testing.T) {
	b := bulkhead.New(1)
	mustPanic(t, "bulkhead: released more than acquired", func() { b.Release(bulkhead.Claim{}) })
	mustPanic(t, "bulkhead: limit -1, want 0 or more", func() { b.SetLimit(-1) })
	mustPanic(t, "bulkhead: limit -5, want 0 or more", func() { bulkhead.New(-5) })
	mustPanic(t, "bulkhead: priority 4, want 0 to 3", func() { b.TryAcquire(bulkhead.Claim{Priority: 4}) })
	mustPanic(t, "bulkhead: priority -1, want 0 to 3", func() { _ = b.Acquire(t.Context(), bulkhead.Claim{Priority: -1}) })
	// A panic leaves no lock behind.
	if s := b.Stats(); s != (bulkhead.Stats{Limit: 1}) {
		t.Errorf("got %+v", s)
	}
}

func TestBulkhead_freePermitsAllocateNothing(t *testing.T) {
	b := bulkhead.New(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	allocs := testing.AllocsPerRun(1000, func() {
		if b.Acquire(ctx, bulkhead.Claim{Priority: 2}) == nil {
			b.Release(bulkhead.Claim{})
		}
		if b.TryAcquire(bulkhead.Claim{Priority: 2}) {
			b.Release(bulkhead.Claim{})
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// TestInvariant24_nothingIsLostInARaceOf64 cancels, releases and changes the
// limit at once, and takes stock when all is over.
func TestInvariant24_nothingIsLostInARaceOf64(t *testing.T) {
	const most = 8
	b := bulkhead.New(most)
	var running, granted, released, cancelled atomic.Int64
	var clients, changes sync.WaitGroup
	ended := make(chan struct{})
	changes.Go(func() {
		for {
			select {
			case <-ended:
				b.SetLimit(most)
				return
			default:
				b.SetLimit(rand.IntN(most + 1))
			}
		}
	})
	for i := range 64 {
		clients.Go(func() {
			for range 500 {
				ctx, cancel := context.WithCancelCause(t.Context())
				if rand.IntN(2) == 0 {
					clients.Go(func() { cancel(errEnough) })
				}
				switch err := b.Acquire(ctx, bulkhead.Claim{Priority: i % 4}); {
				case err == nil:
					granted.Add(1)
					if n := running.Add(1); n > most {
						t.Errorf("%d are running, at most %d may", n, most)
					}
					running.Add(-1)
					released.Add(1)
					b.Release(bulkhead.Claim{})
				case errors.Is(err, errEnough):
					cancelled.Add(1)
				default:
					t.Error(err)
				}
				cancel(nil)
			}
		})
	}
	clients.Wait()
	close(ended)
	changes.Wait()
	if sum := granted.Load() + cancelled.Load(); sum != 64*500 || granted.Load() != released.Load() {
		t.Errorf("%d granted, %d released, %d cancelled", granted.Load(), released.Load(), cancelled.Load())
	}
	if s := b.Stats(); s != (bulkhead.Stats{Limit: most}) {
		t.Errorf("left over: %+v", s)
	}
}

func TestYield_takesTheLimitAlongAndWakesNobody(t *testing.T) {
	b := bulkhead.New(2)
	for range 2 {
		if !b.TryAcquire(bulkhead.Claim{}) {
			t.Fatal("no permit")
		}
	}
	got := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	waiting.Go(func() { got <- b.Acquire(ctx, bulkhead.Claim{}) })
	for b.Stats().Waiting[0] == 0 {
		runtime.Gosched()
	}
	b.Yield(bulkhead.Claim{})
	if s := b.Stats(); s.InFlight != 1 || s.Limit != 1 || s.Waiting[0] != 1 {
		t.Errorf("got %+v, want one in flight, the limit at one, and one waiting", s)
	}
	b.SetLimit(2)
	if err := <-got; err != nil {
		t.Error(err)
	}
}
