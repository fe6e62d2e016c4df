package app

import (
	"context"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pressure"
	"github.com/workerd/workerd/internal/queue"
)

// lagInterval is how often the broker is asked how far a consumer is behind.
// One question costs it about 0.1 ms.
const lagInterval = 2 * time.Second

// lag is how far the consumers of a pool were behind when asked last.
type lag struct {
	mu   sync.Mutex
	last [job.Priorities]queue.Lag
}

func (l *lag) all() [job.Priorities]queue.Lag {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *lag) set(priority int, v queue.Lag) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last[priority] = v
}

// watch takes the rates each second and asks the broker about every consumer
// now and then. What it cannot learn stays as it was; the source itself tells
// why it is not ready.
func (a *App) watch(ctx context.Context) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for asked := (time.Time{}); ; {
		a.observer.takeRates(time.Now())
		a.pressure.Note(pressure.Read())
		a.conn.Remind(time.Now())
		a.conn.TryPermissions(time.Now())
		if time.Since(asked) >= lagInterval {
			a.askLag(ctx)
			asked = time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-second.C:
		}
	}
}

func (a *App) askLag(ctx context.Context) {
	for _, c := range a.pools {
		for priority, s := range c.sources {
			if s == nil || !s.Stats().Ready {
				continue
			}
			if v, err := s.Lag(ctx); err == nil {
				c.lag.set(priority, v)
			}
		}
	}
}
