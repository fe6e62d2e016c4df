package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target"
)

// TestInvariant21_theErrorIsThatOfTheLastCall, whatever ended the tries: their
// number, the breaker that opened meanwhile, or a drain. A refusal hides nothing.
func TestInvariant21_theErrorIsThatOfTheLastCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			var errs []error
			draining := make(chan struct{})
			k := newKit(func(context.Context, target.Request) job.Result {
				errs = append(errs, fmt.Errorf("call %d", len(errs)+1))
				c := rapid.SampledFrom([]job.Class{job.Failure, job.Failure, job.Timeout, job.Neutral, job.Throttled, job.Permanent}).Draw(r, "class")
				return job.Result{Class: c, Reason: job.Status5xx, Status: 500, Err: errs[len(errs)-1]}
			}, nil)
			when := func(label string) time.Duration { // the waits between calls are up to 200 and 400 ms
				return time.Duration(rapid.Int64Range(1, int64(time.Second)).Draw(r, label))
			}
			defer time.AfterFunc(when("drain"), func() { close(draining) }).Stop()
			defer time.AfterFunc(when("open"), func() {
				if err := k.breaker.Override(breaker.ForcedOpen, time.Minute, "test", time.Now()); err != nil {
					t.Error(err)
				}
			}).Stop()
			out := k.handle(t.Context(), draining)
			last := errs[len(errs)-1]
			if !errors.Is(out.Err, last) || !errors.Is(out.Last.Err, last) || out.Tries != len(errs) {
				r.Fatalf("after %d calls, %d counted: %v, and of the last call %v", len(errs), out.Tries, out.Err, out.Last.Err)
			}
		})
	})
}
