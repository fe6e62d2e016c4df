// Package bulkhead bounds how many jobs of a pool run at once, and lets the
// others wait in order of their priority.
//
//	              free permit: at once
//	──Acquire──┬──────────────────────────────────────► in flight ──Release──►
//	           │            ┌ 0 ─ ─ ─ ─ ─ ┐               ▲   │
//	           └──► waiting │ 1 ─ ─ ─     │──── first ────┘   │ permit
//	                        │ 2 ─ ─ ─ ─ ─ │◄──────────────────┘
//	                        └ 3 ─         ┘
//	                               └──ctx ends──► its cause
//
// Guarantees:
//
//  1. Nobody starts while limit or more are in flight, nor while that would
//     leave less free than is reserved for more important priorities. A lower
//     limit interrupts nobody; what is too much ends by itself.
//  2. Whoever waits is served by priority, 0 first, and in order of arrival
//     within one. Nobody of a priority gets a permit past those who wait for
//     the same or a higher one, but for 3.
//  3. Nobody starves: after 19 permits that went past somebody of a lower
//     priority, one goes to the lower priority that was passed most often,
//     past the others and past what is reserved.
//  4. Each Acquire ends once: with a permit, or with the cause of its context.
//     Cancellation wins over a permit that comes at the same time, and that
//     permit goes to the next in line.
//  5. No permit is lost and none is made: what was acquired is in flight until
//     it is released.
//  6. Taking and returning a permit that is free allocates nothing.
//  7. With the order turned round (SetOrder) all of this holds with the least
//     important in place of the most important, and so on.
//  8. A fair bulkhead gives the permits of one priority to the key that has had
//     the least of them while somebody waited; see fair.go.
//
// To others it leaves: how many may wait and for how long, how much is to be
// reserved (shed), and that each permit is released exactly once, also after a
// panic.
package bulkhead

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// priorities is the number of priorities. Smaller is more important.
const priorities = 4

// Bulkhead hands out permits. Any number of goroutines may use it at once.
type Bulkhead struct {
	mu       sync.Mutex // guards all below
	limit    int
	inFlight int
	turned   bool            // the order is turned round
	reserve  [priorities]int // permits to keep free of each priority; never falling in the order
	// Whenever mu is free, somebody waits only if nothing is free for his
	// priority. Since as much or less is reserved from those before him in the
	// order, who finds a free permit gets ahead of nobody but those behind.
	waiting [priorities]line
	shares  *shares // nil: not fair

	contested int             // permits in a row that went past a lower priority
	passed    [priorities]int // how often each was passed since its last permit
}

// turn is the number of contested permits of which one goes to a lower
// priority.
const turn = 20

// New returns a bulkhead with limit permits. 0: nobody starts until SetLimit.
// A negative limit panics.
func New(limit int) *Bulkhead {
	b := &Bulkhead{}
	b.SetLimit(limit)
	return b
}

// Claim is what a permit is asked for with, and given back with.
type Claim struct {
	// Priority from 0, the most important, to 3. Another one panics.
	Priority int
	// Key is whose it is, 0 to Keys-1, of no account unless the bulkhead is
	// fair. Another one panics.
	Key uint8
}

// Acquire waits for a permit. It returns nil when it has got one, which the
// caller must Release, or the cause of ctx when that has ended, be it before,
// while waiting, or in the moment of the permit.
func (b *Bulkhead) Acquire(ctx context.Context, c Claim) error {
	c.mustBeValid()
	// A select over both would pick at random.
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b.mu.Lock()
	if b.uncontested(c.Priority) {
		b.take(c)
		b.mu.Unlock()
		return nil
	}
	w := b.join(c)
	b.mu.Unlock()
	return b.await(ctx, w)
}

// take counts a permit as taken. The caller holds mu.
func (b *Bulkhead) take(c Claim) {
	b.inFlight++
	if b.shares != nil {
		b.waiting[c.Priority].keyed.hold(c.Key, 1)
	}
}

// join puts somebody in line. A permit that is free may go to him, or be the
// turn of somebody less important: also who has just come must not get past
// those for ever. The caller holds mu.
func (b *Bulkhead) join(c Claim) *waiter {
	w := &waiter{claim: c, granted: make(chan struct{})}
	b.waiting[c.Priority].push(w)
	b.grant()
	return w
}

// uncontested tells whether a permit is free that nobody waits for. The caller
// holds mu.
func (b *Bulkhead) uncontested(priority int) bool {
	if !b.free(priority) {
		return false
	}
	for p := range b.waiting { // who comes before in the order, or is the same, does not wait
		if b.waiting[p].length > 0 {
			return false
		}
	}
	return true
}

// at is the priority at a place in the order, and the place of a priority. The
// caller holds mu.
func (b *Bulkhead) at(place int) int {
	if b.turned {
		return priorities - 1 - place
	}
	return place
}

// await waits until w has a permit or ctx ends.
func (b *Bulkhead) await(ctx context.Context, w *waiter) error {
	select {
	case <-w.granted:
		if ctx.Err() == nil {
			return nil
		}
		// Granted and cancelled, and select happened to pick this one. Had it
		// picked the other we would go away, so we do: what starts after a
		// cancellation must not depend on chance.
		b.Release(w.claim)
	case <-ctx.Done():
		b.leave(w)
	}
	return context.Cause(ctx)
}

// leave takes a waiter out that has been cancelled.
func (b *Bulkhead) leave(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.granted:
		// The permit came between the cancellation and the lock. Nobody will
		// use it, and it is counted as in flight: pass it on, or it is lost.
		b.release(w.claim)
	default:
		// Nobody needs to be woken, not even if the first in line leaves. With
		// weights, those behind might fit where the first did not; here a
		// permit that fits anybody would have gone to the first.
		b.waiting[w.claim.Priority].remove(w)
	}
}

// TryAcquire takes a permit if one is free for the priority, and reports
// whether it did. Then nobody of that or a higher one waits. It is false, too,
// when it is the turn of somebody less important.
func (b *Bulkhead) TryAcquire(c Claim) bool {
	c.mustBeValid()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.uncontested(c.Priority):
		b.take(c)
		return true
	case !b.free(c.Priority):
		return false
	}
	w := b.join(c)
	select {
	case <-w.granted:
		return true
	default:
		b.waiting[c.Priority].remove(w)
		return false
	}
}

// free tells whether a priority may start. The caller holds mu.
func (b *Bulkhead) free(priority int) bool { return b.inFlight < b.limit-b.reserve[priority] }

// Release returns the permit that was taken with c. It panics if there is none
// in flight.
func (b *Bulkhead) Release(c Claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.release(c)
}

// release is called with mu held.
func (b *Bulkhead) release(c Claim) {
	b.giveBack(c, "released")
	b.grant()
}

// giveBack is called with mu held.
func (b *Bulkhead) giveBack(c Claim, done string) {
	if b.inFlight == 0 {
		panic("bulkhead: " + done + " more than acquired")
	}
	b.inFlight--
	if b.shares != nil {
		b.waiting[c.Priority].keyed.hold(c.Key, -1)
	}
}

// Yield returns a permit that was of no use: something else than this bulkhead
// did not let its holder start. Nobody else gets it, as the limit sinks with it
// until SetLimit says otherwise; those who wait would only take turns in being
// turned away. It panics if there is none in flight.
func (b *Bulkhead) Yield(c Claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.giveBack(c, "yielded")
	b.limit = min(b.limit, b.inFlight)
}

// SetLimit changes the number of permits. More wakes those who wait, in
// order; fewer lets those in flight end by themselves. It never blocks. A
// negative limit panics.
func (b *Bulkhead) SetLimit(limit int) {
	if limit < 0 {
		panic(fmt.Sprintf("bulkhead: limit %d, want 0 or more", limit))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = limit
	b.grant()
}

// SetOrder changes how many permits are kept free of each priority, and whether
// the order is turned round: the least important first. Less wakes those who
// wait; more lets those in flight go on. It never blocks. It panics if something
// is negative, or if less is kept free of a priority than of one before it.
func (b *Bulkhead) SetOrder(reserve [priorities]int, turned bool) {
	inOrder := reserve
	if turned {
		slices.Reverse(inOrder[:])
	}
	if inOrder[0] < 0 || !slices.IsSorted(inOrder[:]) {
		panic(fmt.Sprintf("bulkhead: reserve %v, want 0 or more and never falling", reserve))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reserve != reserve || b.turned != turned {
		b.reserve, b.turned = reserve, turned
		b.grant()
	}
}

// grant gives free permits to the next in line. The caller holds mu.
func (b *Bulkhead) grant() {
	for p := b.next(); p >= 0; p = b.next() {
		w := b.waiting[p].pop(b.limit)
		b.take(w.claim)
		close(w.granted)
	}
}

// next is the priority whose turn it is, -1 if nobody may start. The caller
// holds mu, and grants.
func (b *Bulkhead) next() int {
	place := 0
	for place < priorities && (b.waiting[b.at(place)].length == 0 || !b.free(b.at(place))) {
		place++
	}
	if place == priorities {
		return -1
	}
	first := b.at(place)
	most := first
	for place++; place < priorities; place++ {
		if p := b.at(place); b.waiting[p].length > 0 {
			b.passed[p]++
			if most == first || b.passed[p] >= b.passed[most] {
				most = p
			}
		}
	}
	if most == first {
		return first
	}
	if b.contested++; b.contested < turn {
		return first
	}
	b.contested, b.passed[most] = 0, 0
	return most
}

// Stats is the state of a bulkhead at one instant.
type Stats struct {
	// Limit as last set.
	Limit int
	// InFlight permits are taken; more than Limit after it was lowered.
	InFlight int
	// Waiting for a permit, by priority.
	Waiting [priorities]int
}

// Stats may be called from any goroutine.
func (b *Bulkhead) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Stats{Limit: b.limit, InFlight: b.inFlight}
	for p := range b.waiting {
		s.Waiting[p] = b.waiting[p].length
	}
	return s
}

func (c Claim) mustBeValid() {
	if c.Priority < 0 || c.Priority >= priorities {
		panic(fmt.Sprintf("bulkhead: priority %d, want 0 to %d", c.Priority, priorities-1))
	}
	if c.Key >= Keys {
		panic(fmt.Sprintf("bulkhead: key %d, want 0 to %d", c.Key, Keys-1))
	}
}
