package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/shutdown"
)

// Bounds of the phases that are not configured.
const (
	stopTimeout  = 3 * time.Second // linger 0.5 s and a round trip of 2 s at most
	closeTimeout = 2 * time.Second
)

// run is what the phases of a shutdown act on.
type run struct {
	stopFetching context.CancelFunc
	interrupt    context.CancelCauseFunc
	pools        <-chan struct{} // closed when every pool has settled everything
	closeAdmin   func()
}

// phaseNames are the names of the phases, in order.
func phaseNames() []string {
	return []string{"announce", "stop", "drain", "interrupt", "flush", "close", "admin"}
}

// phases are the steps of a shutdown that begins now. Only those that merely
// wait are cut short by a second signal.
func (a *App) phases(r run) []shutdown.Phase {
	d := a.cfg.Drain
	// The timeout is that of the whole: what stopping takes, draining has not.
	drained := time.Now().Add(d.PreStopDelay + d.Timeout - d.FlushTimeout)
	return []shutdown.Phase{
		{Name: "announce", Timeout: d.PreStopDelay + time.Second, Waits: true, Run: func(ctx context.Context) error {
			a.begin("announce")
			return sleep(ctx, d.PreStopDelay)
		}},
		{Name: "stop", Timeout: stopTimeout, Run: func(ctx context.Context) error {
			a.enter("stop")
			r.stopFetching()
			return a.awaitHandedBack(ctx)
		}},
		{Name: "drain", Timeout: d.Timeout - d.FlushTimeout, Waits: true, Run: func(ctx context.Context) error {
			a.enter("drain")
			ctx, cancel := context.WithDeadline(ctx, drained)
			defer cancel()
			return ignoreEnd(wait(ctx, r.pools))
		}},
		{Name: "interrupt", Timeout: d.FlushTimeout / 2, Run: func(ctx context.Context) error {
			a.enter("interrupt")
			r.interrupt(job.ErrInterrupted)
			return wait(ctx, r.pools)
		}},
		{Name: "flush", Timeout: d.FlushTimeout / 2, Run: func(ctx context.Context) error {
			a.enter("flush")
			close(a.drained)
			return a.conn.Flush(ctx)
		}},
		{Name: "close", Timeout: closeTimeout, Run: func(ctx context.Context) error {
			a.enter("close")
			a.close()
			return nil
		}},
		{Name: "admin", Timeout: closeTimeout, Run: func(context.Context) error {
			a.enter("admin")
			r.closeAdmin()
			return nil
		}},
	}
}

// close gives back what New opened, in the reverse order.
func (a *App) close() {
	a.background.Wait()
	a.conn.Close()
	for _, l := range a.targets {
		l.target.Close()
	}
	if a.broker != nil {
		a.broker.Shutdown()
	}
}

// awaitHandedBack waits until no pool has a job that has not started.
func (a *App) awaitHandedBack(ctx context.Context) error {
	for _, c := range a.pools {
		if err := wait(ctx, c.pool.Released()); err != nil {
			return err
		}
	}
	return nil
}

func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("not done in time: %w", context.Cause(ctx))
	}
}

// ignoreEnd takes the end of a waiting phase for what it is: not a failure.
// What is still running then is dealt with by the next one.
func ignoreEnd(error) error { return nil }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

// begin notes the start of the shutdown.
func (a *App) begin(name string) {
	now := time.Now()
	running := 0
	for _, c := range a.pools {
		running += c.pool.Stats().InFlight
	}
	a.phase.Store(&phase{name: name, since: now, drain: now, running: running})
}

func (a *App) enter(name string) {
	old := a.phase.Load()
	a.phase.Store(&phase{name: name, since: time.Now(), drain: old.drain, running: old.running})
}

// draining tells whether the shutdown has begun.
func (a *App) draining() bool { return !a.phase.Load().drain.IsZero() }

func (a *App) reportPhase(r shutdown.Report) {
	attrs := []any{"phase", r.Name, "took", r.Took.Round(time.Millisecond)}
	if r.Hurried {
		attrs = append(attrs, "hurried", true)
	}
	if r.Err != nil {
		a.log.Warn("shutdown phase did not complete", append(attrs, "err", r.Err)...)
		return
	}
	a.log.Debug("shutdown phase done", attrs...)
}

// verdict says how the shutdown went, in a line and as an error.
func (a *App) verdict(err error) error {
	interrupted, handedBack := a.interrupted.Load(), a.handedBack.Load()
	took := time.Since(a.phase.Load().drain).Round(time.Millisecond)
	a.log.Info("drained", "took", took, "handed_back", handedBack, "interrupted", interrupted, "clean", err == nil && interrupted == 0)
	switch {
	case err != nil:
		return errors.Join(ErrIncomplete, err)
	case interrupted > 0:
		return fmt.Errorf("%w: interrupted and handed back: %d", ErrIncomplete, interrupted)
	}
	return nil
}
