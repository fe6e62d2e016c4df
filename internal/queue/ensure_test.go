package queue

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestEnsureStream_waitsForOthersNoLongerThanItsContext (found by sim: time
// stands still in a bubble in which somebody waits for a lock).
func TestEnsureStream_waitsForOthersNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Conn{ensuring: make(chan struct{}, 1)}
		c.ensuring <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := c.EnsureStream(ctx, "S", StreamConfig{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}
