package pool_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/shed"
)

// sender answers as it is told to, and notes whether the job was settled before.
type sender struct {
	stream *stream
	answer pool.Answer
	err    error
	sent   int
	late   int
}

func (s *sender) Send(_ context.Context, j *job.Job, _ job.Outcome) (pool.Answer, error) {
	s.stream.mu.Lock()
	defer s.stream.mu.Unlock()
	s.sent++
	s.late += len(s.stream.settled[j.ID])
	return s.answer, s.err
}

// tell runs one job with an outcome and returns its report.
func tell(t *testing.T, out job.Outcome, s *sender) (got pool.Report) {
	t.Helper()
	s.stream = newStream(job.Normal, 1)
	deps := pool.Deps{
		Lanes: []pool.Lane{{
			Handler:     &handler{do: func(context.Context, *job.Job, job.Record) job.Outcome { return out }},
			DeadLetters: &letters{}, Gates: []pool.Gate{newGate()},
		}},
		Ledger: &ledger{records: map[string]job.Record{}}, Results: s,
		Report: func(r pool.Report) { got = r }, Shares: shed.Config{}.WithDefaults().For([]job.Priority{job.Normal}),
	}
	deps.Sources[job.Normal] = s.stream
	fetch, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		pool.New("p", pool.Config{}.WithDefaults(), deps).Run(fetch, context.Background())
		close(done)
	}()
	time.Sleep(time.Second)
	stop()
	<-done
	return got
}

func TestResults_areSentBeforeTheJobIsSettled(t *testing.T) {
	for _, out := range []job.Outcome{
		{Action: job.Done, Reason: job.OK}, {Action: job.Drop, Reason: job.Dropped}, {Action: job.DeadLetter, Reason: job.Status4xx, Err: errors.New("422")},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &sender{answer: pool.Sent}
			got := tell(t, out, s)
			if s.sent != 1 || s.late > 0 || got.Answer != pool.Sent || got.Outcome.Action != out.Action {
				t.Errorf("%s: sent %d, %d of them after the end; %+v", out.Action, s.sent, s.late, got)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := &sender{answer: pool.Sent}
		if got := tell(t, job.Outcome{Action: job.Retry, Reason: job.Status5xx, Charged: true, After: time.Hour, Err: errors.New("503")}, s); s.sent > 0 || got.Answer != "" {
			t.Error("a job that is tried again has no result yet")
		}
	})
}

// TestResults_aJobWhoseResultMustBeSentIsNotDoneBefore, but a dead letter that
// is stored stays one.
func TestResults_aJobWhoseResultMustBeSentIsNotDoneBefore(t *testing.T) {
	for action, want := range map[job.Action]job.Action{job.Done: job.Defer, job.Drop: job.Defer, job.DeadLetter: job.DeadLetter} {
		synctest.Test(t, func(t *testing.T) {
			s := &sender{answer: pool.Unsent, err: errors.New("no answer")}
			got := tell(t, job.Outcome{Action: action, Reason: job.OK, Err: errors.New("e")}, s)
			if got.Outcome.Action != want || got.Outcome.Charged || got.Answer != pool.Unsent {
				t.Errorf("%s: %+v", action, got)
			}
			if want == job.Defer && (got.Outcome.Reason != job.NoResult || s.stream.count("nak 30s") != 1) {
				t.Errorf("%s: %+v, settled %v", action, got.Outcome, s.stream.settled)
			}
		})
	}
}
