package sim

import (
	"context"
	"errors"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/gate"
	"github.com/workerd/workerd/internal/hedge"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/probe"
)

// Some pools have what others have not: tenants that share them, a target whose
// late calls are made twice, one that is asked whether it is well, one that has
// a fallback.

func (w *world) fair(pool int) bool     { return w.seed.chance(pool, "fair") < 0.3 }
func (w *world) hedges(pool int) bool   { return w.seed.chance(pool, "hedges") < 0.3 }
func (w *world) probes(pool int) bool   { return w.seed.chance(pool, "probes") < 0.3 }
func (w *world) standsIn(pool int) bool { return w.seed.chance(pool, "fallback") < 0.3 }

// replies tells whether a fallback has a fixed answer in the end, for jobs whose
// target is not to be called.
func (w *world) replies(pool int) bool { return w.seed.chance(pool, "fixed answer") < 0.3 }

// poolOf a job.
func (w *world) poolOf(id string) int { return w.seed.between(0, w.shape.pools-1, id, "pool") }

// tenant a job is of: most are of one.
func (w *world) tenant(id string) string {
	switch u := w.seed.chance(id, "tenant"); {
	case u < 0.6:
		return "big"
	case u < 0.7:
		return ""
	case u < 0.9:
		return "small"
	}
	return "tiny"
}

// tenantIn is the tenant as far as a pool tells them apart.
func (w *world) tenantIn(pool int, id string) string {
	if !w.fair(pool) {
		return ""
	}
	return w.tenant(id)
}

// fairness of a pool.
func (w *world) fairness(n int) (f pool.Fairness) {
	if w.fair(n) {
		f.By, f.LookAhead = "key", w.seed.between(1, 300, n, "look ahead")
	}
	return f
}

// hedger of a lane, nil if its target is not to be called twice.
func (l *lane) hedger() *hedge.Hedger {
	if !l.r.w.hedges(l.n) {
		return nil
	}
	return hedge.New(hedge.Config{After: "p90", Budget: 0.1}, callTimeout)
}

func (l *lane) hedged(r hedge.Result) { l.did("hedge: " + string(r)) }

func (l *lane) stepped(s pipeline.StepDone) {
	l.did("fallback: " + string(s.Kind) + ", " + string(s.Result))
}

// did counts something for the table of what must happen sometimes.
func (l *lane) did(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[what]++
}

// prober asks a lane's target whether it is well.
func (l *lane) prober(limits *limiter.Limiter) *probe.Prober {
	return &probe.Prober{
		Config: probe.Config{Path: "/"}.WithDefaults(callTimeout), Breaker: l.guard, Ask: l.isWell,
		HeldUntil: func(now time.Time) time.Time {
			if _, reason, until := limits.Credit(now); reason == limiter.NotBefore {
				return until
			}
			return time.Time{}
		},
		OnProbe: func(r job.Result, _ time.Duration) {
			l.did("probe: " + r.Class.String())
			l.mu.Lock()
			defer l.mu.Unlock()
			l.trials = append(l.trials, trial{time.Now(), r.Class})
		},
	}
}

func (l *lane) isWell(ctx context.Context, _ string) job.Result {
	l.r.frozen.pass()
	d := l.r.w.down
	d.mu.Lock()
	how := d.how
	if !time.Now().Before(d.down) || how == conflicting {
		how = ""
	}
	d.mu.Unlock()
	takes := 5 * time.Millisecond
	if how == hanging {
		takes = time.Hour
	}
	pause(ctx, takes)
	l.r.frozen.pass()
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), job.ErrTryTimeout):
		return job.Result{Class: job.Timeout, Reason: job.TimedOut, Err: job.ErrTryTimeout}
	case ctx.Err() != nil:
		return job.Result{Class: job.Ignored, Reason: job.Interrupted, Err: context.Cause(ctx)}
	case how != "":
		return job.Result{Class: job.Failure, Reason: job.Status5xx, Status: 503, Err: errors.New("sim: not well")}
	}
	return job.Result{Class: job.Success, Reason: job.OK, Status: 200}
}

// chain makes the fallback of a lane as app does, and the gates of a target that
// has one: another target, which no outage reaches, and perhaps a fixed answer.
func (l *lane) chain(own []pool.Gate) ([]pipeline.Step, []pool.Gate) {
	if !l.r.w.standsIn(l.n) {
		return nil, own
	}
	l.other = &lane{r: l.r, n: l.n, alternate: true, refused: make(map[job.Reason]int), seen: make(map[string]int), inHand: make(map[string]*pulse)}
	limits := limiter.New(limiter.Config{}.WithDefaults(), limiter.Rate{}, l.r.w.shape.concurrency)
	l.other.guard = breaker.New(breakerConfig(), func(c breaker.Change) {
		l.other.changed(c)
		if c.To != breaker.Closed {
			limits.Outage(time.Now())
		}
	})
	instead := fallback.Step{Target: "other"}.WithDefaults()
	steps := []pipeline.Step{{Step: instead, Lane: &pipeline.Lane{
		Target: door{l.r.w.down, l.other}, Limiter: limits, Breaker: l.other.guard, Timeout: callTimeout, OnTry: l.other.try,
	}}}
	gates := []gate.Alternative{{Takes: instead.Takes, Gates: []pool.Gate{gate.Breaker(l.other.guard, breaker.ProbeHighest), gate.Limiter(limits)}}}
	if l.r.w.replies(l.n) {
		reply := fallback.Step{Reply: &fallback.Reply{Body: "later"}, On: []fallback.Cause{fallback.Open}}.WithDefaults()
		steps = append(steps, pipeline.Step{Step: reply, Answer: reply.Reply.Answer()})
		gates = append(gates, gate.Alternative{Takes: reply.Takes})
	}
	return steps, gate.Instead(own, gates)
}
