package pipeline_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/cache"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/retry"
	"github.com/workerd/workerd/internal/target"
)

// chain is a kit with a fallback, and everything about it that can be watched.
type chain struct {
	*pipeline.Pipeline
	primary, other   *breaker.Breaker
	limits           *limiter.Limiter
	budget           *retry.Budget
	degrade, away    *fallback.Switch // of the target, and of the other
	cache            *cache.Cache
	calls, alternate atomic.Int32
	steps            []pipeline.StepDone
	parked           []string
	parking          error
}

func newChain(call, instead scripted, steps ...fallback.Step) *chain {
	c := &chain{
		primary: breaker.New(breaker.Config{ConsecutiveFailures: 2, OpenFor: 10 * time.Second, OpenJitter: -1}.WithDefaults(), nil),
		other:   breaker.New(breaker.Config{ConsecutiveFailures: 2, OpenFor: 3 * time.Second}.WithDefaults(), nil),
		limits:  limiter.New(limiter.Config{}.WithDefaults(), limiter.Rate{}, 10),
		degrade: fallback.NewSwitch(), away: fallback.NewSwitch(), cache: cache.New(cache.Config{}.WithDefaults()),
	}
	loop := retry.New(retry.Config{MaxAttempts: 1})
	c.budget = loop.Budget
	deps := pipeline.Deps{
		Target: counted{call, &c.calls}, Limiter: c.limits, Breaker: c.primary, Retry: loop, OnTry: func(pipeline.Try) {},
		Degrade: c.degrade, Cache: c.cache, OnStep: func(s pipeline.StepDone) { c.steps = append(c.steps, s) },
		Park: func(_ context.Context, subject string, j pipeline.Job, _ job.Outcome) error {
			if c.parking == nil {
				c.parked = append(c.parked, subject+" "+j.ID)
			}
			return c.parking
		},
	}
	for _, s := range steps {
		step := pipeline.Step{Step: s.WithDefaults()}
		if s.Target != "" {
			step.Lane = &pipeline.Lane{
				Target: counted{instead, &c.alternate}, Limiter: limiter.New(limiter.Config{}.WithDefaults(), limiter.Rate{}, 10),
				Breaker: c.other, Degrade: c.away, Timeout: time.Second, OnTry: func(pipeline.Try) {},
			}
		}
		if step.Reply != nil {
			step.Answer = step.Reply.Answer()
		}
		deps.Fallback = append(deps.Fallback, step)
	}
	c.Pipeline = pipeline.New(pipeline.Config{
		Pool: "p", Target: "t", Timeout: time.Second, JobTimeout: time.Minute, Keep: 1 << 10,
		Rules: pipeline.Rules{MaxAttempts: 3, MaxDeferrals: 100, MaxCrashes: 3, MaxAge: 24 * time.Hour, Backoff: retry.Policy{Initial: 5 * time.Second, Max: time.Minute, Multiplier: 2}},
	}, deps)
	return c
}

type counted struct {
	scripted
	n *atomic.Int32
}

func (c counted) Call(ctx context.Context, r target.Request) job.Result {
	c.n.Add(1)
	return c.scripted(ctx, r)
}

func (c *chain) handle(ctx context.Context, payload string) job.Outcome {
	return c.Handle(ctx, &job.Job{ID: "j", Subject: "jobs.x", Stream: "S", Sequence: 1, Payload: []byte(payload), Enqueued: time.Now()}, job.Record{}, nil)
}

func fails(context.Context, target.Request) job.Result { return broken() }

func answers(body string) scripted {
	return func(_ context.Context, r target.Request) job.Result {
		good := job.Result{Class: job.Success, Reason: job.OK, Status: 200}
		if r.Keep > 0 {
			good.Reply = &job.Reply{Status: 200, Body: []byte(body)}
		}
		return good
	}
}

func TestFallback_alternateDoesTheJobsAndThePrimaryGetsOnlyProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(fails, answers("other"), fallback.Step{Target: "other"})
		for range 100 {
			out := c.handle(t.Context(), "x")
			if out.Action != job.Done || out.Source != "alternate:other" || out.Charged || out.Err == nil || out.Last.Class != job.Success {
				t.Fatalf("got %+v, want done by the other", out)
			}
			time.Sleep(time.Second)
		}
		if got := c.alternate.Load(); got != 100 {
			t.Errorf("the other got %d calls, want 100", got)
		}
		if got := c.calls.Load(); got < 3 || got > 10 {
			t.Errorf("the target got %d calls in 100 s of outage, want two and then a probe per wait", got)
		}
		if s := c.primary.Stats(time.Now()); s.State == breaker.Closed {
			t.Error("the other's successes closed the breaker of the target")
		}
	})
}

func TestFallback_bothDownParksAndChargesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(fails, fails, fallback.Step{Target: "other"})
		for range 2 {
			out := c.handle(t.Context(), "x")
			if out.Action != job.Retry || !out.Charged || out.Source != "" || !strings.HasPrefix(out.Err.Error(), "503 from the target; fallback alternate: 503") {
				t.Errorf("got %+v, want what the target said and then the other", out)
			}
		}
		out := c.handle(t.Context(), "x")
		if out.Action != job.Park || out.Charged || out.Tries != 0 || out.Reason != job.BreakerOpen {
			t.Errorf("got %+v, want parked without a call", out)
		}
		if out.After <= 0 || out.After > 4*time.Second {
			t.Errorf("parked for %s, want until the first of the two may be called again", out.After)
		}
		if c.calls.Load() != 2 || c.alternate.Load() != 2 {
			t.Errorf("%d and %d calls, want 2 each", c.calls.Load(), c.alternate.Load())
		}
	})
}

// TestFallback_oneThatCannotHelpNowIsNotAskedAgainAtOnce: the gate is open for
// it, so a job that was parked would run in circles.
func TestFallback_oneThatCannotHelpNowIsNotAskedAgainAtOnce(t *testing.T) {
	bad := func(context.Context, target.Request) job.Result {
		return job.Result{Class: job.Permanent, Reason: job.Status4xx, Status: 422, Err: errors.New("422")}
	}
	for _, step := range []fallback.Step{{Target: "other"}, {Cache: time.Minute}, {Publish: "parked"}} {
		synctest.Test(t, func(t *testing.T) {
			c := newChain(fails, bad, step)
			c.parking = errors.New("no stream")
			c.degrade.Degrade(fallback.ByOperator, time.Now(), time.Now().Add(10*time.Hour), "")
			out := c.handle(t.Context(), "x")
			if out.Action != job.Defer || out.Charged || out.After < 5*time.Second || out.After > time.Minute || out.Reason != job.Degraded {
				t.Errorf("%s: got %+v, want given back with the backoff, uncharged", step.Kind(), out)
			}
		})
	}
}

func TestFallback_entersForTheCausesItIsMeantForOnly(t *testing.T) {
	boom := errors.New("boom")
	all := map[string]job.Result{
		"failure":   {Class: job.Failure, Reason: job.Status5xx, Err: boom},
		"timeout":   {Class: job.Timeout, Reason: job.TimedOut, Err: boom},
		"throttled": {Class: job.Throttled, Reason: job.StatusThrottled, Err: boom},
		"permanent": {Class: job.Permanent, Reason: job.Status4xx, Err: boom},
		"said dead": {Class: job.Permanent, Reason: job.Disposition, Err: boom},
		"said drop": {Class: job.Permanent, Reason: job.Dropped, Err: boom},
		"neutral":   {Class: job.Neutral, Reason: job.Status4xx, Err: boom},
		"success":   {Class: job.Success, Reason: job.OK},
	}
	for _, c := range []struct {
		on    []fallback.Cause
		wants []string
	}{
		{nil, []string{"failure", "throttled", "timeout"}},
		{[]fallback.Cause{fallback.Timeout}, []string{"timeout"}},
		{fallback.Causes(), []string{"failure", "permanent", "throttled", "timeout"}},
		{[]fallback.Cause{fallback.Open}, nil},
	} {
		var entered []string
		for name, result := range all {
			synctest.Test(t, func(t *testing.T) {
				k := newChain(func(context.Context, target.Request) job.Result { return result }, nil, fallback.Step{Reply: &fallback.Reply{Status: 202}, On: c.on})
				if out := k.handle(t.Context(), "x"); out.Source == job.Static {
					entered = append(entered, name)
				}
			})
		}
		slices.Sort(entered)
		if !slices.Equal(entered, c.wants) {
			t.Errorf("on %v: entered for %v, want %v", c.on, entered, c.wants)
		}
	}
}

func TestFallback_isNotEnteredForAJobThatWasGivenUp(t *testing.T) {
	for _, cause := range []error{job.ErrInterrupted, job.ErrLeaseLost} {
		synctest.Test(t, func(t *testing.T) {
			ctx, end := context.WithCancelCause(t.Context())
			c := newChain(func(ctx context.Context, _ target.Request) job.Result {
				end(cause)
				return broken() // whatever it says: the job is not ours any more
			}, answers(""), fallback.Step{Target: "other"}, fallback.Step{Reply: &fallback.Reply{}})
			if out := c.handle(ctx, "x"); out.Source != "" || out.Action == job.Done || len(c.steps) > 0 {
				t.Errorf("%v: got %+v, steps %v", cause, out, c.steps)
			}
		})
	}
	draining := make(chan struct{})
	close(draining)
	c := newChain(fails, answers(""), fallback.Step{Target: "other"}, fallback.Step{Reply: &fallback.Reply{}})
	out := c.Handle(t.Context(), &job.Job{Enqueued: time.Now()}, job.Record{}, draining)
	if out.Action == job.Done || c.alternate.Load() > 0 || len(c.steps) > 0 {
		t.Errorf("draining: got %+v, steps %v", out, c.steps)
	}
}

// TestFallback_noStepBeginsAfterTheDeadline (found by sim, I7).
func TestFallback_noStepBeginsAfterTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := func(context.Context, target.Request) job.Result {
			time.Sleep(20 * time.Millisecond)
			return broken()
		}
		c := newChain(late, answers("fine"), fallback.Step{Target: "other"}, fallback.Step{Reply: &fallback.Reply{}})
		j := &job.Job{ID: "j", Enqueued: time.Now(), Deadline: time.Now().Add(10 * time.Millisecond)}
		if out := c.Handle(t.Context(), j, job.Record{}, nil); out.Action != job.Retry || c.alternate.Load() != 0 || len(c.steps) != 0 {
			t.Errorf("got %+v after %d calls elsewhere and %v, want the failure of the target", out, c.alternate.Load(), c.steps)
		}
	})
}

func TestFallback_endOfTheJobReachesTheStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancelCause(t.Context())
		c := newChain(fails, func(ctx context.Context, _ target.Request) job.Result {
			end(job.ErrLeaseLost)
			<-ctx.Done()
			return job.Result{Class: job.Ignored, Err: context.Cause(ctx)}
		}, fallback.Step{Target: "other"}, fallback.Step{Reply: &fallback.Reply{}})
		out := c.handle(ctx, "x")
		if out.Action != job.Release || out.Reason != job.LeaseLost || out.Charged {
			t.Errorf("got %+v, want released: the lease is lost", out)
		}
		if s := c.other.Stats(time.Now()); s.Bad != 0 {
			t.Errorf("the other was blamed for our own end: %+v", s)
		}
	})
}

func TestFallback_panicInAStepIsItsFailureOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(fails, func(context.Context, target.Request) job.Result { panic("boom") }, fallback.Step{Target: "other"}, fallback.Step{Publish: "parked.x"})
		for n := range 10 {
			out := c.handle(t.Context(), "x")
			if out.Action != job.Done || out.Source != job.Parked {
				t.Fatalf("%d: got %+v, want parked by the next step", n, out)
			}
		}
		if c.other.Stats(time.Now()).State != breaker.Open {
			t.Error("the other's breaker does not know of the panics: a permit was kept")
		}
		if len(c.parked) != 10 || c.parked[0] != "parked.x j" {
			t.Errorf("parked %v", c.parked)
		}
		if len(c.steps) != 20 || c.steps[0] != (pipeline.StepDone{Kind: fallback.Alternate, Result: fallback.Failed}) || c.steps[18].Result != fallback.Refused {
			t.Errorf("steps %v", c.steps)
		}
	})
}

func TestFallback_deadLetterStepEndsTheJobWithTheReasonOfTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newChain(fails, nil, fallback.Step{Cache: time.Minute}, fallback.Step{DeadLetter: true}).handle(t.Context(), "x")
		if out.Action != job.DeadLetter || out.Reason != job.Status5xx || !out.Charged || !strings.Contains(out.Err.Error(), "503 from the target; fallback cache") {
			t.Errorf("got %+v", out)
		}
	})
}

func TestFallback_cacheGivesTheLastGoodReplyOfTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reply := "first"
		c := newChain(func(ctx context.Context, r target.Request) job.Result {
			if reply == "" {
				return broken()
			}
			return answers(reply)(ctx, r)
		}, answers("of the other"), fallback.Step{Cache: time.Minute}, fallback.Step{Target: "other"})
		for _, reply = range []string{"first", "second", ""} {
			out := c.handle(t.Context(), "x")
			if reply != "" && (out.Source != job.Primary || string(out.Last.Reply.Body) != reply) {
				t.Fatalf("%s: got %+v", reply, out)
			}
			time.Sleep(10 * time.Second)
		}
		out := c.handle(t.Context(), "x")
		if out.Source != job.Cache || string(out.Last.Reply.Body) != "second" || out.Last.Age != 20*time.Second {
			t.Errorf("got %+v, want the second reply, 20 s old", out)
		}
		if out = c.handle(t.Context(), "another payload"); out.Source != "alternate:other" {
			t.Errorf("got %+v: the reply to something else was taken", out)
		}
		time.Sleep(time.Minute)
		if out = c.handle(t.Context(), "x"); out.Source != "alternate:other" {
			t.Errorf("got %+v: a reply older than a minute was taken", out)
		}
		if n := c.cache.Stats().Entries; n != 1 {
			t.Errorf("%d entries: the other's replies were kept", n)
		}
	})
}

func TestFallback_degradeLeadsStraightToItUntilItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(answers("primary"), answers("other"), fallback.Step{Target: "other"})
		wants := func(when string, want job.Source) {
			t.Helper()
			if out := c.handle(t.Context(), "x"); out.Source != want {
				t.Errorf("%s: got %+v, want it done by %s", when, out, want)
			}
		}
		wants("before", job.Primary)
		c.degrade.Degrade(fallback.ByOperator, time.Now(), time.Now().Add(time.Minute), "deploy")
		wants("degraded", "alternate:other")
		time.Sleep(59 * time.Second)
		wants("nearly over", "alternate:other")
		time.Sleep(time.Second)
		wants("over", job.Primary)
		c.degrade.Degrade(fallback.ByOperator, time.Now(), time.Time{}, "")
		time.Sleep(24 * time.Hour)
		wants("until resumed", "alternate:other")
		c.degrade.Resume(fallback.ByOperator)
		wants("resumed", job.Primary)
		if s := c.primary.Stats(time.Now()); s.Rejected > 0 || s.State != breaker.Closed {
			t.Errorf("the breaker had a part in it: %+v", s)
		}
	})
}

// TestFallback_whoIsDegradedIsNeverCalled, neither for its own jobs nor instead
// of another; and a job that nobody can do now is not charged.
func TestFallback_whoIsDegradedIsNeverCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(t *rapid.T) {
			c := newChain(answers("primary"), answers("other"), fallback.Step{Target: "other"})
			by := rapid.SampledFrom([]fallback.By{fallback.ByOperator, fallback.ByHealth, fallback.ByRate})
			turn := func(s *fallback.Switch) {
				if rapid.Bool().Draw(t, "resume") {
					s.Resume(by.Draw(t, "by"))
					return
				}
				from, until := time.Now().Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "from"))*time.Second), time.Time{}
				if rapid.Bool().Draw(t, "ends") {
					until = from.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "lasts")) * time.Second)
				}
				s.Degrade(by.Draw(t, "by"), from, until, "")
			}
			for range rapid.IntRange(1, 40).Draw(t, "steps") {
				turn(rapid.SampledFrom([]*fallback.Switch{c.degrade, c.away}).Draw(t, "switch"))
				time.Sleep(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
				own, other := c.degrade.State(time.Now()).On, c.away.State(time.Now()).On
				calls, alternate := c.calls.Load(), c.alternate.Load()
				out := c.handle(context.Background(), "x")
				calls, alternate = c.calls.Load()-calls, c.alternate.Load()-alternate
				switch {
				case !own && (calls != 1 || alternate != 0 || out.Source != job.Primary):
					t.Fatalf("not degraded: %d calls, %d to the other, %+v", calls, alternate, out)
				case own && !other && (calls != 0 || alternate != 1 || out.Source != "alternate:other"):
					t.Fatalf("degraded: %d calls, %d to the other, %+v", calls, alternate, out)
				case own && other && (calls != 0 || alternate != 0 || out.Action != job.Park || out.Charged):
					t.Fatalf("both degraded: %d calls, %d to the other, %+v", calls, alternate, out)
				}
			}
		})
	})
}

// TestFallback_neverChangesTheGuardsOfTheTarget is invariant 39: with any chain
// whatever becomes of its steps, the breaker, limiter and budget of the target
// are as they were without, and only what the target itself answered is cached.
func TestFallback_neverChangesTheGuardsOfTheTarget(t *testing.T) {
	results := []job.Result{
		{Class: job.Success, Reason: job.OK},
		broken(),
		{Class: job.Timeout, Err: errors.New("t")},
		{Class: job.Permanent, Reason: job.Status4xx, Err: errors.New("p")},
		{Class: job.Throttled, Reason: job.StatusThrottled, Err: errors.New("429")},
		{Class: job.Neutral, Err: errors.New("n")},
	}
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(t *rapid.T) {
			var now, other job.Result
			says := func(r *job.Result) scripted {
				return func(_ context.Context, req target.Request) job.Result {
					if req.Keep > 0 && r.Class == job.Success {
						kept := *r
						kept.Reply = &job.Reply{}
						return kept
					}
					return *r
				}
			}
			kinds := []fallback.Step{{Target: "other"}, {Cache: time.Minute}, {Reply: &fallback.Reply{}, On: fallback.Causes()}, {Publish: "parked"}}
			steps := rapid.Permutation(kinds).Draw(t, "steps")[:rapid.IntRange(1, 4).Draw(t, "n")]
			with, without := newChain(says(&now), says(&other), steps...), newChain(says(&now), nil)
			good := 0
			for range rapid.IntRange(1, 60).Draw(t, "jobs") {
				now, other = rapid.SampledFrom(results).Draw(t, "target"), rapid.SampledFrom(results).Draw(t, "other")
				before := with.calls.Load()
				with.handle(context.Background(), "x")
				without.handle(context.Background(), "x")
				if now.Class == job.Success {
					good += int(with.calls.Load() - before)
				}
				at := time.Now()
				if a, b := with.primary.Stats(at), without.primary.Stats(at); a.State != b.State || a.Total != b.Total || a.Bad != b.Bad || a.Proven != b.Proven || a.Rejected != b.Rejected {
					t.Fatalf("the breaker is %+v, without a fallback it is %+v", a, b)
				}
				if a, b := with.limits.Stats(at), without.limits.Stats(at); a.Limit != b.Limit || a.InFlight != b.InFlight || a.Ramping != b.Ramping {
					t.Fatalf("the limiter is %+v, without a fallback it is %+v", a, b)
				}
				if a, b := with.budget.Stats(at), without.budget.Stats(at); a != b {
					t.Fatalf("the budget is %+v, without a fallback it is %+v", a, b)
				}
				if with.calls.Load() != without.calls.Load() {
					t.Fatalf("%d calls to the target, without a fallback %d", with.calls.Load(), without.calls.Load())
				}
				if n := with.cache.Stats().Entries; n > min(good, 1) {
					t.Fatalf("%d replies kept, the target gave %d", n, good)
				}
				time.Sleep(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			}
		})
	})
}

// inBubble is a test in a bubble, where there is no deadline to be asked for.
type inBubble struct{ rapid.TB }
