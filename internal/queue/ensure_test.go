package queue

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
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

// TestAdvice_oneReplicaIsAWarningWhereThereIsAChoice, said once.
func TestAdvice_oneReplicaIsAWarningWhereThereIsAChoice(t *testing.T) {
	var said bytes.Buffer
	c := &Conn{once: map[string]bool{}, life: t.Context(), log: slog.New(slog.NewTextHandler(&said, nil))}
	for range 2 {
		c.adviseReplicas(jetstream.StreamConfig{Name: "A", Replicas: 1}, true)
		c.adviseReplicas(jetstream.StreamConfig{Name: "B", Replicas: 1}, false)
		c.adviseReplicas(jetstream.StreamConfig{Name: "C", Replicas: 3}, true)
	}
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "stream A") ||
		!strings.Contains(lines[1], "level=INFO") || !strings.Contains(lines[1], "stream B") {
		t.Errorf("said %q", lines)
	}
}
