package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/hedge"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
)

// poolVecs are the metrics that hooks of a pool feed.
type poolVecs struct {
	completed, retried, deferred, dead    *prometheus.CounterVec
	shed, results                         *prometheus.CounterVec
	duration, age, wait                   *prometheus.HistogramVec
	ackErrors, leaseLost, panics, dlqFail *prometheus.CounterVec
}

func newPoolVecs() poolVecs {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(counter(name, help), append([]string{"pool"}, labels...))
	}
	histograms := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(histogram(name, help, buckets), append([]string{"pool"}, labels...))
	}
	return poolVecs{
		completed: counters("jobs_completed_total", "Deliveries settled, by what became of the job.", "outcome"),
		retried:   counters("jobs_retried_total", "Failed attempts whose job was given back to be tried again; outcome retry.", "reason"),
		deferred:  counters("jobs_deferred_total", "Jobs given back without being charged for it; outcomes deferred and released.", "reason"),
		dead:      counters("jobs_dead_lettered_total", "Jobs stored as dead letters; outcome dead.", "reason"),
		shed:      counters("shed_jobs_total", "Jobs dropped or dead-lettered because they were late and their priority had no room.", "priority"),
		results:   counters("results_total", "Results of jobs that named whom to tell, by what became of them.", "result"),
		duration: histograms("job_duration_seconds", "Time a job took in this process from its permit to its outcome, waits between calls included. Jobs that made a call.",
			durationBuckets(), "outcome"),
		age:       histograms("job_queue_age_seconds", "Age of a job at its start, from publication. Jobs that made a call.", ageBuckets()),
		wait:      histograms("job_wait_seconds", "Time a job waited in hand for a permit.", durationBuckets()),
		ackErrors: counters("ack_errors_total", "Settlements that could not be sent to the broker."),
		leaseLost: counters("lease_lost_total", "Jobs whose lease ended before they were settled."),
		panics:    counters("panics_total", "Attempts that ended in a panic of workerd's own code."),
		dlqFail:   counters("dlq_publish_errors_total", "Dead letters that could not be stored; their jobs went back to the stream."),
	}
}

func (v poolVecs) all() []prometheus.Collector {
	return []prometheus.Collector{
		v.completed, v.retried, v.deferred, v.dead, v.shed, v.results, v.duration, v.age, v.wait, v.ackErrors, v.leaseLost, v.panics, v.dlqFail,
	}
}

// series makes all series of one pool.
func (v poolVecs) series(name string) *poolSeries {
	s := &poolSeries{
		age: v.age.WithLabelValues(name), wait: v.wait.WithLabelValues(name),
		retried:  family(v.retried, name, reasons()),
		deferred: family(v.deferred, name, reasons()),
		dead:     family(v.dead, name, reasons()),

		ackErrors: v.ackErrors.WithLabelValues(name), leaseLost: v.leaseLost.WithLabelValues(name),
		panics: v.panics.WithLabelValues(name), dlqFail: v.dlqFail.WithLabelValues(name),
	}
	s.results = make(map[pool.Answer]prometheus.Counter)
	for _, a := range pool.Answers() {
		s.results[a] = v.results.WithLabelValues(name, string(a))
	}
	for p := range s.shed {
		s.shed[p] = v.shed.WithLabelValues(name, job.Priority(p).String())
	}
	for _, a := range job.Actions() {
		s.completed[a] = v.completed.WithLabelValues(name, a.String())
		s.duration[a] = v.duration.WithLabelValues(name, a.String())
	}
	return s
}

// targetVecs are the metrics that hooks of a pipeline and a breaker feed.
type targetVecs struct {
	attempts, probes, transitions, fallbacks, hedges *prometheus.CounterVec

	duration *prometheus.HistogramVec
}

func newTargetVecs() targetVecs {
	return targetVecs{
		attempts:    prometheus.NewCounterVec(counter("target_attempts_total", "Calls made to a target, by how they ended."), []string{"target", "result"}),
		probes:      prometheus.NewCounterVec(counter("probes_total", "Health checks made by workerd, by how they ended; they are no calls of jobs."), []string{"target", "result"}),
		transitions: prometheus.NewCounterVec(counter("breaker_transitions_total", "Changes of a breaker's state, by the new one."), []string{"target", "to"}),
		fallbacks:   prometheus.NewCounterVec(counter("fallbacks_total", "Steps of a target's fallback that were taken for a job it did not do."), []string{"target", "step", "result"}),
		hedges:      prometheus.NewCounterVec(counter("hedges_total", "Calls that were not answered in time, by what came of making them a second time; denied: that was not done."), []string{"target", "result"}),
		duration: prometheus.NewHistogramVec(histogram("target_attempt_duration_seconds",
			"Time a call to a target took, by what it says of the target and the job.", durationBuckets()), []string{"target", "class"}),
	}
}

func (v targetVecs) all() []prometheus.Collector {
	return []prometheus.Collector{v.attempts, v.probes, v.transitions, v.fallbacks, v.hedges, v.duration}
}

// hedged makes the series of a target that is hedged.
func (v targetVecs) hedged(name string) map[hedge.Result]prometheus.Counter {
	s := make(map[hedge.Result]prometheus.Counter)
	for _, r := range hedge.Results() {
		s[r] = v.hedges.WithLabelValues(name, string(r))
	}
	return s
}

// series makes all series of one target with a fallback of these steps.
func (v targetVecs) series(name string, steps []fallback.Kind) *targetSeries {
	s := &targetSeries{
		attempts:    family(v.attempts, name, results()),
		duration:    make([]prometheus.Observer, job.Panicked+1),
		transitions: make([]prometheus.Counter, len(breaker.States())),
		fallbacks:   make(map[pipeline.StepDone]prometheus.Counter),
	}
	for _, step := range steps {
		for _, result := range fallback.Results() {
			s.fallbacks[pipeline.StepDone{Kind: step, Result: result}] = v.fallbacks.WithLabelValues(name, string(step), string(result))
		}
	}
	for _, c := range classes() {
		s.duration[c] = v.duration.WithLabelValues(name, c.String())
	}
	for _, state := range breaker.States() {
		s.transitions[state] = v.transitions.WithLabelValues(name, state.String())
	}
	return s
}
