package app

import (
	"context"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/queue"
)

// lagInterval is how often the broker is asked how far a consumer is behind.
// One question costs it about 0.1 ms.
const lagInterval = 5 * time.Second

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

// watchLag asks the broker about every consumer, now and then. What it cannot
// learn stays as it was; the source itself tells why it is not ready.
func (a *App) watchLag(ctx context.Context) {
	tick := time.NewTicker(lagInterval)
	defer tick.Stop()
	for {
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
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
