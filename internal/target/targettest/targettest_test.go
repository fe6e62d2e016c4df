package targettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// direct is a protocol without a network: the call reaches the script at once.
type direct struct {
	down *Downstream // nil: refused
}

const forwarded = "X-Tenant"

func (d direct) Close() {}

func (d direct) Call(ctx context.Context, r target.Request) job.Result {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	if d.down == nil {
		return failed(job.Failure, job.Connect, "nobody there")
	}
	tenant := slices.Concat(r.Job.Header[forwarded], r.Job.Header[strings.ToLower(forwarded)], r.Job.Header[strings.ToUpper(forwarded)])
	if strings.ContainsAny(strings.Join(tenant, ""), "\r\n\x00") {
		return failed(job.Permanent, job.BadRequest, "header")
	}
	return d.arrive(ctx, Seen{
		Payload: bytes.Clone(r.Job.Payload), Key: key(r), Header: map[string][]string{strings.ToLower(forwarded): tenant[:min(1, len(tenant))]},
	})
}

func key(r target.Request) string {
	for name, v := range r.Job.Header {
		if strings.EqualFold(name, job.HeaderIdempotencyKey) && v[0] != "" && len(v[0]) < 256 && !strings.ContainsAny(v[0], "\r\n") {
			return v[0]
		}
	}
	return fmt.Sprintf("%s-%d", r.Job.Stream, r.Job.Sequence)
}

func (d direct) arrive(ctx context.Context, s Seen) job.Result {
	switch d.down.Arrived(s) {
	case Answer:
		return job.Result{Class: job.Success, Reason: job.OK}
	case ResetBefore, ResetWithin:
		return failed(job.Failure, job.Reset, "reset")
	case Garbage:
		return failed(job.Failure, job.Protocol, "garbage")
	case Endless:
		return failed(job.Permanent, job.ResponseSize, "too much")
	}
	<-ctx.Done()
	return ended(ctx)
}

func ended(ctx context.Context) job.Result {
	r := job.Result{Class: job.Ignored, Reason: job.Interrupted, Err: context.Cause(ctx)}
	if errors.Is(r.Err, job.ErrTryTimeout) {
		r.Class, r.Reason = job.Timeout, job.TimedOut
	}
	return r
}

func failed(class job.Class, reason job.Reason, text string) job.Result {
	return job.Result{Class: class, Reason: reason, Err: errors.New(text)}
}

func directHarness() Harness {
	return Harness{
		Start:           func(_ testing.TB, d *Downstream) target.Target { return direct{down: d} },
		StartRefused:    func(testing.TB) target.Target { return direct{} },
		ForwardedHeader: forwarded,
		Secrets:         []string{"hunter2"},
	}
}

func TestRun_passesATargetThatKeepsItsPromises(t *testing.T) { Run(t, directHarness()) }

// mutant changes how a good target calls.
type mutant struct {
	target.Target
	call func(next target.Target, ctx context.Context, r target.Request) job.Result
}

func (m mutant) Call(ctx context.Context, r target.Request) job.Result {
	return m.call(m.Target, ctx, r)
}

func TestRun_noticesABrokenPromise(t *testing.T) {
	for _, c := range []struct {
		promise string
		call    func(next target.Target, ctx context.Context, r target.Request) job.Result
	}{
		{"payload arrives byte for byte", func(next target.Target, ctx context.Context, r target.Request) job.Result {
			return next.Call(ctx, withJob(r, func(j *job.Job) { j.Payload = bytes.TrimSpace(j.Payload) }))
		}},
		{"one call is one request", twice},
		{"broken kept connection is one request", twice},
		{"job is not changed", func(next target.Target, ctx context.Context, r target.Request) job.Result {
			r.Job.Header["Seen"] = nil
			return next.Call(ctx, r)
		}},
		{"concurrent calls do not mix", func(next target.Target, ctx context.Context, r target.Request) job.Result {
			return next.Call(ctx, withJob(r, func(j *job.Job) { j.Header = nil }))
		}},
		{"idempotency key is stable", func(next target.Target, ctx context.Context, r target.Request) job.Result {
			return next.Call(ctx, withJob(r, func(j *job.Job) { j.Sequence += uint64(r.Attempt) }))
		}},
		{"publisher's idempotency key is used", func(next target.Target, ctx context.Context, r target.Request) job.Result {
			return next.Call(ctx, withJob(r, func(j *job.Job) { j.Header = nil }))
		}},
		{"no call once the context has ended", detached},
		{"refused connection is a failure", as(job.Permanent)},
		{"forwarded header arrives", func(next target.Target, ctx context.Context, r target.Request) job.Result {
			return next.Call(ctx, withJob(r, func(j *job.Job) { j.Header = nil }))
		}},
		{"broken header value is permanent", func(next target.Target, ctx context.Context, r target.Request) job.Result {
			return next.Call(ctx, withJob(r, func(j *job.Job) { j.Header = nil }))
		}},
		{"strange names do no harm", as(job.Permanent)},
		{"endless answer ends the call", as(job.Success)},
		{"hang before the answer times out", as(job.Ignored)},
		{"hang within the answer times out", as(job.Failure)},
		{"trickling answer can be interrupted", as(job.Timeout)},
		{"reset within the answer is a failure", as(job.Success)},
		{"garbage is a failure", func(next target.Target, ctx context.Context, r target.Request) job.Result {
			result := next.Call(ctx, r)
			if result.Err != nil {
				result.Err = fmt.Errorf("%w with the password hunter2", result.Err)
			}
			return result
		}},
	} {
		t.Run(c.promise, func(t *testing.T) {
			h := directHarness()
			h.Start = func(_ testing.TB, d *Downstream) target.Target { return mutant{direct{down: d}, c.call} }
			h.StartRefused = func(testing.TB) target.Target { return mutant{direct{}, c.call} }
			for _, p := range promises() {
				if p.name != c.promise {
					continue
				}
				err := p.keep(t, h)
				if err == nil {
					t.Error("not noticed")
				}
				t.Log(err)
				return
			}
			t.Error("no such promise")
		})
	}
}

func withJob(r target.Request, change func(*job.Job)) target.Request {
	j := *r.Job
	change(&j)
	r.Job = &j
	return r
}

func twice(next target.Target, ctx context.Context, r target.Request) job.Result {
	result := next.Call(ctx, r)
	if string(r.Job.Payload) != marker {
		return next.Call(ctx, r)
	}
	return result
}

func detached(next target.Target, ctx context.Context, r target.Request) job.Result {
	if ctx.Err() != nil {
		next.Call(context.WithoutCancel(ctx), r)
	}
	return next.Call(ctx, r)
}

// as calls everything the same.
func as(class job.Class) func(target.Target, context.Context, target.Request) job.Result {
	return func(next target.Target, ctx context.Context, r target.Request) job.Result {
		result := next.Call(ctx, r)
		result.Class = class
		if class == job.Success {
			result.Err = nil
		} else if result.Err == nil {
			result.Err = errors.New("changed")
		}
		return result
	}
}

func TestCheckResult_wantsWellFormedResults(t *testing.T) {
	err := errors.New("boom")
	for name, r := range map[string]job.Result{
		"class":          {Class: job.Rejected, Reason: job.OK, Err: err},
		"reason":         {Class: job.Failure, Reason: "odd", Err: err},
		"retry after":    {Class: job.Throttled, Reason: job.StatusThrottled, RetryAfter: -time.Second, Err: err},
		"error missing":  {Class: job.Failure, Reason: job.Reset},
		"error too much": {Class: job.Success, Reason: job.OK, Err: err},
		"two lines":      {Class: job.Failure, Reason: job.Reset, Err: errors.New("a\nb")},
		"too long":       {Class: job.Failure, Reason: job.Reset, Err: errors.New(strings.Repeat("a", maxErrorText+1))},
	} {
		if checkResult(r, nil) == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
	if err := checkResult(job.Result{Class: job.Success, Reason: job.OK}, nil); err != nil {
		t.Error(err)
	}
}
