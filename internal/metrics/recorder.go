package metrics

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/hedge"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
)

// Metrics are all series of one process. The maps are written by New only;
// any goroutine may call any method.
type Metrics struct {
	pools     map[string]*poolSeries
	targets   map[string]*targetSeries
	unknown   map[string]prometheus.Counter
	collector *collector
}

// What a report may name that is not in Names.
const (
	unknownPool    = "pool"
	unknownTarget  = "target"
	unknownOutcome = "outcome"
)

// New makes every series and registers them. It panics if the registry has
// series of these names already: that is a mistake in the program.
func New(reg prometheus.Registerer, names Names) *Metrics {
	pools, targets := newPoolVecs(), newTargetVecs()
	unattributed := prometheus.NewCounterVec(counter("reports_unattributed_total",
		"Reports that name no known pool, target or outcome. Always 0; anything else is a fault of workerd."), []string{"what"})
	m := &Metrics{
		pools:     make(map[string]*poolSeries),
		targets:   make(map[string]*targetSeries),
		unknown:   make(map[string]prometheus.Counter),
		collector: newCollector(names),
	}
	for _, p := range names.Pools {
		m.pools[p.Name] = pools.series(p.Name)
	}
	for _, t := range names.Targets {
		m.targets[t] = targets.series(t, names.Fallbacks[t])
	}
	for _, t := range names.Hedged {
		m.targets[t].hedges = targets.hedged(t)
	}
	for _, t := range names.Probed {
		m.targets[t].probes = family(targets.probes, t, results())
	}
	for _, what := range []string{unknownPool, unknownTarget, unknownOutcome} {
		m.unknown[what] = unattributed.WithLabelValues(what)
	}
	reg.MustRegister(append(append(pools.all(), targets.all()...), unattributed, m.collector)...)
	return m
}

// Job counts what became of one delivery. It is the hook of [pool.Deps].
func (m *Metrics) Job(r pool.Report) {
	s, ok := m.pools[r.Pool]
	switch {
	case !ok:
		m.unknown[unknownPool].Inc()
	case int(r.Outcome.Action) >= numActions:
		m.unknown[unknownOutcome].Inc()
	default:
		s.job(&r)
	}
}

// Try counts one call to a target. It is the hook of [pipeline.Deps].
func (m *Metrics) Try(target string, t pipeline.Try) {
	s, ok := m.targets[target]
	if !ok {
		m.unknown[unknownTarget].Inc()
		return
	}
	s.try(t.Result, t.Took)
}

// Probe counts one request to a target that was no job's. It is the hook of a
// prober.
func (m *Metrics) Probe(target string, r job.Result) {
	s, ok := m.targets[target]
	if !ok || s.probes == nil {
		m.unknown[unknownTarget].Inc()
		return
	}
	count(s.probes, string(r.Reason))
}

// Fallback counts one step of a target's fallback. It is the hook of
// [pipeline.Deps].
func (m *Metrics) Fallback(target string, step pipeline.StepDone) {
	s, ok := m.targets[target]
	if !ok || s.fallbacks[step] == nil {
		m.unknown[unknownTarget].Inc()
		return
	}
	s.fallbacks[step].Inc()
}

// Hedge counts a call that was late, and what came of hedging it. It is the
// hook of [pipeline.Deps].
func (m *Metrics) Hedge(target string, r hedge.Result) {
	s, ok := m.targets[target]
	if !ok || s.hedges[r] == nil {
		m.unknown[unknownTarget].Inc()
		return
	}
	s.hedges[r].Inc()
}

// BreakerChanged counts a change of a target's breaker. It is the listener of
// [breaker.New].
func (m *Metrics) BreakerChanged(target string, c breaker.Change) {
	s, ok := m.targets[target]
	if !ok || int(c.To) >= len(s.transitions) {
		m.unknown[unknownTarget].Inc()
		return
	}
	s.transitions[c.To].Inc()
}

// poolSeries are the series of one pool.
type poolSeries struct {
	completed                             [numActions]prometheus.Counter
	shed                                  [job.Priorities]prometheus.Counter
	duration                              [numActions]prometheus.Observer
	age, wait                             prometheus.Observer
	retried, deferred, dead               map[string]prometheus.Counter
	results                               map[pool.Answer]prometheus.Counter
	ackErrors, leaseLost, panics, dlqFail prometheus.Counter
}

func (s *poolSeries) job(r *pool.Report) {
	out := &r.Outcome
	if c, ok := s.results[r.Answer]; ok {
		c.Inc()
	}
	s.completed[out.Action].Inc()
	s.wait.Observe(seconds(r.Waited))
	if out.Reason == job.Shed {
		s.shed[r.Priority].Inc()
	}
	if out.Tries > 0 {
		s.duration[out.Action].Observe(seconds(r.Took))
		s.age.Observe(seconds(r.Age))
	}
	switch out.Action {
	case job.Retry:
		count(s.retried, string(out.Reason))
	case job.Defer, job.Release:
		count(s.deferred, string(out.Reason))
	case job.DeadLetter:
		count(s.dead, string(out.Reason))
	case job.Done, job.Drop, job.Park:
	}
	s.faults(r)
}

// faults counts what should not happen; a report may show several.
func (s *poolSeries) faults(r *pool.Report) {
	if r.SettleErr != nil {
		s.ackErrors.Inc()
	}
	if r.Outcome.Reason == job.LeaseLost || errors.Is(r.SettleErr, job.ErrLeaseLost) {
		s.leaseLost.Inc()
	}
	if r.Outcome.Last.Class == job.Panicked {
		s.panics.Inc()
	}
	if r.Outcome.Reason == job.NoDLQ {
		s.dlqFail.Inc()
	}
}

// targetSeries are the series of one target.
type targetSeries struct {
	attempts    map[string]prometheus.Counter
	probes      map[string]prometheus.Counter // nil: there are none
	duration    []prometheus.Observer         // by class; nil for one that makes no call
	transitions []prometheus.Counter          // by state
	fallbacks   map[pipeline.StepDone]prometheus.Counter
	hedges      map[hedge.Result]prometheus.Counter
}

func (s *targetSeries) try(r job.Result, took time.Duration) {
	if int(r.Class) >= len(s.duration) || s.duration[r.Class] == nil {
		r.Class, r.Reason = job.Panicked, other // no class a call can end with
	}
	if r.Class == job.Success {
		r.Reason = job.OK
	}
	count(s.attempts, string(r.Reason))
	s.duration[r.Class].Observe(seconds(took))
}

// seconds of a duration. A clock that was set back must not make a sum shrink.
func seconds(d time.Duration) float64 { return max(0, d).Seconds() }
