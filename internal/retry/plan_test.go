package retry

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestPlan_isWhatDoDoes: for any configuration, verdict and chance.
func TestPlan_isWhatDoDoes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := &Loop{
			MaxAttempts: rapid.IntRange(1, 6).Draw(rt, "attempts"),
			Policy: Policy{
				Initial: time.Duration(rapid.IntRange(0, 2000).Draw(rt, "initial")) * time.Millisecond, Max: 5 * time.Second,
				Multiplier: rapid.Float64Range(1, 3).Draw(rt, "multiplier"), Jitter: rapid.Float64Range(0, 1).Draw(rt, "jitter"),
			},
		}
		u := rapid.Float64Range(0, 0.999).Draw(rt, "u")
		l.Rand = func() float64 { return u }
		v := Verdict{
			Again: rapid.Bool().Draw(rt, "again"), Pushback: rapid.Bool().Draw(rt, "pushback"),
			Hint: time.Duration(rapid.IntRange(0, 8).Draw(rt, "hint")) * time.Second,
		}
		limit := time.Duration(rapid.IntRange(1, 20).Draw(rt, "limit")) * time.Second
		plan := l.Plan(v, limit, u)
		synctest.Test(t, func(*testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			var waits []time.Duration
			last := time.Now()
			tries, stop, rest := l.Do(ctx, nil, func(context.Context, int) Verdict {
				waits = append(waits, time.Since(last))
				last = time.Now()
				return v
			})
			if tries != plan.Tries || stop != plan.Stop || rest != plan.Rest || !slices.Equal(waits[1:], plan.Waits) {
				rt.Errorf("planned %+v, done: %d tries, %s, rest %s, waits %v", plan, tries, stop, rest, waits[1:])
			}
		})
	})
}
