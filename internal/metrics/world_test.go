package metrics_test

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/metrics"
)

// names of a small fleet: a pool with two priorities and one with one.
func names() metrics.Names {
	return metrics.Names{
		Version: "v0.1.0", Revision: "abc", GoVersion: "go1.26",
		Pools: []metrics.PoolNames{
			{Name: "email", Targets: []string{"mailer"}, Priorities: []job.Priority{job.High, job.Low}},
			{Name: "reports", Targets: []string{"pdf"}, Priorities: []job.Priority{job.Normal}},
		},
		Targets:   []string{"mailer", "pdf"},
		Fallbacks: map[string][]fallback.Kind{"mailer": {fallback.Alternate}},
		Hedged:    []string{"pdf"},
		Probed:    []string{"pdf"},
		Phases:    []string{"announce", "stop", "drain"},
	}
}

func start() (*prometheus.Registry, *metrics.Metrics) {
	reg := prometheus.NewPedanticRegistry()
	return reg, metrics.New(reg, names())
}

// scrape returns every series as name{label="value",...} with its value; a
// histogram as its count.
func scrape(t testing.TB, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			all[f.GetName()+labels(m)] = valueOf(m)
		}
	}
	return all
}

func labels(m *dto.Metric) string {
	var pairs []string
	for _, l := range m.GetLabel() {
		pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	if len(pairs) == 0 {
		return ""
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

func valueOf(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Histogram != nil:
		return float64(m.Histogram.GetSampleCount())
	}
	return m.Gauge.GetValue()
}

// sum adds up the series that begin with prefix.
func sum(series map[string]float64, prefix string) float64 {
	total := 0.0
	for name, v := range series {
		if strings.HasPrefix(name, prefix) {
			total += v
		}
	}
	return total
}

func sortedKeys(series map[string]float64) []string {
	keys := make([]string, 0, len(series))
	for name := range series {
		keys = append(keys, name)
	}
	sort.Strings(keys)
	return keys
}

func wants(t *testing.T, series, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		if got, ok := series[name]; !ok || got != v {
			t.Errorf("%s = %v (present: %v), want %v", name, got, ok, v)
		}
	}
}
