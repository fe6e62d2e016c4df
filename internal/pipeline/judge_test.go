package pipeline

import (
	"errors"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/retry"
)

func rules() Rules {
	return Rules{
		MaxAttempts: 3, MaxDeferrals: 5, MaxCrashes: 2, MaxAge: time.Hour,
		Backoff: retry.Policy{Initial: 10 * time.Second, Max: time.Minute, Multiplier: 3},
	}
}

func TestJudge_whoPays(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	boom := errors.New("boom")
	result := func(c job.Class, r job.Reason) job.Result { return job.Result{Class: c, Reason: r, Err: boom} }
	throttled := result(job.Throttled, job.StatusThrottled)
	throttled.RetryAfter = 42 * time.Second
	refused := result(job.Rejected, job.BreakerOpen)
	refused.RetryAfter = 7 * time.Second
	for _, c := range []struct {
		name    string
		attempt Attempt
		action  job.Action
		reason  job.Reason
		after   time.Duration
		charged bool
	}{
		{"success", Attempt{Last: job.Result{Class: job.Success}}, job.Done, job.OK, 0, false},
		{"failure", Attempt{Last: result(job.Failure, job.Status5xx)}, job.Retry, job.Status5xx, 10 * time.Second, true},
		{"second failure", Attempt{Last: result(job.Failure, job.Status5xx), Before: job.Record{Attempts: 1}}, job.Retry, job.Status5xx, 30 * time.Second, true},
		{"last failure", Attempt{Last: result(job.Failure, job.Status5xx), Before: job.Record{Attempts: 2}}, job.DeadLetter, job.MaxAttempts, 0, true},
		{"last failure, of a probe", Attempt{Last: result(job.Failure, job.Status5xx), Probe: true, Before: job.Record{Attempts: 2}}, job.Defer, job.Status5xx, 60 * time.Second, false},
		{"earlier failure, of a probe", Attempt{Last: result(job.Failure, job.Status5xx), Probe: true, Before: job.Record{Attempts: 1}}, job.Retry, job.Status5xx, 30 * time.Second, true},
		{"last conflict, of a probe", Attempt{Last: result(job.Neutral, job.Status4xx), Probe: true, Before: job.Record{Attempts: 2}}, job.DeadLetter, job.MaxAttempts, 0, true},
		{"too old, of a probe", Attempt{Last: result(job.Failure, job.Status5xx), Probe: true, Before: job.Record{Attempts: 2}, Enqueued: now.Add(-time.Hour)}, job.DeadLetter, job.MaxAge, 0, true},
		{"deferrals do not count", Attempt{Last: result(job.Failure, job.Status5xx), Before: job.Record{Deferrals: 99}}, job.Retry, job.Status5xx, 10 * time.Second, true},
		{"too old", Attempt{Last: result(job.Failure, job.Status5xx), Enqueued: now.Add(-time.Hour)}, job.DeadLetter, job.MaxAge, 0, true},
		{"timeout", Attempt{Last: result(job.Timeout, job.TimedOut)}, job.Retry, job.TimedOut, 10 * time.Second, true},
		{"the wait asked for is kept", Attempt{Last: result(job.Failure, job.Status5xx), Rest: 50 * time.Second}, job.Retry, job.Status5xx, 50 * time.Second, true},
		{"neutral", Attempt{Last: result(job.Neutral, job.Status4xx)}, job.Retry, job.Status4xx, 10 * time.Second, true},
		{"permanent", Attempt{Last: result(job.Permanent, job.Status4xx)}, job.DeadLetter, job.Status4xx, 0, true},
		{"dropped by the target", Attempt{Last: result(job.Permanent, job.Dropped)}, job.Drop, job.Dropped, 0, false},
		{"throttled", Attempt{Last: throttled}, job.Defer, job.StatusThrottled, 42 * time.Second, false},
		{"throttled for ever", Attempt{Last: throttled, Before: job.Record{Deferrals: 4}}, job.DeadLetter, job.MaxDeferrals, 0, false},
		{"breaker open", Attempt{Last: refused}, job.Park, job.BreakerOpen, 7 * time.Second, false},
		{"breaker opened between tries", Attempt{Last: result(job.Failure, job.Status5xx), Stop: retry.Open, Rest: 5 * time.Second}, job.Retry, job.Status5xx, 10 * time.Second, true},
		{"panic", Attempt{Last: result(job.Panicked, job.PanicReason)}, job.Retry, job.PanicReason, 10 * time.Second, true},
		{"second panic", Attempt{Last: result(job.Panicked, job.PanicReason), Before: job.Record{Attempts: 1, Panics: 1}}, job.DeadLetter, job.Poison, 0, true},
		{"interrupted", Attempt{Last: result(job.Ignored, job.Interrupted), Cause: job.ErrInterrupted}, job.Release, job.Interrupted, 0, false},
		{"lease lost", Attempt{Last: result(job.Ignored, job.LeaseLost), Cause: job.ErrLeaseLost}, job.Release, job.LeaseLost, 0, false},
		{"job timeout in a call", Attempt{Last: result(job.Ignored, job.TimedOut), Cause: job.ErrJobTimeout}, job.Retry, job.TimedOut, 10 * time.Second, true},
		{"job timeout in a wait", Attempt{Last: result(job.Failure, job.Status5xx), Stop: retry.Cancelled, Cause: job.ErrJobTimeout}, job.Retry, job.Status5xx, 10 * time.Second, true},
		{"drain during a wait", Attempt{Last: result(job.Failure, job.Status5xx), Stop: retry.Draining, Rest: 3 * time.Second}, job.Defer, job.Released, 3 * time.Second, false},
		{"interrupted during a wait", Attempt{Last: result(job.Failure, job.Status5xx), Stop: retry.Cancelled, Rest: time.Second, Cause: job.ErrInterrupted}, job.Defer, job.Released, time.Second, false},
		{"interrupted after draining had ended its wait", Attempt{Last: result(job.Failure, job.Status5xx), Stop: retry.Draining, Rest: time.Second, Cause: job.ErrInterrupted}, job.Defer, job.Released, time.Second, false},
		{"interrupted at the end of a wait", Attempt{Last: result(job.Failure, job.Status5xx), Stop: retry.Cancelled, Cause: job.ErrInterrupted}, job.Release, job.Interrupted, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.attempt.Enqueued.IsZero() {
				c.attempt.Enqueued = now
			}
			got := rules().Judge(c.attempt, now, 0)
			if got.Action != c.action || got.Reason != c.reason || got.After != c.after || got.Charged != c.charged {
				t.Errorf("got %v %v after %v charged %v, want %v %v after %v charged %v",
					got.Action, got.Reason, got.After, got.Charged, c.action, c.reason, c.after, c.charged)
			}
			if got.Action != job.Done && got.Err == nil {
				t.Error("the outcome does not say what went wrong")
			}
		})
	}
}

func TestRefuse_expiredAndUnreadableJobsAreNeverRun(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	fresh := job.Job{Enqueued: now}
	for _, c := range []struct {
		name   string
		change func(*job.Job)
		drop   bool
		action job.Action
		reason job.Reason
	}{
		{"unreadable", func(j *job.Job) { j.Invalid = errors.New("x") }, false, job.DeadLetter, job.Decode},
		{"expired", func(j *job.Job) { j.Deadline = now.Add(-1) }, false, job.DeadLetter, job.Expired},
		{"expired, dropped by policy", func(j *job.Job) { j.Deadline = now.Add(-1) }, true, job.Drop, job.Expired},
		{"too old", func(j *job.Job) { j.Enqueued = now.Add(-2 * time.Hour) }, false, job.DeadLetter, job.MaxAge},
	} {
		j, r := fresh, rules()
		c.change(&j)
		r.DropExpired = c.drop
		out, stop := r.Refuse(&j, job.Record{}, now)
		if !stop || out.Action != c.action || out.Reason != c.reason || out.Charged {
			t.Errorf("%s: got %+v, %v", c.name, out, stop)
		}
	}
	killer := job.Job{Enqueued: now, Deliveries: 3}
	if out, stop := rules().Refuse(&killer, job.Record{Started: 2}, now); !stop || out.Reason != job.Poison || out.Charged {
		t.Errorf("a job that killed two workers: %+v, %v", out, stop)
	}
	if out, stop := rules().Refuse(&killer, job.Record{Started: 1}, now); stop {
		t.Errorf("a job that is suspected once: %+v", out)
	}
	if out, stop := rules().Refuse(&fresh, job.Record{}, now); stop {
		t.Errorf("a fresh job was refused: %+v", out)
	}
}
