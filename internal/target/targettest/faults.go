package targettest

import (
	"context"
	"errors"
	"fmt"

	"github.com/workerd/workerd/internal/job"
)

// timesOut: by a deadline, and when the deadline comes with the request known
// to be there.
func timesOut(b Behaviour) func(s *scene) error {
	return func(s *scene) error {
		s.down.Behave(b)
		ctx, cancel := context.WithTimeoutCause(s.ctx, short, job.ErrTryTimeout)
		defer cancel()
		result, err := s.callWith(ctx, s.request([]byte("first")))
		if err := errors.Join(err, wantClass(result, job.Timeout)); err != nil {
			return err
		}
		if result.Reason != job.TimedOut {
			return fmt.Errorf("reason %s, want %s", result.Reason, job.TimedOut)
		}
		call := s.start([]byte("second"))
		if err := s.down.await(s.ctx, "second"); err != nil {
			return err
		}
		result, err = call.wait(job.ErrTryTimeout)
		if err := errors.Join(err, wantClass(result, job.Timeout)); err != nil {
			return err
		}
		if err = s.wantOnly("first", "second"); err != nil && s.down.sawExactly("second", marker) == nil {
			return nil // the machine was too slow for short, and the first never got there
		}
		return err
	}
}

func canBeInterrupted(b Behaviour) func(s *scene) error {
	return func(s *scene) error {
		s.down.Behave(b)
		causes := []error{job.ErrInterrupted, job.ErrLeaseLost, job.ErrJobTimeout, context.Canceled}
		var sent []string
		for _, cause := range causes {
			payload := cause.Error()
			sent = append(sent, payload)
			call := s.start([]byte(payload))
			if err := s.down.await(s.ctx, payload); err != nil {
				return err
			}
			result, err := call.wait(cause)
			if err := errors.Join(err, wantClass(result, job.Ignored)); err != nil {
				return fmt.Errorf("%w: %w", cause, err)
			}
		}
		return s.wantOnly(sent...)
	}
}

func isFailure(b Behaviour) func(s *scene) error {
	return func(s *scene) error {
		s.down.Behave(b)
		var sent []string
		for i := range 5 {
			payload := fmt.Sprintf("job %d", i)
			sent = append(sent, payload)
			result, err := s.call([]byte(payload))
			if err := errors.Join(err, wantClass(result, job.Failure)); err != nil {
				return err
			}
		}
		return s.wantOnly(sent...)
	}
}

// brokenKeptConnection: protocol libraries like to repeat a request by
// themselves if a kept connection breaks under it. Every other request breaks
// here, with a payload and without one.
func brokenKeptConnection(s *scene) error {
	var sent []string
	for i := range 10 {
		payload := fmt.Sprintf("job %d", i)
		if i%2 == 0 {
			payload = ""
		}
		s.down.Behave(Answer)
		if err := s.wantSuccess([]byte("keep it")); err != nil {
			return err
		}
		s.down.Behave(ResetBefore)
		result, err := s.call([]byte(payload))
		if err := errors.Join(err, wantClass(result, job.Failure)); err != nil {
			return err
		}
		sent = append(sent, "keep it", payload)
	}
	return s.wantOnly(sent...)
}

// endlessAnswerEnds: by a limit, or by the timeout of the call.
func endlessAnswerEnds(s *scene) error {
	s.down.Behave(Endless)
	ctx, cancel := context.WithTimeoutCause(s.ctx, patience/2, job.ErrTryTimeout)
	defer cancel()
	result, err := s.callWith(ctx, s.request([]byte("first")))
	if err := errors.Join(err, wantClass(result, job.Permanent, job.Failure, job.Timeout)); err != nil {
		return err
	}
	return s.wantOnly("first")
}

// closeAfterHanging: the goroutines are counted by Run when all is over.
func closeAfterHanging(s *scene) error {
	s.down.Behave(HangBefore)
	var calls []*ending
	var errs []error
	for i := range 8 {
		calls = append(calls, s.start(fmt.Append(nil, i)))
	}
	for i := range calls {
		errs = append(errs, s.down.await(s.ctx, fmt.Sprint(i)))
	}
	for _, c := range calls {
		_, err := c.wait(job.ErrInterrupted)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
