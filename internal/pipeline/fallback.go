package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/workerd/workerd/internal/cache"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/retry"
)

// Step of a fallback chain, ready to be taken.
type Step struct {
	fallback.Step
	// Lane of a step that calls another target.
	Lane *Lane
	// Answer of a static step.
	Answer *job.Reply
}

// Job is a job and what is known of its earlier deliveries.
type Job struct {
	*job.Job
	Before job.Record
}

// StepDone is the end of a step, for whoever watches.
type StepDone struct {
	Kind   fallback.Kind
	Result fallback.Result
}

// enterChain says for what cause the chain is to be entered. Never for a job
// that was given up or while draining: somebody else will have it.
func (a *attempt) enterChain(ctx context.Context, draining <-chan struct{}) (fallback.Cause, bool) {
	cause, ok := fallback.CauseOf(a.last)
	switch {
	case !ok || len(a.p.deps.Fallback) == 0:
		return "", false
	case ctx.Err() != nil || closed(draining) || a.stop == retry.Draining || a.stop == retry.Cancelled:
		return "", false
	}
	return cause, true
}

// instead takes the steps of the chain until one has done the job. ok is false
// if none has; then what became of it at the target counts, and what the steps
// said is added to its error. Nothing here touches the target's own guards.
func (a *attempt) instead(ctx context.Context, draining <-chan struct{}) (out job.Outcome, ok bool) {
	cause, enter := a.enterChain(ctx, draining)
	if !enter {
		return job.Outcome{}, false
	}
	primary, said := a.last, []error(nil)
	for i := range a.p.deps.Fallback {
		s := &a.p.deps.Fallback[i]
		if !s.Takes(cause) {
			continue
		}
		if ctx.Err() != nil || closed(draining) || a.expired(time.Now()) {
			break
		}
		if s.Kind() == fallback.DeadLetter {
			a.p.step(s, fallback.Done)
			return a.buried(primary, said), true
		}
		r, source := a.take(ctx, s)
		if r.Class == job.Success {
			return a.done(r, source, errOf(primary)), true
		}
		if r.Class == job.Rejected && primary.Class == job.Rejected && r.RetryAfter > 0 {
			primary.RetryAfter = min(primary.RetryAfter, r.RetryAfter)
		}
		said = append(said, fmt.Errorf("fallback %s: %w", s.Kind(), errOf(r)))
		if r.Class == job.Ignored && !errors.Is(context.Cause(ctx), job.ErrJobTimeout) {
			primary = r // the job was given up, as it would have been at the target
		}
	}
	a.last = primary
	a.last.Err = joined(primary, said)
	return job.Outcome{}, false
}

func (a *attempt) done(r job.Result, source job.Source, err error) job.Outcome {
	return job.Outcome{Action: job.Done, Reason: job.OK, Source: source, Tries: a.made, Last: r, Err: err}
}

// buried is the end of a chain that does not want the job tried again.
func (a *attempt) buried(primary job.Result, said []error) job.Outcome {
	return job.Outcome{
		Action: job.DeadLetter, Reason: primary.Reason, Charged: row(primary.Class).charged,
		Tries: a.made, Last: primary, Err: joined(primary, said),
	}
}

// joined is the primary's error first and then what the steps said, in a line.
func joined(primary job.Result, said []error) error {
	err := errOf(primary)
	for _, e := range said {
		err = fmt.Errorf("%w; %w", err, e)
	}
	return err
}

// take makes one step and tells who watches. A panic in it is its failure, no
// more: what the target said of the job must not be lost.
func (a *attempt) take(ctx context.Context, s *Step) (r job.Result, source job.Source) {
	defer func() {
		if v := recover(); v != nil {
			a.stepped = true
			r = job.Result{Class: job.Panicked, Reason: job.PanicReason, Err: &PanicError{v, debug.Stack()}}
		}
		a.p.step(s, resultOf(r))
	}()
	switch s.Kind() {
	case fallback.Static:
		return job.Result{Class: job.Success, Reason: job.OK, Status: s.Answer.Status, Reply: s.Answer}, job.Static
	case fallback.Cached:
		a.stepped = true
		return a.remembered(s), job.Cache
	case fallback.Parked:
		a.stepped = true
		return a.park(ctx, s), job.Parked
	case fallback.Alternate, fallback.DeadLetter:
	}
	r = a.call(ctx, s.Lane, 1)
	a.stepped = a.stepped || r.Class != job.Rejected
	return r, job.Alternate + job.Source(s.Target)
}

// errMiss says that the cache cannot help.
var errMiss = errors.New("nothing kept that is young enough")

// remembered is the last reply of the target to the same job.
func (a *attempt) remembered(s *Step) job.Result {
	key, ok := a.p.cacheKey(s, a.job)
	if !ok {
		return job.Result{Class: job.Failure, Err: errMiss}
	}
	r, age, ok := a.p.deps.Cache.Get(key, time.Now(), s.Cache)
	if !ok {
		return job.Result{Class: job.Failure, Err: errMiss}
	}
	return job.Result{Class: job.Success, Reason: job.OK, Status: r.Status, Reply: r, Age: age}
}

// remember keeps a reply of the target, for the time when it has none.
func (a *attempt) remember(r job.Result) {
	if s := a.p.cached; s != nil && r.Class == job.Success && r.Reply != nil {
		if key, ok := a.p.cacheKey(s, a.job); ok {
			a.p.deps.Cache.Put(key, r.Reply, time.Now())
		}
	}
}

// cacheKey says which jobs are the same to the cache, false for one that is not
// to be cached.
func (p *Pipeline) cacheKey(s *Step, j *job.Job) (cache.Key, bool) {
	if s.Key == "" {
		return cache.KeyOf([]byte(p.cfg.Target), []byte(j.Subject), j.Payload), true
	}
	value := j.Header.Get(s.Key)
	return cache.KeyOf([]byte(p.cfg.Target), []byte(value)), value != ""
}

// parkPatience is how long parking a job may take by default.
const parkPatience = 5 * time.Second

// park publishes the job to where it waits for somebody else.
func (a *attempt) park(ctx context.Context, s *Step) job.Result {
	ctx, cancel := context.WithTimeout(ctx, s.TimeoutOr(parkPatience))
	defer cancel()
	why := job.Outcome{Reason: a.last.Reason, Charged: row(a.last.Class).charged, Last: a.last, Err: errOf(a.last)}
	if err := a.p.deps.Park(ctx, s.Publish, Job{a.job, a.before}, why); err != nil {
		return job.Result{Class: job.Failure, Err: err}
	}
	return job.Result{Class: job.Success, Reason: job.OK}
}

// resultOf is the result of a step in the word for it.
func resultOf(r job.Result) fallback.Result {
	switch {
	case r.Class == job.Success:
		return fallback.Done
	case r.Class == job.Rejected:
		return fallback.Refused
	case errors.Is(r.Err, errMiss):
		return fallback.Miss
	}
	return fallback.Failed
}

func (p *Pipeline) step(s *Step, r fallback.Result) {
	if p.deps.OnStep != nil {
		p.deps.OnStep(StepDone{s.Kind(), r})
	}
}

// degraded refuses the call while the target is not to be called.
func (l *Lane) degraded(now time.Time) error {
	if l.Degrade == nil {
		return nil
	}
	if s := l.Degrade.State(now); s.On {
		return &DegradedError{s}
	}
	return nil
}

// DegradedError says that the target is not to be called.
type DegradedError struct{ State fallback.State }

// Error describes it for people.
func (e *DegradedError) Error() string {
	s := "the target is degraded (" + string(e.State.By) + ")"
	if e.State.Note != "" {
		s += ": " + e.State.Note
	}
	return s
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
