package sim

import (
	"context"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

// busy is the handler of a pool, and notices when it is called again and again
// while no time passes: a loop that keeps a processor busy, in which virtual
// time stands still.
type busy struct {
	pool.Handler
	l *lane

	mu  sync.Mutex
	at  time.Time
	how int // often refused since then
}

// tooOften is more than refusals at one instant may come to.
const tooOften = 2_000

// Handle implements pool.Handler.
func (b *busy) Handle(ctx context.Context, j *job.Job, before job.Record, draining <-chan struct{}) job.Outcome {
	out := b.Handler.Handle(ctx, j, before, draining)
	if out.Action != job.Park {
		return out
	}
	b.l.mu.Lock()
	b.l.refused[out.Reason]++
	b.l.refusals = append(b.l.refusals, time.Now())
	b.l.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); !now.Equal(b.at) {
		b.at, b.how = now, 0
	}
	if b.how++; b.how == tooOften {
		b.l.r.w.fail("replica %d was refused %d times at one instant (%s: %v): %+v %+v", b.l.r.id, tooOften, out.Reason, out.Err, b.l.pool.Stats(), b.l.guard.Stats(b.at))
	}
	return out
}
