package metrics_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/hedge"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/metrics"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
)

func TestJob_countsEachReportWhereItBelongs(t *testing.T) {
	for _, c := range []struct {
		name   string
		report pool.Report
		want   map[string]float64
	}{
		{"done", pool.Report{Outcome: job.Outcome{Action: job.Done, Reason: job.OK, Tries: 1}, Took: time.Second, Age: time.Second}, map[string]float64{
			`workerd_jobs_completed_total{outcome="ok",pool="email"}`:   1,
			`workerd_job_duration_seconds{outcome="ok",pool="email"}`:   1,
			`workerd_job_queue_age_seconds{pool="email"}`:               1,
			`workerd_job_wait_seconds{pool="email"}`:                    1,
			`workerd_jobs_completed_total{outcome="ok",pool="reports"}`: 0,
		}},
		{"retry", pool.Report{Outcome: job.Outcome{Action: job.Retry, Reason: job.Status5xx, Tries: 3}}, map[string]float64{
			`workerd_jobs_completed_total{outcome="retry",pool="email"}`:    1,
			`workerd_jobs_retried_total{pool="email",reason="status_5xx"}`:  1,
			`workerd_jobs_deferred_total{pool="email",reason="status_5xx"}`: 0,
		}},
		{"deferred without a call", pool.Report{Outcome: job.Outcome{Action: job.Defer, Reason: job.BreakerOpen}}, map[string]float64{
			`workerd_jobs_deferred_total{pool="email",reason="breaker"}`:    1,
			`workerd_job_duration_seconds{outcome="deferred",pool="email"}`: 0,
			`workerd_job_queue_age_seconds{pool="email"}`:                   0,
			`workerd_job_wait_seconds{pool="email"}`:                        1,
		}},
		{"released", pool.Report{Outcome: job.Outcome{Action: job.Release, Reason: job.Interrupted}}, map[string]float64{
			`workerd_jobs_completed_total{outcome="released",pool="email"}`:  1,
			`workerd_jobs_deferred_total{pool="email",reason="interrupted"}`: 1,
		}},
		{"lease lost", pool.Report{Outcome: job.Outcome{Action: job.Release, Reason: job.LeaseLost}}, map[string]float64{
			`workerd_lease_lost_total{pool="email"}`: 1,
			`workerd_ack_errors_total{pool="email"}`: 0,
		}},
		{"lease lost at the end", pool.Report{Outcome: job.Outcome{Action: job.Retry, Reason: job.Reset}, SettleErr: job.ErrLeaseLost}, map[string]float64{
			`workerd_lease_lost_total{pool="email"}`: 1,
			`workerd_ack_errors_total{pool="email"}`: 1,
		}},
		{"dead of a panic", pool.Report{Outcome: job.Outcome{Action: job.DeadLetter, Reason: job.Poison, Last: job.Result{Class: job.Panicked}}}, map[string]float64{
			`workerd_jobs_dead_lettered_total{pool="email",reason="poison"}`: 1,
			`workerd_panics_total{pool="email"}`:                             1,
		}},
		{"no dead letter", pool.Report{Outcome: job.Outcome{Action: job.Defer, Reason: job.NoDLQ}}, map[string]float64{
			`workerd_dlq_publish_errors_total{pool="email"}`:                             1,
			`workerd_jobs_deferred_total{pool="email",reason="dead_letter_unavailable"}`: 1,
		}},
		{"reason nobody knows", pool.Report{Outcome: job.Outcome{Action: job.Retry, Reason: "<script>"}}, map[string]float64{
			`workerd_jobs_retried_total{pool="email",reason="other"}`: 1,
		}},
		{"action nobody knows", pool.Report{Outcome: job.Outcome{Action: 200}}, map[string]float64{
			`workerd_reports_unattributed_total{what="outcome"}`: 1,
		}},
		{"pool nobody knows", pool.Report{Pool: "who", Outcome: job.Outcome{Action: job.Done}}, map[string]float64{
			`workerd_reports_unattributed_total{what="pool"}`: 1,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg, m := start()
			if c.report.Pool == "" {
				c.report.Pool = "email"
			}
			m.Job(c.report)
			wants(t, scrape(t, reg), c.want)
		})
	}
}

func TestTry_countsEachCallWhereItBelongs(t *testing.T) {
	reg, m := start()
	m.Try("pdf", pipeline.Try{Result: job.Result{Class: job.Success, Reason: job.Status2xx}, Took: time.Millisecond})
	m.Try("pdf", pipeline.Try{Result: job.Result{Class: job.Success, Reason: job.OK}})
	m.Try("pdf", pipeline.Try{Result: job.Result{Class: job.Failure, Reason: job.TLS}})
	m.Try("pdf", pipeline.Try{Result: job.Result{Class: job.Neutral, Reason: "new"}})
	m.Try("pdf", pipeline.Try{Result: job.Result{Class: 99, Reason: job.TLS}})
	m.Try("who", pipeline.Try{})
	wants(t, scrape(t, reg), map[string]float64{
		`workerd_target_attempts_total{result="ok",target="pdf"}`:                  2,
		`workerd_target_attempts_total{result="tls",target="pdf"}`:                 1,
		`workerd_target_attempts_total{result="other",target="pdf"}`:               2,
		`workerd_target_attempt_duration_seconds{class="success",target="pdf"}`:    2,
		`workerd_target_attempt_duration_seconds{class="neutral",target="pdf"}`:    1,
		`workerd_target_attempt_duration_seconds{class="panic",target="pdf"}`:      1,
		`workerd_reports_unattributed_total{what="target"}`:                        1,
		`workerd_target_attempt_duration_seconds{class="success",target="mailer"}`: 0,
	})
}

func TestBreakerChanged_countsTheNewState(t *testing.T) {
	reg, m := start()
	m.BreakerChanged("pdf", breaker.Change{From: breaker.Closed, To: breaker.Open})
	m.BreakerChanged("pdf", breaker.Change{From: breaker.Open, To: breaker.HalfOpen})
	m.BreakerChanged("pdf", breaker.Change{To: 77})
	m.BreakerChanged("who", breaker.Change{To: breaker.Open})
	wants(t, scrape(t, reg), map[string]float64{
		`workerd_breaker_transitions_total{target="pdf",to="open"}`:      1,
		`workerd_breaker_transitions_total{target="pdf",to="half_open"}`: 1,
		`workerd_breaker_transitions_total{target="pdf",to="closed"}`:    0,
		`workerd_reports_unattributed_total{what="target"}`:              2,
	})
}

// TestJob_hostileReportsAddNoSeries is G20: the series are a function of the
// configuration.
func TestJob_hostileReportsAddNoSeries(t *testing.T) {
	reg, m := start()
	before := sortedKeys(scrape(t, reg))
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		text := hostile(r)
		last := job.Result{Class: job.Class(r.UintN(256)), Reason: job.Reason(text), Status: r.Int(), Err: errors.New(text)}
		m.Job(pool.Report{
			Pool: pick(r, "email", "reports", text),
			Job:  &job.Job{ID: text, Subject: text, Priority: job.Priority(r.UintN(256))},
			Outcome: job.Outcome{
				Action: job.Action(r.UintN(256)), Reason: job.Reason(pick(r, text, string(job.Expired))), Tries: r.IntN(3) - 1, Last: last,
			},
			Age: time.Duration(r.Uint64()), Waited: time.Duration(math.MinInt64), Took: time.Duration(r.Uint64()), SettleErr: errors.New(text),
		})
		m.Try(pick(r, "pdf", text), pipeline.Try{Result: last, Took: time.Duration(r.Uint64())})
		m.BreakerChanged(pick(r, "pdf", text), breaker.Change{To: breaker.State(r.UintN(256))})
	}
	if diff := cmp.Diff(before, sortedKeys(scrape(t, reg))); diff != "" {
		t.Errorf("series changed (-before +after):\n%s", diff)
	}
}

func hostile(r *rand.Rand) string {
	b := make([]byte, r.IntN(40))
	for i := range b {
		b[i] = byte(r.UintN(256))
	}
	return string(b) + pick(r, "", "\"}\n", "<script>", "\x00", "{pool=\"email\"}")
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

// TestJob_nothingIsLostBetweenReceivedAndCompleted is G17 on a synthetic
// stream: at every step, received = completed + suppressed + in hand.
func TestJob_nothingIsLostBetweenReceivedAndCompleted(t *testing.T) {
	reg, m := start()
	var received, suppressed uint64
	inHand := 0
	m.Watch(metrics.Sources{
		Pools: map[string]func() pool.Stats{"email": func() pool.Stats {
			return pool.Stats{Held: [job.Priorities]int{job.High: inHand}}
		}},
		Consumers: map[string][job.Priorities]func() metrics.Consumer{"email": {job.High: func() metrics.Consumer {
			return metrics.Consumer{Delivered: received, Suppressed: suppressed}
		}}},
	})
	r := rand.New(rand.NewPCG(3, 4))
	for step := range 5000 {
		switch {
		case r.IntN(20) == 0:
			received, suppressed = received+1, suppressed+1
		case inHand == 0 || r.IntN(2) == 0:
			received, inHand = received+1, inHand+1
		default:
			inHand--
			m.Job(pool.Report{Pool: "email", Outcome: randomOutcome(r)})
		}
		if step%500 == 0 || step == 4999 {
			conserves(t, scrape(t, reg))
		}
	}
}

func conserves(t *testing.T, s map[string]float64) {
	t.Helper()
	received := s[`workerd_jobs_received_total{pool="email"}`]
	completed := sum(s, `workerd_jobs_completed_total{`)
	if in := completed + s[`workerd_redeliveries_suppressed_total{pool="email"}`] + sum(s, `workerd_pool_in_hand{pool="email"`); in != received {
		t.Errorf("received %v, accounted for %v", received, in)
	}
	for outcome, metric := range map[string]string{"retry": "retried", "dead": "dead_lettered"} {
		if got, want := sum(s, "workerd_jobs_"+metric+"_total{"), s[`workerd_jobs_completed_total{outcome="`+outcome+`",pool="email"}`]; got != want {
			t.Errorf("jobs_%s_total sums up to %v, outcome %s to %v", metric, got, outcome, want)
		}
	}
	back := s[`workerd_jobs_completed_total{outcome="deferred",pool="email"}`] + s[`workerd_jobs_completed_total{outcome="released",pool="email"}`]
	if got := sum(s, "workerd_jobs_deferred_total{"); got != back {
		t.Errorf("jobs_deferred_total sums up to %v, outcomes deferred and released to %v", got, back)
	}
	if waits := sum(s, "workerd_job_wait_seconds{"); waits != completed {
		t.Errorf("%v waits observed, %v jobs completed", waits, completed)
	}
}

func randomOutcome(r *rand.Rand) job.Outcome {
	actions, reasons := job.Actions(), job.Reasons()
	return job.Outcome{Action: actions[r.IntN(len(actions))], Reason: reasons[r.IntN(len(reasons))], Tries: r.IntN(3)}
}

func TestNew_knowsEveryReasonOfACall(t *testing.T) {
	reg, m := start()
	// Reasons that are decided after the calls, and never those of one.
	never := []job.Reason{job.Decode, job.Expired, job.MaxAttempts, job.MaxAge, job.MaxDeferrals, job.Poison, job.Shed, job.Released, job.Fairness, job.NoDLQ, job.NoResult}
	never = append(never, job.BreakerOpen, job.Limited, job.Ramping, job.RateLimited, job.Stalled, job.ValveClosed, job.Pressure, job.Paused, job.Degraded)
	for _, reason := range job.Reasons() {
		if !slices.Contains(never, reason) {
			m.Try("pdf", pipeline.Try{Result: job.Result{Class: job.Failure, Reason: reason}})
		}
	}
	wants(t, scrape(t, reg), map[string]float64{`workerd_target_attempts_total{result="other",target="pdf"}`: 0})
}

func TestFallback_countsStepsOfTheTargetsThatHaveThem(t *testing.T) {
	reg, m := start()
	m.Fallback("mailer", pipeline.StepDone{Kind: fallback.Alternate, Result: fallback.Done})
	m.Fallback("pdf", pipeline.StepDone{Kind: fallback.Alternate, Result: fallback.Done}) // has none
	wants(t, scrape(t, reg), map[string]float64{
		`workerd_fallbacks_total{result="ok",step="alternate",target="mailer"}`:     1,
		`workerd_fallbacks_total{result="failed",step="alternate",target="mailer"}`: 0,
		`workerd_reports_unattributed_total{what="target"}`:                         1,
	})
}

func TestHedge_countsForTheTargetsThatAreHedged(t *testing.T) {
	reg, m := start()
	m.Hedge("pdf", hedge.Won)
	m.Hedge("mailer", hedge.Won) // is not
	all := scrape(t, reg)
	for series, want := range map[string]float64{
		`workerd_hedges_total{result="won",target="pdf"}`:    1,
		`workerd_hedges_total{result="denied",target="pdf"}`: 0,
		`workerd_reports_unattributed_total{what="target"}`:  1,
	} {
		if got, ok := all[series]; !ok || got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
}
