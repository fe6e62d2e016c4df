package e2e

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestFallback_anotherTargetDoesTheJobsOfAnOutage: while the target is down its
// jobs go on at another one, it gets no more than its probes, and once it is
// back it gets the jobs again.
func TestFallback_anotherTargetDoesTheJobsOfAnOutage(t *testing.T) {
	n := startNATS(t)
	var down atomic.Bool
	down.Store(true)
	primary := startDownstream(t, func(*http.Request) int {
		if down.Load() {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	other := startDownstream(t, func(*http.Request) int { return http.StatusOK })
	c := connect(t, n)
	ids := c.publish("jobs.mail.x", "during", 2000)
	w := startWorker(t, configure(n, 10*time.Second, lane{
		name: "mail", url: primary.url, pool: "concurrency: 8",
		target: fmt.Sprintf("breaker: {open_for: 1s, max_open_for: 1s}, retry: {max_attempts: 1}, fallback: [other]}\n  other: {http: {url: %q}", other.url),
	}))
	c.awaitEmpty(60 * time.Second)
	if len(c.deadLetters()) > 0 {
		t.Error("jobs became dead letters")
	}
	b := other.books()
	if b.done != len(ids) || b.twice > 0 {
		t.Errorf("the other target did %d of %d jobs, %d of them twice", b.done, len(ids), b.twice)
	}
	if calls := w.metric("workerd_target_attempts_total", `target="mail"`); calls > 100 {
		t.Errorf("the target was called %v times in its outage", calls)
	}
	if done := w.metric("workerd_fallbacks_total", `target="mail"`, `step="alternate"`, `result="ok"`); done != float64(len(ids)) {
		t.Errorf("%v jobs done by the fallback, want %d", done, len(ids))
	}

	down.Store(false)
	await(t, 30*time.Second, "the target gets all jobs again", func() bool {
		before := other.books().done
		c.publish("jobs.mail.x", fmt.Sprintf("after-%d", time.Now().UnixNano()), 20)
		c.awaitEmpty(30 * time.Second)
		return other.books().done == before
	})
	if state := w.metric("workerd_breaker_state", `target="mail"`, `state="closed"`); state != 1 {
		t.Error("all jobs go to the target, but its breaker is not closed")
	}
}

// TestResults_thePublisherIsToldHowItsJobEnded, and nobody else is.
func TestResults_thePublisherIsToldHowItsJobEnded(t *testing.T) {
	n := startNATS(t)
	target := startDownstream(t, func(r *http.Request) int {
		if r.Header.Get("Workerd-Job-Id") == "bad" {
			return http.StatusUnprocessableEntity
		}
		return http.StatusCreated
	})
	c := connect(t, n)
	w := startWorker(t, configure(n, 10*time.Second, lane{name: "mail", url: target.url, pool: "subjects: {normal: [jobs.mail.>]}, results: {subjects: [_INBOX.>]}"}))
	inbox := c.nc.NewRespInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	for id, to := range map[string]string{"good": inbox, "bad": inbox, "spy": "jobs.mail.again"} {
		m := &nats.Msg{Subject: "jobs.mail.x", Header: nats.Header{"Nats-Msg-Id": {id}, "Workerd-Reply-To": {to}}, Data: []byte(id)}
		if _, err := c.js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"good": "ok 201 primary", "bad": "dead 422 "}
	for range want {
		m, err := sub.NextMsg(30 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		got := m.Header.Get("Workerd-Outcome") + " " + m.Header.Get("Workerd-Status") + " " + m.Header.Get("Workerd-Source")
		if id := m.Header.Get("Workerd-Job-Id"); got != want[id] {
			t.Errorf("%s: %q, want %q", id, got, want[id])
		}
	}
	c.awaitEmpty(30 * time.Second)
	await(t, 10*time.Second, "the third is counted", func() bool {
		return w.metric("workerd_results_total", `result="refused"`) == 1 && w.metric("workerd_results_total", `result="sent"`) == 2
	})
	if b := target.books(); b.total != 3 {
		t.Errorf("%d calls, want 3: a result has become a job", b.total)
	}
}
