package app

import (
	"context"
	"slices"

	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/gate"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
)

func fallsBackTo(cfg config.TargetConfig, target string) bool {
	return slices.ContainsFunc(cfg.Fallback, func(s fallback.Step) bool { return s.Target == target })
}

// chain makes the steps of a target's fallback.
func (a *App) chain(steps []fallback.Step) []pipeline.Step {
	chain := make([]pipeline.Step, 0, len(steps))
	for _, s := range steps {
		step := pipeline.Step{Step: s}
		switch s.Kind() {
		case fallback.Alternate:
			step.Lane = a.laneOf(s)
		case fallback.Static:
			step.Answer = s.Reply.Answer()
		case fallback.Cached, fallback.Parked, fallback.DeadLetter:
		}
		chain = append(chain, step)
	}
	return chain
}

// laneOf is the way to the target of a step, guarded as for its own pools.
func (a *App) laneOf(s fallback.Step) *pipeline.Lane {
	l := a.targets[s.Target]
	return &pipeline.Lane{
		Target: l.target, Limiter: l.limiter, Breaker: l.breaker, Degrade: l.degrade, Timeout: s.TimeoutOr(l.cfg.Timeout),
		OnTry: func(t pipeline.Try) { a.observer.try(l.name, t) },
	}
}

// targetGates are what the guards of a target and of its fallback let through,
// in the order in which a call meets them.
func (a *App) targetGates(l *lane) []pool.Gate {
	own := l.gates()
	if len(l.cfg.Fallback) == 0 {
		return own
	}
	var instead []gate.Alternative
	for _, s := range l.cfg.Fallback {
		alternative := gate.Alternative{Takes: s.Takes}
		if s.Kind() == fallback.Alternate {
			alternative.Gates = a.targets[s.Target].gates()
		}
		instead = append(instead, alternative)
	}
	return gate.Instead(own, instead)
}

// gates of a target itself, in the order in which a call meets its guards.
func (l *lane) gates() []pool.Gate {
	return []pool.Gate{gate.Degraded(l.degrade), gate.Breaker(l.breaker, l.cfg.Breaker.ProbePriority), gate.Limiter(l.limiter)}
}

// steps are the kinds of steps that each target has.
func (a *App) steps() map[string][]fallback.Kind {
	kinds := make(map[string][]fallback.Kind, len(a.cfg.Targets))
	for name, t := range a.cfg.Targets {
		for _, s := range t.Fallback {
			if !slices.Contains(kinds[name], s.Kind()) {
				kinds[name] = append(kinds[name], s.Kind())
			}
		}
	}
	return kinds
}

// keptForResults is how many bytes of a reply a result can have.
func keptForResults(cfg pool.Config) int {
	if len(cfg.Results.Subjects) == 0 {
		return 0
	}
	return int(cfg.Results.MaxBody)
}

// parker publishes jobs as dead letters are, to other subjects.
func parker(store *dlq.Store) func(context.Context, string, pipeline.Job, job.Outcome) error {
	return func(ctx context.Context, subject string, j pipeline.Job, why job.Outcome) error {
		return store.Shelf(subject).Put(ctx, j.Job, why, j.Before)
	}
}
