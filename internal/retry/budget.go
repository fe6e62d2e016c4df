package retry

import (
	"math"
	"sync"
	"time"
)

// Cost of a retry, in thousandths of a token.
type Cost int64

// What a retry costs.
const (
	// Whole is the cost of a retry after a failure.
	Whole Cost = 1000
	// Half is the cost of a retry after throttling: the target is well and has
	// said when to come back.
	Half Cost = 500
)

// second in the unit of time of a trickle.
const second = int64(time.Second)

// Budget of the retries of one target: a token bucket that successes fill. It
// bounds what retries add to the load, which is what turns a slow target into
// a dead one. While nothing succeeds only a trickle flows in.
//
// A nil Budget, and one made from a config with budget: -1, has no limit. Any
// number of goroutines may use a Budget at once.
type Budget struct {
	// Set by NewBudget; numbers in thousandths of a token.
	unlimited  bool
	max        int64
	perSuccess int64
	perSecond  int64

	mu                         sync.Mutex // guards all below
	tokens                     int64
	seen                       time.Time // the latest time passed in; zero: none yet
	carry                      int64     // trickle that is not yet a thousandth, times second
	granted, refused, refunded uint64
}

// NewBudget returns a full budget. A value out of range becomes the nearest
// one that works; reporting it is Validate's part.
func NewBudget(cfg Config) *Budget {
	cfg = cfg.WithDefaults()
	size := milli(float64(min(max(1, cfg.BudgetMax), 1_000_000)))
	return &Budget{
		unlimited:  cfg.Budget < 0,
		max:        size,
		perSuccess: milli(min(cfg.Budget, 1)),
		perSecond:  milli(min(cfg.BudgetMinPerSecond, 1000)),
		tokens:     size,
	}
}

// milli rounds to the nearest thousandth; what is less than 0, or no number, is 0.
func milli(x float64) int64 {
	if !(x > 0) {
		return 0
	}
	return int64(math.Round(x * 1000))
}

// Withdraw takes the cost of a retry if there is that much, and reports
// whether there was. A time earlier than one seen before counts as that one.
func (b *Budget) Withdraw(now time.Time, cost Cost) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unlimited {
		b.granted++
		return true
	}
	b.refill(now)
	if b.tokens < int64(cost) {
		b.refused++
		return false
	}
	b.tokens -= int64(cost)
	b.granted++
	return true
}

// Refund gives back what was withdrawn for a retry that was not made.
func (b *Budget) Refund(cost Cost) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refunded++
	b.add(int64(cost))
}

// Deposit pays in for one success.
func (b *Budget) Deposit() {
	if b == nil || b.unlimited {
		return
	}
	b.mu.Lock()
	// The trickle that is due may as well be added later: the sum is the same.
	b.add(b.perSuccess)
	b.mu.Unlock()
}

// refill adds what has trickled in since it was last called. The caller holds mu.
func (b *Budget) refill(now time.Time) {
	if b.seen.IsZero() {
		b.seen = now
	}
	passed := now.Sub(b.seen)
	if passed <= 0 {
		return
	}
	b.seen = now
	if b.perSecond == 0 {
		return
	}
	// Bounded by the time that fills an empty bucket, the product below is at
	// most max·second, which is 10^18 and fits.
	passed = min(passed, time.Duration(b.max*second/b.perSecond+1))
	trickle := int64(passed)*b.perSecond + b.carry
	b.carry = trickle % second
	b.add(trickle / second)
}

// add is called with mu held.
func (b *Budget) add(amount int64) {
	b.tokens += amount
	if b.tokens >= b.max {
		b.tokens, b.carry = b.max, 0
	}
}

// BudgetStats is the state of a budget at one instant.
type BudgetStats struct {
	// Unlimited budgets count what they grant and have no tokens.
	Unlimited bool
	// Tokens there are, and at most can be.
	Tokens, Max float64
	// Granted, Refused and Refunded retries since the start.
	Granted, Refused, Refunded uint64
}

// Stats may be called from any goroutine.
func (b *Budget) Stats(now time.Time) BudgetStats {
	if b == nil {
		return BudgetStats{Unlimited: true}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := BudgetStats{Unlimited: b.unlimited, Granted: b.granted, Refused: b.refused, Refunded: b.refunded}
	if !b.unlimited {
		b.refill(now)
		s.Tokens, s.Max = float64(b.tokens)/1000, float64(b.max)/1000
	}
	return s
}
