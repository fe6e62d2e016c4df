package retry_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/retry"
)

// epoch is when time begins in tests.
func epoch() time.Time { return time.Unix(1_700_000_000, 0) }

// ledger is the budget as one would write it without a thought for cost: a
// fraction of tokens, refilled at every step.
type ledger struct {
	tokens, max, ratio, rate *big.Rat
	now                      time.Duration
}

func fraction(x float64) *big.Rat {
	r, ok := new(big.Rat).SetString(fmt.Sprintf("%.3f", x))
	if !ok {
		panic("not a number")
	}
	return r
}

func (l *ledger) add(x *big.Rat) {
	l.tokens.Add(l.tokens, x)
	if l.tokens.Cmp(l.max) > 0 {
		l.tokens.Set(l.max)
	}
}

func (l *ledger) pass(d time.Duration) {
	l.now += d
	l.add(new(big.Rat).Mul(l.rate, big.NewRat(int64(d), int64(time.Second))))
}

// withdraw takes whole thousandths only, as the budget does.
func (l *ledger) withdraw(c retry.Cost) bool {
	cost := big.NewRat(int64(c), 1000)
	if l.tokens.Cmp(cost) < 0 {
		return false
	}
	l.tokens.Sub(l.tokens, cost)
	return true
}

func budgets(t *rapid.T) retry.Config {
	milli := func(label string, high int) float64 {
		return float64(rapid.IntRange(1, high*1000).Draw(t, label)) / 1000
	}
	c := retry.Config{Budget: milli("ratio", 1), BudgetMax: rapid.IntRange(1, 5).Draw(t, "max"), BudgetMinPerSecond: milli("rate", 1000)}
	if rapid.Bool().Draw(t, "no trickle") {
		c.BudgetMinPerSecond = -1
	}
	return c
}

func costs(t *rapid.T) retry.Cost {
	return rapid.SampledFrom([]retry.Cost{retry.Whole, retry.Half}).Draw(t, "cost")
}

func TestInvariant19and20_budgetIsAFractionOfTokens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := budgets(t)
		b := retry.NewBudget(cfg)
		size := big.NewRat(int64(cfg.BudgetMax), 1)
		l := &ledger{tokens: new(big.Rat).Set(size), max: size, ratio: fraction(cfg.Budget), rate: fraction(max(0, cfg.BudgetMinPerSecond))}
		b.Stats(epoch()) // time begins
		var taken []retry.Cost
		t.Repeat(map[string]func(*rapid.T){
			"pass": func(t *rapid.T) {
				l.pass(time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "time")))
			},
			"success": func(*rapid.T) { b.Deposit(); l.add(l.ratio) },
			"withdraw": func(t *rapid.T) {
				c := costs(t)
				got, want := b.Withdraw(epoch().Add(l.now), c), l.withdraw(c)
				if got != want {
					t.Fatalf("withdraw %d: got %v, want %v at %s tokens", c, got, want, l.tokens.FloatString(9))
				}
				if got {
					taken = append(taken, c)
				}
			},
			"refund": func(*rapid.T) {
				if n := len(taken); n > 0 {
					b.Refund(taken[n-1])
					l.add(big.NewRat(int64(taken[n-1]), 1000))
					taken = taken[:n-1]
				}
			},
			"back in time": func(t *rapid.T) {
				back := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "back"))
				b.Stats(epoch().Add(l.now)) // the latest time is known
				b.Stats(epoch().Add(l.now - back))
			},
			"": func(t *rapid.T) {
				s := b.Stats(epoch().Add(l.now))
				if s.Tokens < 0 || s.Tokens > s.Max {
					t.Fatalf("%v of %v tokens", s.Tokens, s.Max)
				}
				exact, _ := l.tokens.Float64()
				if s.Tokens > exact+1e-9 || s.Tokens < exact-0.001 {
					t.Fatalf("%v tokens, want the %v rounded down to a thousandth", s.Tokens, exact)
				}
			},
		})
	})
}

func TestInvariant19_retriesAreBoundedAlsoConcurrently(t *testing.T) {
	cfg := retry.Config{Budget: 0.1, BudgetMax: 20, BudgetMinPerSecond: 50}
	b := retry.NewBudget(cfg)
	var millis, successes atomic.Int64
	var clients sync.WaitGroup
	began := time.Now()
	b.Stats(began)
	for range 64 {
		clients.Go(func() {
			for i := range 2000 {
				switch c := []retry.Cost{retry.Whole, retry.Half}[i%2]; {
				case rand.IntN(3) == 0:
					successes.Add(1)
					b.Deposit()
				case !b.Withdraw(time.Now(), c):
				case rand.IntN(10) == 0:
					b.Refund(c)
				default:
					millis.Add(int64(c))
				}
			}
		})
	}
	clients.Wait()
	bound := 20_000 + 100*successes.Load() + int64(50_000*time.Since(began).Seconds())
	if millis.Load() > bound {
		t.Errorf("retries worth %d thousandths of a token, want at most %d", millis.Load(), bound)
	}
	if s := b.Stats(time.Now()); s.Tokens < 0 || s.Tokens > s.Max {
		t.Errorf("%v of %v tokens", s.Tokens, s.Max)
	}
}

func TestBudget_idleForAnyTimeIsFull(t *testing.T) {
	for _, rate := range []float64{0.001, 1, 1000} {
		b := retry.NewBudget(retry.Config{BudgetMax: 1_000_000, BudgetMinPerSecond: rate})
		b.Stats(epoch())
		for b.Withdraw(epoch(), 1_000_000_000) {
		}
		if s := b.Stats(epoch().Add(250 * 365 * 24 * time.Hour)); s.Tokens != s.Max {
			t.Errorf("after 250 years at %v per second: %v of %v tokens", rate, s.Tokens, s.Max)
		}
	}
}

func TestBudget_offIsUnlimited(t *testing.T) {
	for name, b := range map[string]*retry.Budget{"nil": nil, "-1": retry.NewBudget(retry.Config{Budget: -1})} {
		for range 10_000 {
			b.Deposit()
			if !b.Withdraw(epoch(), retry.Whole) {
				t.Fatal(name, "budget has refused")
			}
		}
		b.Refund(retry.Whole)
		if s := b.Stats(epoch()); !s.Unlimited || s.Refused != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestBudget_countsWhatItDid(t *testing.T) {
	b := retry.NewBudget(retry.Config{BudgetMax: 1, BudgetMinPerSecond: -1, Budget: 0.25})
	b.Withdraw(epoch(), retry.Half)
	b.Withdraw(epoch(), retry.Half)
	b.Withdraw(epoch(), retry.Half) // refused
	b.Refund(retry.Half)
	b.Deposit()
	want := retry.BudgetStats{Tokens: 0.75, Max: 1, Granted: 2, Refused: 1, Refunded: 1}
	if got := b.Stats(epoch()); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func BenchmarkBudget(b *testing.B) {
	now := epoch()
	b.Run("deposit", func(b *testing.B) {
		budget := retry.NewBudget(retry.Config{})
		b.ReportAllocs()
		for b.Loop() {
			budget.Deposit()
		}
	})
	b.Run("withdraw", func(b *testing.B) {
		budget := retry.NewBudget(retry.Config{BudgetMinPerSecond: 1000})
		b.ReportAllocs()
		for b.Loop() {
			now = now.Add(time.Millisecond)
			budget.Withdraw(now, retry.Whole)
		}
	})
	b.Run("refused", func(b *testing.B) {
		budget := retry.NewBudget(retry.Config{BudgetMax: 1, BudgetMinPerSecond: -1})
		b.ReportAllocs()
		for b.Loop() {
			budget.Withdraw(now, retry.Whole)
		}
	})
	b.Run("deposit/parallel", func(b *testing.B) {
		budget := retry.NewBudget(retry.Config{})
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				budget.Deposit()
			}
		})
	})
}
