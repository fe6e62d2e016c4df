package whatif

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// script is the downstream of one target: it answers as its steps say. It is a
// httptarget.Wire, so that all but the network is the target's own. Any number
// of goroutines may use it.
type script struct {
	steps []Step

	mu      sync.Mutex
	began   time.Time // of the steps; zero: the first holds
	calls   int
	running int
	most    int // that ran at once
}

// begin starts the clock of the steps.
func (s *script) begin(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = now
}

// RoundTrip implements httptarget.Wire.
func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	step := s.enter()
	defer s.leave()
	var end <-chan time.Time // never, if it hangs
	if !step.Hang {
		timer := time.NewTimer(step.Takes)
		defer timer.Stop()
		end = timer.C
	}
	select {
	case <-end:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if step.Error != "" {
		return nil, failure(step.Error, r.URL.Host)
	}
	return step.answer(r), nil
}

// CloseIdleConnections implements httptarget.Wire.
func (*script) CloseIdleConnections() {}

func (s *script) enter() Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.running++
	s.most = max(s.most, s.running)
	if s.began.IsZero() {
		return stepAt(s.steps, 0)
	}
	return stepAt(s.steps, time.Since(s.began))
}

func (s *script) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
}

func (s *script) counts() (calls, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls, s.most
}

// stepAt is the step that holds after a time. Without steps all is well.
func stepAt(steps []Step, after time.Duration) Step {
	for i, s := range steps {
		if after < s.For || i == len(steps)-1 {
			return s
		}
		after -= s.For
	}
	return Step{Status: http.StatusOK}.withDefaults()
}

func (s Step) answer(r *http.Request) *http.Response {
	h := http.Header{}
	if s.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(s.RetryAfter/time.Second)))
	}
	if s.Disposition != "" {
		h.Set(job.HeaderDisposition, s.Disposition)
	}
	return &http.Response{
		StatusCode: s.Status, Status: fmt.Sprintf("%d %s", s.Status, http.StatusText(s.Status)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(s.Body)), ContentLength: int64(len(s.Body)), Request: r,
	}
}

// errorNames are what a step may fail with.
func errorNames() []string { return []string{"connect", "dns", "reset", "tls"} }

// failure is the error a real connection would have failed with.
func failure(name, host string) error {
	switch name {
	case "connect":
		return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	case "dns":
		return &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	case "reset":
		return &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	case "tls":
		return &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}
	}
	panic("whatif: no error is named " + name)
}

// behaves describes a step for the timeline.
func (s Step) behaves() string {
	switch {
	case s.Hang:
		return "hangs"
	case s.Error != "":
		return "fails: " + s.Error
	}
	text := fmt.Sprintf("answers %d", s.Status)
	if s.Disposition != "" {
		text += ", disposition " + s.Disposition
	}
	if s.RetryAfter > 0 {
		text += fmt.Sprintf(", Retry-After %s", short(s.RetryAfter))
	}
	return text + " after " + short(s.Takes)
}
