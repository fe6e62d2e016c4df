package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/job"
)

// newMonitor makes what leads a target straight to its fallback without
// anybody's word, and asks it how it is, if it is configured to.
func (a *App) newMonitor(l *lane) error {
	when := l.cfg.DegradeWhen
	if when == nil {
		return nil
	}
	l.monitor = fallback.NewMonitor(*when, l.cfg.Fallback, l.degrade)
	if when.Unhealthy == 0 {
		return nil
	}
	t, ok := l.target.(asked)
	if !ok {
		return errors.New("degrade_when.unhealthy: is for http targets only")
	}
	l.checker = &fallback.Checker{
		Interval: when.Interval, Timeout: l.cfg.Probe.Timeout, Monitor: l.monitor,
		Ask:     func(ctx context.Context) job.Result { return t.Probe(ctx, l.cfg.Probe.Path) },
		OnCheck: func(r job.Result, took time.Duration) { a.observer.probed(l, r, took) },
	}
	return nil
}

// degradeBy does what an operator wants.
func (l *lane) degradeBy(do admin.Control, now time.Time) error {
	if do.Verb == admin.Restore {
		l.degrade.Resume(fallback.ByOperator)
		if l.monitor != nil {
			l.monitor.Reset()
		}
		return nil
	}
	if !fallback.CanStandIn(l.cfg.Fallback) {
		return fmt.Errorf("target %s has no fallback to degrade to: no step for a target that is not called (on: [open])", l.name)
	}
	from := now
	if !do.At.IsZero() {
		from = now.Add(do.At.Sub(now)) // by our own clock from here on
	}
	l.degrade.Degrade(fallback.ByOperator, from, end(from, do.For), do.Reason)
	return nil
}

// watchDegraded is called once a second. It says when a target is degraded and
// when it is not any more, whoever began and ended it; and it sees to it that
// such a target will be called little at first.
func (o *observer) watchDegraded(l *lane, now time.Time) {
	was, is := l.degraded, l.degrade.State(now)
	l.degraded = is
	if is.On {
		l.limiter.Outage(now)
	}
	switch {
	case is.On && (!was.On || was.By != is.By):
		said := []any{"target", l.name, "by", string(is.By), "note", is.Note}
		if !is.Until.IsZero() {
			said = append(said, "until", is.Until.Format(time.RFC3339))
		}
		o.app.log.Warn("target is degraded: its jobs go straight to the fallback", said...)
	case was.On && !is.On:
		o.app.log.Info("target is not degraded any more", "target", l.name)
	}
}
