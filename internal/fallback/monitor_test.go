package fallback_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/job"
)

func good() job.Result { return job.Result{Class: job.Success, Reason: job.OK} }
func bad() job.Result  { return job.Result{Class: job.Failure, Reason: job.Status5xx} }

// byDefault are the steps of a fallback that is a fixed reply.
func byDefault() []fallback.Step {
	return []fallback.Step{fallback.Step{Reply: &fallback.Reply{}}.WithDefaults()}
}

// monitored is a switch that a monitor turns.
func monitored(w fallback.When) (*fallback.Monitor, *fallback.Switch) {
	s := fallback.NewSwitch()
	return fallback.NewMonitor(w.WithDefaults(), byDefault(), s), s
}

func TestMonitor_healthChecksTurnItOnAndOff(t *testing.T) {
	m, s := monitored(fallback.When{Unhealthy: 3})
	for i, c := range []struct {
		r  job.Result
		on bool
	}{
		{bad(), false},
		{bad(), false},
		{good(), false}, // in a row is meant
		{bad(), false},
		{job.Result{Class: job.Ignored}, false},
		{bad(), false},
		{bad(), true},
		{good(), true},
		{bad(), true}, // one lucky answer is not health
		{good(), true},
		{good(), false},
		{good(), false},
		{bad(), false},
		{bad(), false},
		{bad(), true},
	} {
		now := at(time.Duration(i) * time.Second)
		m.Checked(now, c.r)
		if got := s.State(now); got.On != c.on || got.On && (got.By != fallback.ByHealth || !strings.Contains(got.Note, "status_5xx")) {
			t.Errorf("after check %d: %+v, want on: %v", i, got, c.on)
		}
	}
	m.Reset()
	if s.State(at(time.Minute)).On {
		t.Error("still on after it was reset")
	}
	if m.Checked(at(time.Minute), bad()); s.State(at(time.Minute)).On {
		t.Error("on again after one check: what was before the reset counted")
	}
}

func TestMonitor_rateOfFallbacksTurnsItOnForATime(t *testing.T) {
	m, s := monitored(fallback.When{FallbackRate: 0.5, MinJobs: 10, Window: 10 * time.Second, For: 30 * time.Second})
	play := func(from time.Duration, results ...job.Result) fallback.State {
		for i, r := range results {
			m.Job(at(from+time.Duration(i)*time.Millisecond), r)
		}
		return s.State(at(from + time.Duration(len(results))*time.Millisecond))
	}
	permanent := job.Result{Class: job.Permanent, Reason: job.Status4xx}
	neutral := job.Result{Class: job.Neutral}
	if got := play(0, bad(), bad(), bad(), bad(), good(), permanent, permanent, permanent, neutral, good()); got.On {
		t.Errorf("%+v: 4 of 10 needed the fallback", got)
	}
	if got := play(20*time.Second, bad(), bad(), bad(), bad(), bad(), bad(), bad(), bad(), bad()); got.On {
		t.Errorf("%+v: 9 jobs are not enough, those before are too long ago", got)
	}
	want := fallback.State{On: true, By: fallback.ByRate, Since: at(21 * time.Second), Until: at(51 * time.Second), Note: "9 of 10 jobs within 10s needed the fallback"}
	if got := play(21*time.Second, good()); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	late := []job.Result{bad(), bad(), bad(), bad(), bad(), bad(), bad(), bad(), bad(), bad(), bad()}
	if got := play(49*time.Second, late...); got != want {
		t.Errorf("what was under way made it longer: %+v", got)
	}
	if got := play(51*time.Second, late[:9]...); got.On {
		t.Errorf("on again after 9 jobs: %+v", got)
	}
	if got := play(52*time.Second, bad()); !got.On {
		t.Errorf("off though all of 10 jobs needed the fallback: %+v", got)
	}
}

// TestMonitor_hidesNoOutageForEver: whatever was seen before, a target that is
// well is called again once so many checks say so and the time of the rate is
// over; and one that is not, never longer than For without its health checks
// being the reason.
func TestMonitor_hidesNoOutageForEver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := fallback.When{
			Unhealthy: rapid.IntRange(0, 4).Draw(t, "unhealthy"), Healthy: rapid.IntRange(1, 4).Draw(t, "healthy"),
			FallbackRate: rapid.Float64Range(0.01, 1).Draw(t, "rate"), MinJobs: rapid.IntRange(1, 30).Draw(t, "jobs"),
			Window: time.Duration(rapid.IntRange(1000, 60_000).Draw(t, "window")) * time.Millisecond, For: 30 * time.Second,
		}.WithDefaults()
		w.Validate(func(field, message string) { t.Fatalf("%s: %s", field, message) })
		m, s := monitored(w)
		now, badInARow := at(0), 0
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			r := rapid.SampledFrom([]job.Result{good(), bad()}).Draw(t, "result")
			if !rapid.Bool().Draw(t, "check") {
				m.Job(now, r)
			} else if m.Checked(now, r); r.Class == job.Success {
				badInARow = 0
			} else {
				badInARow++
			}
			got := s.State(now)
			if w.Unhealthy > 0 && badInARow >= w.Unhealthy && !got.On {
				t.Fatalf("called after %d bad checks: %+v", badInARow, got)
			}
			if got.On && got.By == fallback.ByRate && got.Until.Sub(now) > w.For {
				t.Fatalf("for longer than %s: %+v", w.For, got)
			}
		}
		for range w.Healthy {
			m.Checked(now, good())
		}
		if got := s.State(now.Add(w.For)); got.On {
			t.Fatalf("well, and still not called: %+v", got)
		}
	})
}

func TestWhen_everyProblemIsReported(t *testing.T) {
	for _, c := range []struct {
		when fallback.When
		want string
	}{
		{fallback.When{Unhealthy: 3}, ""},
		{fallback.When{FallbackRate: 0.5}, ""},
		{fallback.When{}, " "},
		{fallback.When{Unhealthy: -1, Healthy: 101}, "unhealthy healthy "},
		{fallback.When{Unhealthy: 1, Interval: time.Millisecond}, "interval "},
		{fallback.When{FallbackRate: math.NaN()}, "fallback_rate "},
		{fallback.When{FallbackRate: 1.5, MinJobs: -1, Window: time.Millisecond, For: 2 * time.Hour}, "fallback_rate min_jobs window for "},
	} {
		got := ""
		c.when.WithDefaults().Validate(func(field, message string) {
			got += field + " "
			if message == "" {
				t.Errorf("%+v: a problem without words", c.when)
			}
		})
		if got != c.want {
			t.Errorf("%+v: problems %q, want %q", c.when, got, c.want)
		}
	}
}

// checker asks a target whose answers are given, each after a second.
func checker(m *fallback.Monitor, answers ...func(context.Context) job.Result) (c *fallback.Checker, asked *[]time.Duration) {
	asked = new([]time.Duration)
	began := time.Now()
	return &fallback.Checker{
		Interval: 10 * time.Second, Timeout: 2 * time.Second, Monitor: m, OnCheck: func(job.Result, time.Duration) {},
		Ask: func(ctx context.Context) job.Result {
			*asked = append(*asked, time.Since(began))
			if len(answers) == 0 {
				<-ctx.Done()
				return job.Result{Class: job.Timeout, Reason: job.TimedOut, Err: context.Cause(ctx)}
			}
			next := answers[0]
			answers = answers[1:]
			return next(ctx)
		},
	}, asked
}

func TestChecker_asksAtItsPaceWhateverBecomesOfACheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := monitored(fallback.When{Unhealthy: 3})
		c, asked := checker(m,
			func(context.Context) job.Result { panic("no") },
			func(context.Context) job.Result {
				return job.Result{Class: job.Failure, Reason: job.StatusThrottled, RetryAfter: time.Minute}
			},
		) // from then on it hangs
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		c.Run(ctx)
		if got := s.State(time.Now()); !got.On || got.By != fallback.ByHealth {
			t.Errorf("%+v after checks that panic, fail and hang", got)
		}
		for i, when := range *asked {
			least, most := 8*time.Second, 10*time.Second
			switch i {
			case 0:
				if when != 0 {
					t.Errorf("the first check after %s", when)
				}
				continue
			case 2: // it has asked for time
				least, most = time.Minute, time.Minute
			}
			if gap := when - (*asked)[i-1]; gap < least || gap > most {
				t.Errorf("check %d came %s after the one before, want %s to %s", i, gap, least, most)
			}
		}
		if n := len(*asked); n < 7 || n > 10 {
			t.Errorf("%d checks in two minutes", n)
		}
	})
}

func TestChecker_theEndOfWorkerdSaysNothingOfTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := monitored(fallback.When{Unhealthy: 1})
		c, _ := checker(m)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errors.New("drain")) })
		c.Run(ctx)
		if got := s.State(time.Now()); got.On {
			t.Errorf("%+v", got)
		}
	})
}
