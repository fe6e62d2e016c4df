package retry_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/retry"
)

// TestInvariant21_whyItStoppedIsAlwaysSaidAndTrue, whatever the tries say and
// whatever ends the loop: the last verdict is what the reason is about.
// (That the error is that of the last call is the pipeline's promise.)
func TestInvariant21_whyItStoppedIsAlwaysSaidAndTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			l := retry.New(retry.Config{
				MaxAttempts: rapid.IntRange(1, 5).Draw(r, "max"), BudgetMax: rapid.IntRange(1, 3).Draw(r, "budget"), BudgetMinPerSecond: -1,
			})
			open := rapid.IntRange(0, 4).Draw(r, "try at which the breaker opens, 0: none")
			made := 0
			l.RetryAfter = func() time.Duration {
				if made == open {
					return time.Second
				}
				return 0
			}
			timeout := time.Duration(rapid.OneOf(rapid.Int64Range(0, int64(3*time.Second)), rapid.Just(int64(time.Hour))).Draw(r, "timeout"))
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			deadline, _ := ctx.Deadline()
			draining := make(chan struct{})
			defer time.AfterFunc(time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(r, "drain")), func() { close(draining) }).Stop()
			var last retry.Verdict
			tries, stop, rest := l.Do(ctx, draining, func(_ context.Context, n int) retry.Verdict {
				made = n
				last = retry.Verdict{
					Again: rapid.IntRange(0, 5).Draw(r, "again") > 0, Pushback: rapid.IntRange(0, 9).Draw(r, "pushback") == 0,
					Hint: rapid.SampledFrom([]time.Duration{0, 0, time.Second, time.Minute}).Draw(r, "hint"),
				}
				return last
			})
			if tries != made || !slices.Contains(retry.Stops(), stop) {
				r.Fatalf("%d tries of %d, stopped by %q", tries, made, stop)
			}
			for _, c := range []struct {
				is   retry.Stop
				true bool
			}{
				{retry.Final, !last.Again},
				{retry.Attempts, last.Again && tries == l.MaxAttempts},
				{retry.Pushback, last.Again && last.Pushback},
				{retry.Handoff, rest > l.Policy.Max},
				{retry.Open, tries == open},
				{retry.Draining, isClosed(draining)},
				{retry.Cancelled, ctx.Err() != nil},
				{retry.NoBudget, l.Budget.Stats(time.Now()).Tokens < 1},
				{retry.Deadline, time.Until(deadline)-rest < 10*time.Millisecond},
			} {
				if stop == c.is && !c.true {
					r.Fatalf("stopped by %s after %d tries, the last of which said %+v; rest %s", stop, tries, last, rest)
				}
			}
			if due := stop != retry.Final && stop != retry.Attempts && stop != retry.Pushback; rest < 0 || rest > 0 && !due {
				r.Fatalf("stopped by %s, and %s to wait", stop, rest)
			}
		})
	})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
