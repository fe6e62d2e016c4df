// Package targettest holds every protocol to the promises of target.Target.
//
// A protocol's test starts a real downstream that does what a [Downstream]
// script says, and gives [Run] a way to make targets that call it. Run checks:
//
//   - one Call is one request seen downstream, never more, also when a kept
//     connection breaks under it;
//   - the payload arrives byte for byte, and the job is not changed;
//   - a call that takes too long is a Timeout, a call that was given up is
//     Ignored, and both return without waiting for the downstream;
//   - a broken downstream is a Failure, whenever and however it breaks, and
//     the next call after it works;
//   - an answer without end neither succeeds nor is waited for;
//   - header values that do not fit the protocol never get there;
//   - the idempotency key is the same at every try, attempt and delivery;
//   - every Result is well formed and gives no secret away;
//   - after Close no goroutine is left.
//
// It knows nothing of any protocol. What a protocol means by its statuses, and
// which reasons it gives, is for its own tests.
package targettest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target"
)

// patience bounds every wait of the suite. Nothing waits that long unless a
// promise is broken.
const patience = 20 * time.Second

// Harness is what a protocol brings.
type Harness struct {
	// Start starts a downstream that follows the script, and returns a new
	// target that calls it. It registers the end of the downstream with
	// t.Cleanup; the suite closes the target before. Required.
	Start func(t testing.TB, script *Downstream) target.Target
	// StartRefused returns a target whose downstream does not exist. Required.
	StartRefused func(t testing.TB) target.Target
	// ForwardedHeader is a job header which the targets pass on. Empty if
	// the protocol passes none on.
	ForwardedHeader string
	// Secrets which the targets are configured with; no Result may tell one.
	Secrets []string
	// Lacks says why the protocol cannot behave in some way. Those checks
	// are skipped with that reason.
	Lacks map[Behaviour]string
}

// Run checks all promises, each with a downstream and a target of its own.
func Run(t *testing.T, h Harness) {
	for _, p := range promises() {
		t.Run(p.name, func(t *testing.T) {
			if why := p.lacking(h); why != "" {
				t.Skip(why)
			}
			before := goleak.IgnoreCurrent()
			t.Run("calls", func(t *testing.T) {
				if err := p.keep(t, h); err != nil {
					t.Error(err)
				}
			})
			// The downstream has ended with the subtest, the target before it.
			if err := goleak.Find(before); err != nil {
				t.Errorf("goroutines left: %v", err)
			}
		})
	}
}

// promise is one thing a target must do. Its check returns an error instead of
// failing a test, so that the suite itself can be tested with broken targets.
type promise struct {
	name  string
	needs []Behaviour
	// header: needs a forwarded header.
	header bool
	check  func(s *scene) error
}

func (p promise) lacking(h Harness) string {
	if p.header && h.ForwardedHeader == "" {
		return "the protocol passes no job headers on"
	}
	for _, b := range p.needs {
		if why, ok := h.Lacks[b]; ok {
			return fmt.Sprintf("%s: %s", b, why)
		}
	}
	return ""
}

// keep checks the promise once.
func (p promise) keep(t testing.TB, h Harness) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := &scene{t: t, ctx: ctx, harness: h, down: NewDownstream()}
	s.target = h.Start(t, s.down)
	defer s.target.Close()
	return p.check(s)
}

// scene is one downstream, one target, and what happened between them.
type scene struct {
	t       testing.TB
	ctx     context.Context // ends with the patience
	harness Harness
	down    *Downstream
	target  target.Target
	calls   int
}

// call makes one call for a job of that payload, and checks its Result.
func (s *scene) call(payload []byte) (job.Result, error) {
	return s.callWith(s.ctx, s.request(payload))
}

func (s *scene) callWith(ctx context.Context, r target.Request) (job.Result, error) {
	return s.callTarget(ctx, s.target, r)
}

func (s *scene) callTarget(ctx context.Context, to target.Target, r target.Request) (job.Result, error) {
	result := to.Call(ctx, r)
	if s.ctx.Err() != nil {
		return result, fmt.Errorf("the call did not return within %s: %+v", patience, result)
	}
	return result, checkResult(result, s.harness.Secrets)
}

// request for a new job of that payload.
func (s *scene) request(payload []byte) target.Request {
	s.calls++
	return target.Request{Pool: "email", Attempt: 1, Try: 1, Timeout: patience, Job: newJob(uint64(s.calls), payload)}
}

func newJob(sequence uint64, payload []byte) *job.Job {
	return &job.Job{
		ID: fmt.Sprintf("JOBS:%d", sequence), Stream: "JOBS", Consumer: "email-normal", Sequence: sequence,
		Subject: "jobs.email.normal", Header: job.Header{}, Payload: payload, Priority: job.Normal,
		Deliveries: 1, Enqueued: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
	}
}

// marker is the payload of the call that ends a scene.
const marker = "the last one"

// wantOnly checks that exactly these payloads were seen, after one more call
// that must succeed: it shows that the target still works, and whatever a
// target sends behind our back for an earlier call it has sent by then.
func (s *scene) wantOnly(payloads ...string) error {
	s.down.Behave(Answer)
	if err := s.wantSuccess([]byte(marker)); err != nil {
		return fmt.Errorf("the next call: %w", err)
	}
	return s.down.sawExactly(append(payloads, marker)...)
}

func (s *scene) wantSuccess(payload []byte) error {
	result, err := s.call(payload)
	if err != nil {
		return err
	}
	return wantClass(result, job.Success)
}

func wantClass(result job.Result, allowed ...job.Class) error {
	if slices.Contains(allowed, result.Class) {
		return nil
	}
	return fmt.Errorf("the call ended as %s (%s, %s), want %v", result.Class, result.Reason, fmt.Sprint(result.Err), allowed)
}

// ending is a call that is going on, and how to end its context.
type ending struct {
	done   chan struct{}
	cancel context.CancelCauseFunc
	result job.Result
	err    error
}

// start makes a call on a goroutine of its own; ending.wait waits for it.
func (s *scene) start(payload []byte) *ending {
	ctx, cancel := context.WithCancelCause(s.ctx)
	e := &ending{done: make(chan struct{}), cancel: cancel}
	r := s.request(payload)
	go func() {
		defer close(e.done)
		e.result, e.err = s.callWith(ctx, r)
	}()
	return e
}

// wait ends the call with that cause and returns how it ended.
func (e *ending) wait(cause error) (job.Result, error) {
	e.cancel(cause)
	<-e.done
	if e.err == nil && !errors.Is(e.result.Err, cause) {
		e.err = fmt.Errorf("the error %q does not wrap the cause %w", fmt.Sprint(e.result.Err), cause)
	}
	return e.result, e.err
}
