package app

import (
	"context"
	"errors"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/probe"
)

// asked is a target that can tell whether it is well.
type asked interface {
	Probe(ctx context.Context, path string) job.Result
}

// newProber makes what probes a target instead of jobs, nil if nothing is to.
func (a *App) newProber(l *lane) (*probe.Prober, error) {
	if l.cfg.Probe == nil {
		return nil, nil
	}
	t, ok := l.target.(asked)
	if !ok {
		return nil, errors.New("probe: is for http targets only")
	}
	return &probe.Prober{
		Config: *l.cfg.Probe, Breaker: l.breaker, Ask: t.Probe,
		HeldUntil: func(now time.Time) time.Time { return heldUntil(l.limiter, now) },
		OnProbe:   func(r job.Result, took time.Duration) { a.observer.probed(l, r, took) },
	}, nil
}

// heldUntil is when a target that has asked for time has had it.
func heldUntil(l *limiter.Limiter, now time.Time) time.Time {
	if _, reason, until := l.Credit(now); reason == limiter.NotBefore {
		return until
	}
	return time.Time{}
}

// startProbers makes the probes and health checks of all targets until ctx ends.
func (a *App) startProbers(ctx context.Context) {
	for _, l := range a.targets {
		if l.prober != nil {
			a.background.Go(func() { l.prober.Run(ctx) })
		}
		if l.checker != nil {
			a.background.Go(func() { l.checker.Run(ctx) })
		}
	}
}

// probed targets.
func (a *App) probed() (names []string) {
	for _, name := range sortedNames(a.cfg.Targets) {
		if a.cfg.Targets[name].Probe != nil {
			names = append(names, name)
		}
	}
	return names
}

// probed is called after every probe that was no job.
func (o *observer) probed(l *lane, r job.Result, took time.Duration) {
	o.app.metrics.Probe(l.name, r)
	attrs := []any{"target", l.name, "path", l.cfg.Probe.Path, "result", string(r.Reason), "took", took.Round(time.Millisecond)}
	if r.Err != nil {
		attrs = append(attrs, "err", r.Err)
	}
	o.app.log.Debug("probe", attrs...)
}
