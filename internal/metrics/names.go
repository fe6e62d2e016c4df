package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/job"
)

// namespace precedes every name.
const namespace = "workerd"

// Names are all label values that come from outside this package.
type Names struct {
	// Version, Revision and GoVersion of the binary, for workerd_build_info.
	Version, Revision, GoVersion string
	// Pools as configured.
	Pools []PoolNames
	// Targets as configured.
	Targets []string
	// Fallbacks are the kinds of steps in the fallback of each target.
	Fallbacks map[string][]fallback.Kind
	// Hedged are the targets that are hedged.
	Hedged []string
	// Probed are the targets that workerd probes itself.
	Probed []string
	// Phases of the shutdown, in order.
	Phases []string
}

// PoolNames describe one pool.
type PoolNames struct {
	// Name and Targets as configured.
	Name    string
	Targets []string
	// Priorities the pool uses; each has a consumer.
	Priorities []job.Priority
}

// other stands for a value outside its closed set.
const other = "other"

// reasons why something became of a job.
func reasons() []string {
	var names []string
	for _, r := range job.Reasons() {
		names = append(names, string(r))
	}
	return append(names, other)
}

// results of a call. Success has one word, whatever the protocol calls it.
func results() []string {
	var names []string
	for _, r := range []job.Reason{
		job.OK, job.Status2xx, job.Status3xx, job.Status4xx, job.Status5xx, job.StatusThrottled, job.TimedOut, job.Connect, job.Reset,
		job.DNS, job.TLS, job.Protocol, job.ResponseSize, job.Disposition, job.BadRequest, job.Dropped, job.PanicReason,
		job.Interrupted, job.LeaseLost,
	} {
		names = append(names, string(r))
	}
	return append(names, other)
}

// classes of a call that was made; a rejected one was not.
func classes() []job.Class {
	return []job.Class{
		job.Success, job.Failure, job.Timeout, job.Throttled, job.Permanent, job.Neutral, job.Ignored, job.Panicked,
	}
}

// numActions is the room for the actions that end a delivery, by number.
const numActions = int(job.Drop) + 1

// Buckets of the classic histograms: Prometheus' defaults and the tail that
// jobs have; and from a hundredth of a second to a day for waiting in a stream.
func durationBuckets() []float64 {
	return []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
}

func ageBuckets() []float64 {
	return []float64{.01, .05, .1, .5, 1, 5, 15, 60, 300, 900, 3600, 21600, 86400}
}

// histogram describes a histogram in seconds, classic and native at once: the
// scraper takes the one it knows. 1.1 means about 10 % error of a quantile.
func histogram(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, Unit: "seconds", Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	}
}

func counter(name, help string) prometheus.CounterOpts {
	return prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}
}

// family makes the counters of one label's values, so that the hot path finds
// them without a lookup of labels.
func family(v *prometheus.CounterVec, of string, values []string) map[string]prometheus.Counter {
	children := make(map[string]prometheus.Counter, len(values))
	for _, value := range values {
		children[value] = v.WithLabelValues(of, value)
	}
	return children
}

// count adds to a family; a value outside the closed set counts as other.
func count(children map[string]prometheus.Counter, value string) {
	c, ok := children[value]
	if !ok {
		c = children[other]
	}
	c.Inc()
}
