package metrics_test

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/cache"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/metrics"
	"github.com/workerd/workerd/internal/pool"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestNew_everySeriesExistsAtZeroFromTheStart(t *testing.T) {
	reg, _ := start()
	series := scrape(t, reg)
	var list strings.Builder
	for _, name := range sortedKeys(series) {
		list.WriteString(name + "\n")
		if v := series[name]; v != 0 && !strings.Contains(name, "_info{") {
			t.Errorf("%s = %v at the start, want 0", name, v)
		}
	}
	golden(t, "testdata/series.txt", list.String())
}

// golden compares text with a file, which -update rewrites.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs, renew with -update if that is right (-want +got):\n%s", file, diff)
	}
}

func TestNew_namesPassPromlint(t *testing.T) {
	reg, _ := start()
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestNew_twiceOnOneRegistryIsAMistake(t *testing.T) {
	reg, _ := start()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	metrics.New(reg, names())
}

func TestWatch_gaugesShowTheSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, m := start()
		now := time.Now()
		m.Watch(metrics.Sources{
			Pools: map[string]func() pool.Stats{"email": func() pool.Stats {
				return pool.Stats{
					Concurrency: 16, Limit: 4, InFlight: 3, Waiting: 2, SetAside: 6, Held: [job.Priorities]int{job.High: 4, job.Low: 1},
					Hold: pool.Hold{Reason: "breaker"}, OldestHeld: now.Add(-90 * time.Second), LastSettled: now,
				}
			}},
			Consumers: map[string][job.Priorities]func() metrics.Consumer{"email": {
				job.High: func() metrics.Consumer { return metrics.Consumer{Delivered: 5, Pending: 7, WaitingPulls: 1} },
				job.Low: func() metrics.Consumer {
					return metrics.Consumer{Delivered: 6, Suppressed: 2, Lost: 4, AckPending: 9, Redelivered: 8}
				},
			}},
			Targets: map[string]func() metrics.Target{"pdf": func() metrics.Target {
				return metrics.Target{Breaker: breaker.Stats{State: breaker.Open, Rejected: 11}, RetryBudget: 0.25, Degraded: true}
			}},
			Cache: func() cache.Stats {
				return cache.Stats{Entries: 12, Bytes: 3400, Counts: cache.Counts{Hits: 5, Misses: 6, Stale: 7, Evicted: 8}}
			},
			Conn: func() metrics.Conn {
				return metrics.Conn{Connected: true, Reconnects: 2, Unsettled: 3, Resent: 4, Abandoned: 5}
			},
			Ready:         func() bool { return true },
			ShutdownPhase: func() string { return "drain" },
		})
		wants(t, scrape(t, reg), map[string]float64{
			`workerd_pool_in_flight{pool="email"}`:                         3,
			`workerd_pool_waiting{pool="email"}`:                           2,
			`workerd_pool_set_aside{pool="email"}`:                         6,
			`workerd_pool_concurrency_limit{pool="email"}`:                 4,
			`workerd_pool_in_hand{pool="email",priority="high"}`:           4,
			`workerd_pool_in_hand{pool="email",priority="low"}`:            1,
			`workerd_pool_held{pool="email",reason="breaker"}`:             1,
			`workerd_pool_held{pool="email",reason="draining"}`:            0,
			`workerd_pool_oldest_job_age_seconds{pool="email"}`:            90,
			`workerd_pool_last_completion_timestamp_seconds{pool="email"}`: float64(now.Unix()),
			`workerd_jobs_received_total{pool="email"}`:                    11,
			`workerd_redeliveries_suppressed_total{pool="email"}`:          2,
			`workerd_jobs_expired_unprocessed_total{pool="email"}`:         4,
			`workerd_consumer_pending{pool="email",priority="high"}`:       7,
			`workerd_consumer_ack_pending{pool="email",priority="low"}`:    9,
			`workerd_consumer_redelivered{pool="email",priority="low"}`:    8,
			`workerd_consumer_waiting_pulls{pool="email",priority="high"}`: 1,
			`workerd_breaker_state{state="open",target="pdf"}`:             1,
			`workerd_breaker_state{state="closed",target="pdf"}`:           0,
			`workerd_breaker_rejected_total{target="pdf"}`:                 11,
			`workerd_retry_budget_ratio{target="pdf"}`:                     0.25,
			`workerd_target_degraded{target="pdf"}`:                        1,
			`workerd_target_degraded{target="mailer"}`:                     0,
			`workerd_cache_entries`:                                        12,
			`workerd_cache_bytes`:                                          3400,
			`workerd_cache_requests_total{result="hit"}`:                   5,
			`workerd_cache_requests_total{result="miss"}`:                  6,
			`workerd_cache_requests_total{result="stale"}`:                 7,
			`workerd_cache_evictions_total`:                                8,
			`workerd_nats_connected`:                                       1,
			`workerd_nats_reconnects_total`:                                2,
			`workerd_unsettled_acks`:                                       3,
			`workerd_acks_resent_total`:                                    4,
			`workerd_acks_abandoned_total`:                                 5,
			`workerd_ready`:                                                1,
			`workerd_shutdown_phase{phase="drain"}`:                        1,
			`workerd_shutdown_phase{phase="stop"}`:                         0,
			`workerd_pool_in_flight{pool="reports"}`:                       0,
		})
	})
}

// TestWatch_anOpenGateIsNotHeld: a pool whose gate gives credit is not held,
// whatever reason stands beside it.
func TestWatch_anOpenGateIsNotHeld(t *testing.T) {
	reg, m := start()
	m.Watch(metrics.Sources{Pools: map[string]func() pool.Stats{"email": func() pool.Stats {
		return pool.Stats{Hold: pool.Hold{Credit: 1, Reason: "breaker"}}
	}}})
	wants(t, scrape(t, reg), map[string]float64{`workerd_pool_held{pool="email",reason="breaker"}`: 0})
}

func TestHandler_speaksEveryFormat(t *testing.T) {
	reg := prometheus.NewRegistry()
	metrics.New(reg, names())
	metrics.Runtime(reg)
	h := metrics.Handler(reg)
	for _, c := range []struct{ accept, contentType, body string }{
		{"", "text/plain", "workerd_job_wait_seconds_count{pool=\"email\"} 0"},
		{"application/openmetrics-text;version=1.0.0", "application/openmetrics-text", "# EOF"},
		{"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "application/vnd.google.protobuf", "workerd_job_wait_seconds"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", c.accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), c.contentType) || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("Accept %q: %d, %q, body contains %q: %v", c.accept, w.Code, w.Header().Get("Content-Type"), c.body, strings.Contains(w.Body.String(), c.body))
		}
		if !strings.Contains(w.Body.String(), "go_goroutines") {
			t.Errorf("Accept %q: no series of the Go runtime", c.accept)
		}
	}
}

func TestHistograms_areClassicAndNative(t *testing.T) {
	reg, m := start()
	m.Job(pool.Report{Pool: "email", Outcome: job.Outcome{Action: job.Done, Tries: 1}, Took: 300 * time.Microsecond})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		for _, s := range f.GetMetric() {
			if h := s.GetHistogram(); h.GetSampleCount() > 0 {
				seen++
				if len(h.GetBucket()) == 0 || h.Schema == nil || len(h.GetPositiveSpan())+int(h.GetZeroCount()) == 0 {
					t.Errorf("%s: %d classic buckets, schema %v, spans %v", f.GetName(), len(h.GetBucket()), h.Schema, h.GetPositiveSpan())
				}
			}
		}
	}
	if seen != 3 {
		t.Errorf("%d histograms with an observation, want 3", seen)
	}
}
