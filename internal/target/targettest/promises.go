package targettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target"
)

// short is the timeout of calls that shall time out. It is not asserted.
const short = 100 * time.Millisecond

func promises() []promise {
	list := []promise{
		{name: "payload arrives byte for byte", check: payloadArrives},
		{name: "one call is one request", check: oneCallOneRequest},
		{name: "job is not changed", check: jobIsNotChanged},
		{name: "concurrent calls do not mix", check: concurrentCallsDoNotMix},
		{name: "idempotency key is stable", check: keyIsStable},
		{name: "publisher's idempotency key is used", check: keyIsThePublishers},
		{name: "no call once the context has ended", check: noCallOnceEnded},
		{name: "refused connection is a failure", check: refusedIsFailure},
		{name: "strange names do no harm", check: strangeNamesDoNoHarm},
		{name: "forwarded header arrives", header: true, check: headerArrives},
		{name: "broken header value is permanent", header: true, check: brokenHeaderIsPermanent},
		{name: "broken kept connection is one request", needs: []Behaviour{ResetBefore}, check: brokenKeptConnection},
		{name: "endless answer ends the call", needs: []Behaviour{Endless}, check: endlessAnswerEnds},
		{name: "close while calls hang leaves nothing", needs: []Behaviour{HangBefore}, check: closeAfterHanging},
	}
	for _, b := range []Behaviour{HangBefore, HangWithin, Trickle} {
		list = append(list,
			promise{name: b.String() + " times out", needs: []Behaviour{b}, check: timesOut(b)},
			promise{name: b.String() + " can be interrupted", needs: []Behaviour{b}, check: canBeInterrupted(b)})
	}
	for _, b := range []Behaviour{ResetBefore, ResetWithin, Garbage} {
		list = append(list, promise{name: b.String() + " is a failure", needs: []Behaviour{b}, check: isFailure(b)})
	}
	return list
}

func payloadArrives(s *scene) error {
	random := make([]byte, 3*4096+17)
	// Not for secrecy: any bytes do, the same at every run.
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random)
	payloads := [][]byte{nil, {}, {0}, []byte("x"), []byte("\r\n\r\n0\r\n"), random, bytes.Repeat([]byte{0xff}, 4096), bytes.Repeat([]byte("a\n"), 1<<19)}
	for i, p := range payloads {
		if err := s.wantSuccess(p); err != nil {
			return fmt.Errorf("payload of %d bytes: %w", len(p), err)
		}
		if got := s.down.Requests(); len(got) != i+1 || !bytes.Equal(got[i].Payload, p) {
			return fmt.Errorf("payload of %d bytes did not arrive as it was sent", len(p))
		}
	}
	return nil
}

func oneCallOneRequest(s *scene) error {
	var sent []string
	for i := range 50 {
		payload := fmt.Sprintf("job %d", i)
		sent = append(sent, payload)
		if err := s.wantSuccess([]byte(payload)); err != nil {
			return err
		}
	}
	return s.down.sawExactly(sent...)
}

func jobIsNotChanged(s *scene) error {
	r := s.request([]byte("payload"))
	r.Job.Header = job.Header{"x-Some": {"a", "b"}, "Content-Type": {"text/plain"}}
	twin := newJob(r.Job.Sequence, []byte("payload"))
	twin.Header = job.Header{"x-Some": {"a", "b"}, "Content-Type": {"text/plain"}}
	if _, err := s.callWith(s.ctx, r); err != nil {
		return err
	}
	if !reflect.DeepEqual(r.Job, twin) {
		return fmt.Errorf("the call changed the job to %+v", r.Job)
	}
	return nil
}

func concurrentCallsDoNotMix(s *scene) error {
	const callers, each = 16, 16
	var wait sync.WaitGroup
	errs := make([]error, callers)
	var sent []string
	for c := range callers {
		requests := make([]target.Request, each)
		for i := range requests {
			payload := fmt.Sprintf("%d/%d", c, i)
			sent = append(sent, payload)
			requests[i] = s.request([]byte(payload))
			requests[i].Job.Header["Workerd-Idempotency-Key"] = []string{"key of " + payload}
		}
		wait.Go(func() {
			for _, r := range requests {
				result, err := s.callWith(s.ctx, r)
				errs[c] = errors.Join(errs[c], err, wantClass(result, job.Success))
			}
		})
	}
	wait.Wait()
	for _, seen := range s.down.Requests() {
		if want := "key of " + string(seen.Payload); seen.Key != want {
			errs = append(errs, fmt.Errorf("payload %q came with the key %q", seen.Payload, seen.Key))
		}
	}
	return errors.Join(append(errs, s.down.sawExactly(sent...))...)
}

// keyIsStable: over tries, attempts, deliveries and targets; and another job
// has another one.
func keyIsStable(s *scene) error {
	again := s.harness.Start(s.t, s.down)
	defer again.Close()
	for i, to := range []target.Target{s.target, s.target, again, again} {
		r := target.Request{Pool: "email", Attempt: 1 + i, Try: 3 - i, Timeout: time.Second, Job: newJob(7, []byte{byte(i)})}
		r.Job.Deliveries = 1 + 2*i
		if _, err := s.callTarget(s.ctx, to, r); err != nil {
			return err
		}
	}
	other := target.Request{Pool: "email", Attempt: 1, Try: 1, Timeout: time.Second, Job: newJob(8, nil)}
	if _, err := s.callWith(s.ctx, other); err != nil {
		return err
	}
	seen := s.down.Requests()
	if len(seen) != 5 {
		return fmt.Errorf("5 calls were %d requests", len(seen))
	}
	for _, r := range seen[:4] {
		if r.Key == "" || r.Key != seen[0].Key || r.Key == seen[4].Key {
			return fmt.Errorf("the keys of one job are %q, and %q of another", []string{seen[0].Key, r.Key}, seen[4].Key)
		}
	}
	return nil
}

// keyIsThePublishers: unless it is not fit to be a key.
func keyIsThePublishers(s *scene) error {
	for _, c := range []struct{ name, key, want string }{
		{"Workerd-Idempotency-Key", "order-17", "order-17"},
		{"workerd-idempotency-key", "order-18", "order-18"},
		{"Workerd-Idempotency-Key", "", "JOBS-3"},
		{"Workerd-Idempotency-Key", "a\r\nX-Injected: b", "JOBS-4"},
		{"Workerd-Idempotency-Key", strings.Repeat("k", 10_000), "JOBS-5"},
	} {
		r := s.request(nil)
		r.Job.Header[c.name] = []string{c.key}
		result, err := s.callWith(s.ctx, r)
		if err := errors.Join(err, wantClass(result, job.Success)); err != nil {
			return err
		}
		if got := s.down.last().Key; got != c.want {
			return fmt.Errorf("with %s %q the target sent the key %q, want %q", c.name, c.key, got, c.want)
		}
	}
	return nil
}

func noCallOnceEnded(s *scene) error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	cancel(job.ErrInterrupted)
	result, err := s.callWith(ctx, s.request([]byte("never")))
	if err := errors.Join(err, wantClass(result, job.Ignored)); err != nil {
		return err
	}
	return s.wantOnly()
}

func refusedIsFailure(s *scene) error {
	refused := s.harness.StartRefused(s.t)
	defer refused.Close()
	for range 3 {
		result, err := s.callTarget(s.ctx, refused, s.request([]byte("x")))
		if err := errors.Join(err, wantClass(result, job.Failure)); err != nil {
			return err
		}
	}
	return nil
}

// strangeNamesDoNoHarm: names come from NATS, which is looser than most
// protocols. The call works all the same, and nothing leaks out of them.
func strangeNamesDoNoHarm(s *scene) error {
	for _, name := range []string{"", "jobs.\x01\x7f", "jobs.\r\nX-Injected: yes", "jobs.\x00", "jobs.\xff\xfe", "jobs.für", strings.Repeat("j", 5000)} {
		r := s.request([]byte("x"))
		r.Job.Subject, r.Job.ID, r.Job.Stream, r.Pool = name, name, name, name
		result, err := s.callWith(s.ctx, r)
		if err := errors.Join(err, wantClass(result, job.Success)); err != nil {
			return fmt.Errorf("name %.40q: %w", name, err)
		}
		if seen := s.down.last(); len(seen.Header["x-injected"]) > 0 {
			return fmt.Errorf("name %q became a header of its own", name)
		}
	}
	return nil
}

func headerArrives(s *scene) error {
	name := s.harness.ForwardedHeader
	for _, spelled := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
		r := s.request(nil)
		r.Job.Header[spelled] = []string{"value of " + spelled}
		r.Job.Header["X-Not-Forwarded"] = []string{"no"}
		if _, err := s.callWith(s.ctx, r); err != nil {
			return err
		}
		seen := s.down.last()
		if got := seen.Header[strings.ToLower(name)]; len(got) != 1 || got[0] != "value of "+spelled {
			return fmt.Errorf("job header %s arrived as %q", spelled, got)
		}
		if len(seen.Header["x-not-forwarded"]) > 0 {
			return errors.New("a header arrived that nobody had allowed")
		}
	}
	return nil
}

func brokenHeaderIsPermanent(s *scene) error {
	for _, value := range []string{"a\rb", "a\nb", "a\r\nX-Injected: yes", "a\x00b", "\n"} {
		r := s.request([]byte("never"))
		r.Job.Header[s.harness.ForwardedHeader] = []string{value}
		result, err := s.callWith(s.ctx, r)
		if err := errors.Join(err, wantClass(result, job.Permanent)); err != nil {
			return fmt.Errorf("value %q: %w", value, err)
		}
		if result.Reason != job.BadRequest {
			return fmt.Errorf("value %q: reason %s, want %s", value, result.Reason, job.BadRequest)
		}
	}
	return s.wantOnly()
}
