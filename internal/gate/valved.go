package gate

import (
	"context"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/valve"
)

// Valved is a handler behind a valve. It tells what became of a job as soon as
// that is known, not when the dead letter is stored, which takes time; and a job
// that was let in as the valve closed waits instead of being called. So no more
// than run at once become dead letters after those that closed it.
func Valved(h pool.Handler, v *valve.Valve, told func(job.Outcome)) pool.Handler {
	return valved{h, v, told}
}

type valved struct {
	pool.Handler
	valve *valve.Valve
	told  func(job.Outcome)
}

// Handle implements pool.Handler.
func (h valved) Handle(ctx context.Context, j *job.Job, before job.Record, draining <-chan struct{}) job.Outcome {
	now := time.Now()
	if s := h.valve.Stats(); s.Closed && now.Before(s.Until) {
		return job.Outcome{Action: job.Park, Reason: job.ValveClosed, After: s.Until.Sub(now)}
	}
	out := h.Handler.Handle(ctx, j, before, draining)
	h.told(out)
	return out
}
