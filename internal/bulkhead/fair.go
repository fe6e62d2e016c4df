package bulkhead

import (
	"fmt"
	"math"
	"time"
)

// Keys is the number of keys that a fair bulkhead tells apart, whatever they
// stand for.
const Keys = 128

// Fairness says how those who wait with one priority share its permits.
//
// A key pays for each permit with the time it holds it, divided by its weight.
// The next permit goes to the key that has paid the least, those it holds
// reckoned as if each were held for the usual time from now on. So keys that
// always have somebody waiting hold permits in proportion to their weights,
// however many wait and however long their jobs take.
//
// Only time during which somebody waits is paid for: what nobody else wanted is
// free. Who begins to wait is taken to have paid as much as the least of those
// who wait: to have stayed away is no merit.
type Fairness struct {
	// Weights by key, 0 or more. 0 counts as 1.
	Weights [Keys]float64
	// MaxShare of the limit, rounded up, that a key may hold while others wait
	// with the same priority, 0 to 1. 0: all of it.
	MaxShare float64
}

// leastPay is what a permit costs at least: jobs that take no time take turns
// too.
const leastPay = float64(time.Millisecond)

// NewFair is New for a bulkhead that is fair between keys. A weight or share
// out of its range panics.
func NewFair(limit int, f Fairness) *Bulkhead {
	s := &shares{max: f.MaxShare}
	if !(f.MaxShare >= 0 && f.MaxShare <= 1) {
		panic(fmt.Sprintf("bulkhead: max share %v, want 0 to 1", f.MaxShare))
	}
	for key, weight := range f.Weights {
		if !(weight >= 0 && weight <= math.MaxInt32) {
			panic(fmt.Sprintf("bulkhead: weight %v, want 0 or more", weight))
		}
		s.price[key] = 1
		if weight > 0 {
			s.price[key] = 1 / weight
		}
	}
	b := &Bulkhead{shares: s}
	for p := range b.waiting {
		b.waiting[p].keyed = &keyed{shares: s}
	}
	b.SetLimit(limit)
	return b
}

// shares is what the lines of all priorities have in common.
type shares struct {
	max     float64
	price   [Keys]float64 // of a nanosecond: 1 / weight
	holds   [Keys]int     // permits, of all priorities
	arrived uint64        // waiters so far
	usual   float64       // nanoseconds for which a permit is held, of late
}

// usually is the part that the last permit has in what is usual.
const usually = 1. / 64

// keyed is a line in which each key has a queue of its own. An account costs
// memory whether it is used or not, so that nobody can make it grow.
type keyed struct {
	shares   *shares
	accounts [Keys]account
	waiting  []uint8 // keys of whom somebody waits, in no order
	floor    float64 // what who begins to wait has paid at least

	inFlight  int           // permits of this priority
	used      float64       // nanoseconds of these since one was given back
	contested time.Duration // time during which somebody waited, until seen
	seen      time.Time
}

// account of one key in one line.
type account struct {
	queue queue
	place int           // in keyed.waiting
	holds int           // permits it got for this priority
	paid  float64       // nanoseconds of a permit, by weight
	at    time.Duration // of the contested time up to which it has paid
}

// tick brings the contested time up to date. It is called before anything
// changes.
func (k *keyed) tick() {
	now := time.Now()
	passed := now.Sub(k.seen)
	k.seen = now
	if k.inFlight > 0 {
		k.used += float64(k.inFlight) * float64(passed)
	}
	if len(k.waiting) > 0 {
		k.contested += passed
	}
}

// bill returns an account with what it has to pay until now.
func (k *keyed) bill(key uint8) *account {
	a := &k.accounts[key]
	a.paid += float64(a.holds) * float64(k.contested-a.at) * k.shares.price[key]
	a.at = k.contested
	return a
}

func (k *keyed) push(w *waiter) {
	k.tick()
	key := w.claim.Key
	a := k.bill(key)
	if a.queue.first == nil {
		k.floor = max(k.floor, k.least())
		a.paid = max(a.paid, k.floor)
		a.place = len(k.waiting)
		k.waiting = append(k.waiting, key)
	}
	k.shares.arrived++
	w.arrived = k.shares.arrived
	a.queue.push(w)
}

// least is what the keys that wait have paid at least, 0 if none waits.
func (k *keyed) least() float64 {
	least := math.Inf(1)
	for _, key := range k.waiting {
		least = min(least, k.bill(key).paid)
	}
	if len(k.waiting) == 0 {
		return 0
	}
	return least
}

// serve is who gets the next permit, and charges the least it costs.
func (k *keyed) serve(limit int) *waiter {
	k.tick()
	most := max(1, int(math.Ceil(k.shares.max*float64(limit))))
	var next *account
	var nextKey uint8
	var nextSated bool
	for _, key := range k.waiting {
		a, sated := k.bill(key), k.shares.max > 0 && k.shares.holds[key] >= most
		if next == nil || !sated && nextSated || sated == nextSated && a.before(next, k.shares) {
			next, nextKey, nextSated = a, key, sated
		}
	}
	k.floor = max(k.floor, next.paid)
	next.paid += leastPay * k.shares.price[nextKey]
	return next.queue.first
}

// before tells whose turn it is of two accounts that were billed. What they hold
// is reckoned too: of permits that come free at once not all go to one.
func (a *account) before(other *account, s *shares) bool {
	mine, theirs := a.reckoned(s), other.reckoned(s)
	if mine != theirs {
		return mine < theirs
	}
	return a.queue.first.arrived < other.queue.first.arrived
}

func (a *account) reckoned(s *shares) float64 {
	return a.paid + float64(a.holds)*s.usual*s.price[a.queue.first.claim.Key]
}

func (k *keyed) remove(w *waiter) {
	k.tick()
	a := &k.accounts[w.claim.Key]
	a.queue.remove(w)
	if a.queue.first != nil {
		return
	}
	last := k.waiting[len(k.waiting)-1]
	k.waiting[a.place] = last
	k.accounts[last].place = a.place
	k.waiting = k.waiting[:len(k.waiting)-1]
}

// hold counts the permits of a key.
func (k *keyed) hold(key uint8, n int) {
	k.tick()
	k.bill(key).holds += n
	k.shares.holds[key] += n
	k.inFlight += n
	if n < 0 {
		k.shares.usual += (k.used - k.shares.usual) * usually
		k.used = 0
	}
}
