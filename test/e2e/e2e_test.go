package e2e

import (
	"context"
	"fmt"
	"hash/fnv"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// lane is one pool and its target in a configuration.
type lane struct {
	name, url string
	timeout   time.Duration // default 5s
	pool      string        // keys of the pool beside those of every test, as a YAML flow map's inside
	target    string        // likewise of the target
}

// configure returns a configuration with the given lanes. Lane x takes
// jobs.x.> with normal priority unless its pool says subjects.
func configure(n *natsProcess, drain time.Duration, lanes ...lane) string {
	var targets, pools strings.Builder
	for _, l := range lanes {
		if l.timeout == 0 {
			l.timeout = 5 * time.Second
		}
		fmt.Fprintf(&targets, "  %s: {http: {url: %q}, timeout: %s, %s}\n", l.name, l.url, l.timeout, l.target)
		if !strings.Contains(l.pool, "subjects:") {
			l.pool = fmt.Sprintf("subjects: {normal: [jobs.%s.>]}, %s", l.name, l.pool)
		}
		fmt.Fprintf(&pools, "  %s: {target: %s, stream: JOBS, %s}\n", l.name, l.name, l.pool)
	}
	return fmt.Sprintf("nats: {url: %q}\ntargets:\n%spools:\n%sdrain: {timeout: %s, flush_timeout: %s}\n",
		n.url(), &targets, &pools, drain, drain/5)
}

const quickRedelivery = "redelivery: {max_attempts: 4, initial_backoff: 100ms, max_backoff: 1s, multiplier: 2}"

// unlucky tells for one in a hundred whether a call of a job fails, afresh for
// each call, the same in each run.
func unlucky(id string, call, percent int) bool {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d", id, call)
	return int(h.Sum32()%100) < percent
}

func TestTenThousandJobs_tenPercentFailures_eachDoneOnceOrDeadLettered(t *testing.T) {
	const jobs = 10_000
	n := startNATS(t)
	var d *downstream
	d = startDownstream(t, func(r *http.Request) int {
		id := r.Header.Get("Workerd-Job-Id")
		d.mu.Lock()
		call := d.calls[id]
		d.mu.Unlock()
		switch {
		case strings.HasSuffix(id, "77"): // the job's own fault
			return http.StatusUnprocessableEntity
		case unlucky(id, call, 10):
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	c := connect(t, n)
	ids := c.publish("jobs.mail.x", "job", jobs)
	w := startWorker(t, configure(n, 10*time.Second, lane{
		name: "mail", url: d.url, pool: "concurrency: 32, " + quickRedelivery,
		target: "retry: {initial_backoff: 10ms}, breaker: {consecutive_failures: -1}",
	}))
	c.awaitEmpty(90 * time.Second)
	dead := c.deadLetters()
	reconcile(t, ids, d, dead)
	b := d.books()
	if b.twice > 0 {
		t.Errorf("%d jobs were done twice", b.twice)
	}
	if b.most > 32 {
		t.Errorf("%d calls in flight, allowed are 32", b.most)
	}
	for id, reason := range dead {
		want := "status_4xx"
		if !strings.HasSuffix(id, "77") {
			want = "max_attempts"
		}
		if reason != want {
			t.Errorf("job %s is dead for %q, want %q", id, reason, want)
		}
		if d.isDone(id) {
			t.Errorf("job %s is done and dead", id)
		}
	}
	if rejected := jobs / 100; len(dead) < rejected {
		t.Errorf("%d dead letters, want at least the %d rejected ones", len(dead), rejected)
	}
	// The ledger and the metrics tell the same story.
	for series, want := range map[string]float64{
		`workerd_jobs_completed_total outcome="ok"`:                   float64(b.done),
		`workerd_jobs_completed_total outcome="dead"`:                 float64(len(dead)),
		`workerd_jobs_dead_lettered_total reason="status_4xx"`:        float64(jobs / 100),
		`workerd_target_attempts_total target="mail"`:                 float64(b.total),
		`workerd_pool_in_flight pool="mail"`:                          0,
		`workerd_jobs_completed_total outcome="released"`:             0,
		`workerd_jobs_dead_lettered_total reason="response_size"`:     0,
		`workerd_jobs_dead_lettered_total reason="dead_letter_stuck"`: 0,
	} {
		name, label, _ := strings.Cut(series, " ")
		await(t, 5*time.Second, series, func() bool { return w.metric(name, label) == want })
	}
	w.signal(syscall.SIGTERM)
	if code, _ := w.wait(10 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestSIGTERM_runningJobsFinish_waitingOnesGoToTheNextProcessAtOnce(t *testing.T) {
	const takes = 2 * time.Second
	n := startNATS(t)
	d := startDownstream(t, func(r *http.Request) int { return after(r, takes, http.StatusOK) })
	c := connect(t, n)
	ids := c.publish("jobs.mail.x", "job", 150)
	cfg := configure(n, 10*time.Second, lane{name: "mail", url: d.url, pool: "concurrency: 100, prefetch: 50"})
	first := startWorker(t, cfg)
	await(t, 10*time.Second, "100 calls are in flight", func() bool { return d.books().inFlight == 100 })
	second := startWorker(t, cfg) // finds nothing: the first holds all
	first.signal(syscall.SIGTERM)
	began := time.Now()
	await(t, 5*time.Second, "the second process runs what the first had not started", func() bool { return d.books().total >= 150 })
	if took := time.Since(began); took > time.Second {
		t.Errorf("unstarted jobs reached the second process after %s, want at most 1s", took)
	}
	if code, _ := first.wait(takes + time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if took := time.Since(began); took > takes+time.Second {
		t.Errorf("drain took %s, want at most the job time + 1s", took)
	}
	c.awaitEmpty(10 * time.Second)
	reconcile(t, ids, d, nil)
	if b := d.books(); b.aborted != 0 || b.twice != 0 || b.total != 150 {
		t.Errorf("calls %d, aborted %d, done twice %d; want 150, 0, 0", b.total, b.aborted, b.twice)
	}
	second.signal(syscall.SIGTERM)
	if code, _ := second.wait(5 * time.Second); code != 0 {
		t.Errorf("exit code of the second %d, want 0", code)
	}
}

func TestSIGTERM_jobsLongerThanTheTimeoutAreInterruptedAndHandedBack(t *testing.T) {
	n := startNATS(t)
	var quick atomic.Bool
	d := startDownstream(t, func(r *http.Request) int {
		if quick.Load() {
			return http.StatusOK
		}
		return after(r, time.Minute, http.StatusOK)
	})
	c := connect(t, n)
	ids := c.publish("jobs.mail.x", "job", 10)
	cfg := configure(n, 4*time.Second, lane{name: "mail", url: d.url, timeout: time.Minute})
	w := startWorker(t, cfg)
	await(t, 10*time.Second, "10 calls are in flight", func() bool { return d.books().inFlight == 10 })
	w.signal(syscall.SIGTERM)
	code, took := w.wait(6 * time.Second)
	if code != 75 {
		t.Errorf("exit code %d, want 75: jobs were interrupted", code)
	}
	if took > 5*time.Second {
		t.Errorf("drain took %s, want at most its timeout of 4s + 1s", took)
	}
	quick.Store(true)
	began := time.Now()
	startWorker(t, cfg)
	c.awaitEmpty(5 * time.Second)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("interrupted jobs came back after %s", took)
	}
	reconcile(t, ids, d, c.deadLetters())
}

func TestSecondSignal_hurriesTheDrain(t *testing.T) {
	n := startNATS(t)
	d := startDownstream(t, func(r *http.Request) int { return after(r, time.Minute, http.StatusOK) })
	c := connect(t, n)
	c.publish("jobs.mail.x", "job", 5)
	w := startWorker(t, configure(n, 50*time.Second, lane{name: "mail", url: d.url, timeout: time.Minute}))
	await(t, 10*time.Second, "5 calls are in flight", func() bool { return d.books().inFlight == 5 })
	w.signal(syscall.SIGTERM)
	await(t, 5*time.Second, "readiness is off", func() bool { s, _ := w.get("/readyz"); return s == http.StatusServiceUnavailable })
	w.signal(syscall.SIGTERM)
	if code, took := w.wait(6 * time.Second); code != 75 || took > 5*time.Second {
		t.Errorf("exit code %d after %s, want 75 within 5s", code, took)
	}
	if left := c.left(); left != 5 {
		t.Errorf("%d jobs in the stream, want all 5", left)
	}
}

func TestThirdSignal_endsAtOnce(t *testing.T) {
	n := startNATS(t)
	d := startDownstream(t, func(r *http.Request) int { return after(r, time.Second, http.StatusOK) })
	c := connect(t, n)
	c.publish("jobs.mail.x", "job", 1)
	w := startWorker(t, configure(n, 50*time.Second, lane{name: "mail", url: d.url}))
	await(t, 10*time.Second, "the job runs", func() bool { return d.books().inFlight == 1 })
	n.kill()
	// Without a broker the ack is never confirmed: the flush would take its time.
	await(t, 10*time.Second, "the job is done", func() bool { return d.books().done == 1 })
	w.signal(syscall.SIGTERM)
	await(t, 5*time.Second, "the acks are being flushed", func() bool {
		return w.metric("workerd_shutdown_phase", `phase="flush"`) == 1
	})
	w.signal(syscall.SIGTERM)
	// Of two equal signals at once the system may deliver one.
	await(t, 5*time.Second, "the second signal has been taken", func() bool {
		return strings.Contains(w.stderr.String(), "hurrying")
	})
	w.signal(syscall.SIGTERM)
	if _, took := w.wait(5 * time.Second); took > time.Second {
		t.Errorf("workerd ended %s after the third signal", took)
	}
	if s := w.cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGTERM {
		t.Errorf("workerd ended with %v, want death by SIGTERM", w.cmd.ProcessState)
	}
}

func TestSIGKILL_losesNothing(t *testing.T) {
	n := startNATS(t)
	d := startDownstream(t, func(r *http.Request) int { return after(r, 20*time.Millisecond, http.StatusOK) })
	c := connect(t, n)
	ids := c.publish("jobs.mail.x", "job", 3000)
	cfg := configure(n, 10*time.Second, lane{name: "mail", url: d.url, pool: "concurrency: 32, ack_wait: 2s"})
	for killed := range 3 {
		w := startWorker(t, cfg)
		await(t, 20*time.Second, "work goes on", func() bool { return d.books().done >= (killed+1)*400 })
		w.signal(syscall.SIGKILL)
		w.wait(5 * time.Second)
	}
	startWorker(t, cfg)
	c.awaitEmpty(60 * time.Second)
	reconcile(t, ids, d, c.deadLetters())
	// A kill may repeat what was in flight, and what was done but not yet confirmed.
	if b := d.books(); b.twice > 3*2*32 {
		t.Errorf("%d jobs done twice, want at most those in flight at three kills", b.twice)
	}
}

func TestAttempts_areCountedOverRestarts(t *testing.T) {
	n := startNATS(t)
	d := startDownstream(t, func(*http.Request) int { return http.StatusInternalServerError })
	c := connect(t, n)
	c.publish("jobs.mail.x", "job", 1)
	cfg := configure(n, 5*time.Second, lane{
		name: "mail", url: d.url, target: "retry: {max_attempts: 1}, breaker: {consecutive_failures: -1}",
		pool: "redelivery: {max_attempts: 3, initial_backoff: 700ms, multiplier: 1, max_backoff: 700ms}",
	})
	for calls := 1; calls <= 3; calls++ {
		w := startWorker(t, cfg)
		await(t, 10*time.Second, "the job is tried once", func() bool { return d.books().total == calls })
		if calls == 3 {
			await(t, 10*time.Second, "the job is given up", func() bool { return len(c.deadLetters()) == 1 })
		}
		w.signal(syscall.SIGTERM)
		if code, _ := w.wait(5 * time.Second); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
	}
	if dead := c.deadLetters(); dead["job-0"] != "max_attempts" || d.books().total != 3 {
		t.Errorf("dead letters %v after %d calls, want max_attempts after 3", dead, d.books().total)
	}
}

func TestPoison_aJobThatKillsItsWorkerIsNotRunForEver(t *testing.T) {
	n := startNATS(t)
	d := startDownstream(t, func(r *http.Request) int {
		if r.Header.Get("Workerd-Job-Id") == "killer-0" {
			<-r.Context().Done()
			return 0
		}
		return http.StatusOK
	})
	c := connect(t, n)
	c.publish("jobs.mail.x", "killer", 1)
	cfg := configure(n, 5*time.Second, lane{name: "mail", url: d.url, timeout: time.Minute, pool: "ack_wait: 1s, redelivery: {max_crashes: 3}"})
	for deaths := 1; deaths <= 3; deaths++ {
		w := startWorker(t, cfg)
		await(t, 10*time.Second, "the job runs", func() bool { return d.books().total == deaths })
		w.signal(syscall.SIGKILL)
		w.wait(5 * time.Second)
	}
	startWorker(t, cfg)
	others := c.publish("jobs.mail.x", "other", 20)
	await(t, 10*time.Second, "the job is given up", func() bool { return len(c.deadLetters()) == 1 })
	c.awaitEmpty(10 * time.Second)
	if dead := c.deadLetters(); dead["killer-0"] != "poison" {
		t.Errorf("dead letters %v, want killer-0 as poison", dead)
	}
	reconcile(t, others, d, nil)
	if calls := d.books().total; calls != 3+20 {
		t.Errorf("%d calls, want 3 of the killer and 20 others", calls)
	}
}

func TestOutage_nothingIsDeadLetteredAndOnlyProbesAreSpent(t *testing.T) {
	for _, kind := range []string{"503", "refused", "hanging"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			outage(t, kind)
		})
	}
}

// outage runs 500 jobs per second through a target that is away for 15 s.
func outage(t *testing.T, kind string) {
	const concurrency, rate = 50, 500
	n := startNATS(t)
	d := startDownstream(t, ok)
	c := connect(t, n)
	w := startWorker(t, configure(n, 10*time.Second, lane{
		name: "mail", url: d.url, timeout: 2 * time.Second,
		pool:   fmt.Sprintf("concurrency: %d, redelivery: {initial_backoff: 500ms, max_backoff: 2s}", concurrency),
		target: "breaker: {open_for: 1s, max_open_for: 4s}",
	}))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	published := make(chan []string, 1)
	var publisher sync.WaitGroup
	defer publisher.Wait()
	publisher.Go(func() { published <- c.pace(ctx, "jobs.mail.x", "job", rate) })
	await(t, 10*time.Second, "work flows", func() bool { return d.books().done > rate })

	switch kind {
	case "503":
		d.behave(func(*http.Request) int { return http.StatusServiceUnavailable })
	case "refused":
		d.close()
	case "hanging":
		d.behave(func(r *http.Request) int { <-r.Context().Done(); return 0 })
	}
	before := d.books().total
	hold(t, 15*time.Second)
	calls := d.books().total - before
	if kind == "refused" { // they did not get there
		const tries = "workerd_target_attempts_total"
		calls = int(w.metric(tries) - w.metric(tries, `result="ok"`))
	}
	// To trip: what was in flight or had started by the first failures. Then at
	// most 3 probes each 1, 2, 4, 4... seconds, less the jitter of a fifth.
	const toTrip, probes = 2*concurrency + 20, 3 * 8
	if calls > toTrip+probes {
		t.Errorf("%d calls during the outage, want at most %d to trip and %d probes", calls, toTrip, probes)
	}
	if s, why := w.get("/api/v1/status"); s != http.StatusOK || !strings.Contains(why, "breaker") {
		t.Errorf("status does not tell of the breaker: %d %.300s", s, why)
	}
	d.behave(ok)
	if kind == "refused" {
		d.listen(t, d.addr)
	}
	hold(t, 2*time.Second)
	stop()
	ids := <-published
	c.awaitEmpty(40 * time.Second)
	dead := c.deadLetters()
	if len(dead) != 0 {
		t.Errorf("%d dead letters after a mere outage: %v", len(dead), dead)
	}
	reconcile(t, ids, d, dead)
	if b := d.books(); b.most > concurrency {
		t.Errorf("%d calls in flight, allowed are %d", b.most, concurrency)
	}
	t.Logf("%s: %d jobs, %d calls in the outage", kind, len(ids), calls)
}

func TestThrottled_aTargetThatAsksForTimeIsLeftAlone(t *testing.T) {
	t.Parallel() // it mostly waits
	const concurrency = 16
	n := startNATS(t)
	d := startDownstream(t, ok)
	d.retryAfter = "2"
	d.behave(func(*http.Request) int { return http.StatusTooManyRequests })
	c := connect(t, n)
	ids := c.publish("jobs.mail.x", "job", 500)
	w := startWorker(t, configure(n, 5*time.Second, lane{
		name: "mail", url: d.url, pool: fmt.Sprintf("concurrency: %d", concurrency), target: "breaker: {throttled: ignore}, retry: {max_attempts: 1}",
	}))
	await(t, 10*time.Second, "the pool says why it waits", func() bool {
		_, status := w.get("/api/v1/status")
		return strings.Contains(status, "mail has asked for time (Retry-After)")
	})
	hold(t, 5*time.Second)
	// At the start, and each time when two seconds are over.
	if calls := d.books().total; calls > 4*concurrency {
		t.Errorf("%d calls in 5s to a target that asks for 2s each time, want at most %d", calls, 4*concurrency)
	}
	d.behave(ok)
	c.awaitEmpty(20 * time.Second)
	reconcile(t, ids, d, c.deadLetters())
}

// hold lets time pass in the other processes.
func hold(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

func TestIsolation_aHangingTargetDoesNotStarveTheOtherPool(t *testing.T) {
	n := startNATS(t)
	hanging := startDownstream(t, func(r *http.Request) int { <-r.Context().Done(); return 0 })
	well := startDownstream(t, func(r *http.Request) int { return after(r, 5*time.Millisecond, http.StatusOK) })
	c := connect(t, n)
	c.publish("jobs.pdf.x", "pdf", 500)
	ids := c.publish("jobs.mail.x", "mail", 4000)
	startWorker(t, configure(n, 3*time.Second,
		lane{name: "mail", url: well.url, pool: "concurrency: 20"},
		lane{name: "pdf", url: hanging.url, pool: "concurrency: 20"}))
	await(t, 30*time.Second, "the pool with the healthy target finishes", func() bool { return well.books().done == 4000 })
	reconcile(t, ids, well, nil)
	if b := hanging.books(); b.done != 0 || b.most > 20 {
		t.Errorf("hanging target: %d done, %d at once", b.done, b.most)
	}
}

func TestOverload_highPrioritiesAreDoneInTimeAndLowOnesWaitInTheStream(t *testing.T) {
	// Capacity is 20 / 20 ms = 1000 jobs per second; 3000 are offered.
	const concurrency, takes, rate, seconds = 20, 20 * time.Millisecond, 3000, 3
	n := startNATS(t)
	d := startDownstream(t, func(r *http.Request) int { return after(r, takes, http.StatusOK) })
	c := connect(t, n)
	startWorker(t, configure(n, 10*time.Second, lane{
		name: "mail", url: d.url,
		pool: fmt.Sprintf("concurrency: %d, subjects: {high: [jobs.high.>], low: [jobs.low.>]}", concurrency),
	}))
	published := map[string]time.Time{}
	var high, low []string
	began := time.Now()
	tick := time.NewTicker(time.Second / 50)
	defer tick.Stop()
	for i := range 50 * seconds {
		<-tick.C
		high = append(high, c.publish("jobs.high.x", fmt.Sprintf("high-%d", i), rate/50/5)...)
		for _, id := range high[len(high)-rate/50/5:] {
			published[id] = time.Now()
		}
		low = append(low, c.publish("jobs.low.x", fmt.Sprintf("low-%d", i), rate/50*4/5)...)
	}
	storm := time.Since(began)
	waiting := c.left()
	await(t, 5*time.Second, "the last high jobs are done", func() bool { return d.isDone(high[len(high)-1]) })
	late := 0
	d.mu.Lock()
	for id, at := range published {
		if end, ok := d.doneAt[id]; !ok || end.Sub(at) > time.Second {
			late++
		}
	}
	d.mu.Unlock()
	if late > len(high)/100 {
		t.Errorf("%d of %d high jobs took more than 1s", late, len(high))
	}
	if waiting < len(low)/4 {
		t.Errorf("only %d jobs wait in the stream after %s of overload: there was none", waiting, storm)
	}
	c.awaitEmpty(60 * time.Second)
	reconcile(t, append(high, low...), d, c.deadLetters())
	if b := d.books(); b.twice != 0 || b.most > concurrency {
		t.Errorf("%d done twice, %d at once", b.twice, b.most)
	}
}

func TestBrokerKilledUnderLoad_workResumesAndNothingIsLost(t *testing.T) {
	n := startNATS(t)
	d := startDownstream(t, func(r *http.Request) int { return after(r, 20*time.Millisecond, http.StatusOK) })
	c := connect(t, n)
	w := startWorker(t, configure(n, 10*time.Second, lane{name: "mail", url: d.url, pool: "concurrency: 32, ack_wait: 5s"}))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	published := make(chan []string, 1)
	var publisher sync.WaitGroup
	defer publisher.Wait()
	publisher.Go(func() { published <- c.pace(ctx, "jobs.mail.x", "job", 300) })
	for kills := range 3 {
		await(t, 30*time.Second, "work flows", func() bool { return d.books().done > (kills+1)*300 })
		n.kill()
		await(t, 15*time.Second, "the worker notices", func() bool { return w.metric("workerd_nats_connected") == 0 })
		n.start()
	}
	await(t, 15*time.Second, "work resumes", func() bool { return w.metric("workerd_nats_connected") == 1 })
	hold(t, time.Second)
	stop()
	ids := <-published
	c.awaitEmpty(30 * time.Second)
	reconcile(t, ids, d, c.deadLetters())
	w.signal(syscall.SIGTERM)
	if code, _ := w.wait(10 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	t.Logf("%d jobs, %d done twice after three kills of a single broker", len(ids), d.books().twice)
}

func TestBrokerDownAtStart_workerWaitsForIt(t *testing.T) {
	n := startNATS(t)
	c := connect(t, n)
	ids := c.publish("jobs.mail.x", "job", 5)
	n.kill()
	d := startDownstream(t, ok)
	w := launch(t, configure(n, 5*time.Second, lane{name: "mail", url: d.url}))
	await(t, 10*time.Second, "it says that it is not ready", func() bool {
		status, body := w.get("/readyz?verbose")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "[-]nats")
	})
	if status, _ := w.get("/livez"); status != http.StatusOK {
		t.Errorf("/livez answers %d without a broker, want 200", status)
	}
	n.start()
	w.awaitReady()
	c.awaitEmpty(15 * time.Second)
	reconcile(t, ids, d, nil)
}

func TestBrokerDownAtSIGTERM_drainEndsInTime(t *testing.T) {
	n := startNATS(t)
	connect(t, n)
	d := startDownstream(t, ok)
	w := startWorker(t, configure(n, 4*time.Second, lane{name: "mail", url: d.url}))
	n.kill()
	w.signal(syscall.SIGTERM)
	if _, took := w.wait(6 * time.Second); took > 5*time.Second {
		t.Errorf("drain took %s without a broker, want at most its timeout + 1s", took)
	}
}
