package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/admin"
)

// once fails each job of a kind at its first call.
type once struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (o *once) first(body string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen[body] {
		return false
	}
	o.seen[body] = true
	return true
}

// letters returns the bodies of all dead letters and their reasons.
func (k *kit) letters() map[string]string {
	k.t.Helper()
	s, err := k.js.Stream(k.t.Context(), "WORKERD_DLQ")
	if err != nil {
		k.t.Fatal(err)
	}
	all := map[string]string{}
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(k.t.Context(), seq)
		if err != nil {
			k.t.Fatal(err)
		}
		if all[string(m.Data)] != "" {
			k.t.Errorf("%q is a dead letter twice", m.Data)
		}
		all[string(m.Data)] = m.Header.Get("Workerd-Dlq-Reason")
	}
	return all
}

// TestApp_booksAgree: what was published, what the downstream saw, the
// metrics, the status and the dead letters tell the same story.
func TestApp_booksAgree(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.breaker = "{consecutive_failures: -1, failure_rate: 1}"
	failed := &once{seen: map[string]bool{}}
	k.decide = func(body string) int {
		switch {
		case strings.HasSuffix(body, "1"): // 9 of 90
			return http.StatusUnprocessableEntity
		case strings.HasSuffix(body, "2") && failed.first(body): // 9 of 90
			return http.StatusInternalServerError
		}
		return http.StatusOK
	}
	d := k.start(described)
	d.awaitReady()
	k.publish(90)
	want := admin.Jobs{OK: 81, Retry: 9, Dead: 9}
	await(t, "all jobs have ended", func() bool { return d.Status().Pools[0].Jobs == want })
	await(t, "the stream is empty", func() bool { return k.left() == 0 })
	if calls := k.calls.Load(); calls != 99 || d.Status().Targets[0].Calls != 99 || d.Status().Targets[0].Failed != 18 {
		t.Errorf("%d calls, %+v", calls, d.Status().Targets[0])
	}
	got := d.metrics()
	for _, want := range []string{
		`workerd_jobs_completed_total{outcome="ok",pool="p"} 81`, `workerd_jobs_completed_total{outcome="retry",pool="p"} 9`,
		`workerd_jobs_completed_total{outcome="dead",pool="p"} 9`, `workerd_jobs_completed_total{outcome="deferred",pool="p"} 0`,
		`workerd_jobs_dead_lettered_total{pool="p",reason="status_4xx"} 9`, `workerd_jobs_retried_total{pool="p",reason="status_5xx"} 9`,
		`workerd_target_attempts_total{result="ok",target="t"} 81`, `workerd_target_attempts_total{result="status_4xx",target="t"} 9`,
		`workerd_target_attempts_total{result="status_5xx",target="t"} 9`, `workerd_reports_unattributed_total{what="pool"} 0`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("metrics do not say %s", want)
		}
	}
	letters := k.letters()
	if len(letters) != 9 || letters["1"] != "status_4xx" || letters["81"] != "status_4xx" {
		t.Errorf("dead letters: %v", letters)
	}
	if failures := d.Status().Failures; len(failures) != 18 {
		t.Errorf("%d failures are shown, want all 18", len(failures))
	}
	if err := d.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func TestApp_breakerThatClosesLetsWorkGoOn(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.breaker = "{open_for: 300ms}"
	k.answer.Store(http.StatusServiceUnavailable)
	d := k.start(described)
	d.awaitReady()
	k.publish(50)
	await(t, "the pool is held, and the API says why", func() bool {
		code, body := d.get("/api/v1/status")
		var s admin.Status
		if err := json.Unmarshal([]byte(body), &s); code != http.StatusOK || err != nil {
			t.Fatal(code, err)
		}
		return s.Pools[0].State == admin.PoolHeld && strings.Contains(s.Pools[0].Why, "breaker of t is open (too many failures in a row)")
	})
	k.answer.Store(http.StatusOK)
	await(t, "all jobs are done", func() bool { return d.Status().Pools[0].Jobs.OK == 50 })
	await(t, "the target has warmed up", func() bool {
		p := d.Status().Pools[0]
		return p.Jobs.Dead == 0 && p.State == admin.PoolRunning && p.Why == ""
	})
}

// TestApp_jobThatCannotBeBuriedStays: no dead letter, no end.
func TestApp_jobThatCannotBeBuriedStays(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.answer.Store(http.StatusUnprocessableEntity)
	if _, err := k.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "WORKERD_DLQ", Subjects: []string{"workerd.dlq.>"}, MaxMsgSize: 10}); err != nil {
		t.Fatal(err)
	}
	d := k.start(described)
	d.awaitReady()
	k.publish(1)
	await(t, "it is given back", func() bool { return d.Status().Pools[0].Jobs.Deferred == 1 })
	f := d.Status().Failures
	if len(f) != 1 || f[0].Reason != "dead_letter_unavailable" || !strings.Contains(f[0].Error, "more than the server or stream WORKERD_DLQ takes") {
		t.Errorf("failures: %+v", f)
	}
	if left := k.left(); left != 1 {
		t.Errorf("%d jobs in the stream, want it still there", left)
	}
	for _, want := range []string{`workerd_dlq_publish_errors_total{pool="p"} 1`, `workerd_jobs_dead_lettered_total{pool="p",reason="status_4xx"} 0`} {
		if !strings.Contains(d.metrics(), want+"\n") {
			t.Errorf("metrics do not say %s", want)
		}
	}
	if log := d.log.String(); !strings.Contains(log, "stream=WORKERD_DLQ") || !strings.Contains(log, "max_age is 0s, the configuration says 336h0m0s") {
		t.Error("how the dead-letter stream differs is not logged")
	}
}

func TestApp_twoOfOneClusterShareTheWork(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.decide = func(string) int {
		timer := time.NewTimer(2 * time.Millisecond) // long enough for both to have some
		defer timer.Stop()
		<-timer.C
		return http.StatusOK
	}
	a, b := k.start(described), k.start(described)
	a.awaitReady()
	b.awaitReady()
	k.publish(200)
	done := func(d *daemon) uint64 { return d.Status().Pools[0].Jobs.OK }
	await(t, "all jobs are done", func() bool { return done(a)+done(b) == 200 })
	if calls := k.calls.Load(); calls != 200 || done(a) == 0 || done(b) == 0 {
		t.Errorf("%d calls, %d jobs done by one and %d by the other", calls, done(a), done(b))
	}
	if a.Status().Instance == b.Status().Instance {
		t.Error("both have the same name")
	}
}

func TestApp_startsBeforeItsBroker(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.publishTo("JOBS", 3)
	k.broker.Stop()
	d := k.start(described)
	await(t, "it says what is missing", func() bool {
		s := d.Status()
		return !s.Ready && !s.NATS.Connected && strings.Contains(fmt.Sprint(s.Checks), "not connected to "+k.broker.URL())
	})
	if code, body := d.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "nats") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, _ := d.get("/livez"); code != http.StatusOK {
		t.Errorf("/livez: %d; a restart would not help", code)
	}
	k.broker.Restart()
	await(t, "the jobs are done", func() bool { return d.Status().Pools[0].Jobs.OK == 3 })
}

// publishTo makes the stream and publishes into it.
func (k *kit) publishTo(stream string, n int) {
	k.t.Helper()
	k.broker.Stream(k.js, stream, "jobs.>")
	k.publish(n)
}

// TestApp_waitingForABrokerThatWasThereIsNotTimedFromTheStart: nobody noted
// when the consumers were lost.
func TestApp_waitingForABrokerThatWasThereIsNotTimedFromTheStart(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	d := k.start(described)
	d.awaitReady()
	k.broker.Stop()
	var p admin.Pool
	await(t, "the pool waits", func() bool { p = d.Status().Pools[0]; return p.State == admin.PoolStarting })
	if !p.Since.IsZero() || !strings.Contains(p.Why, "not connected to NATS") || !strings.HasPrefix(p.Why, "waiting for its consumers;") {
		t.Errorf("since %v: %s", p.Since, p.Why)
	}
}
