package httptarget_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target"
	"github.com/workerd/workerd/internal/target/httptarget"
)

type wire func(*http.Request) (*http.Response, error)

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) { return w(r) }
func (wire) CloseIdleConnections()                               {}

func TestNewOver_judgesWhatTheWireBrings(t *testing.T) {
	answer := func(status int, header http.Header) wire {
		return func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("no")), Request: r}, nil
		}
	}
	for name, c := range map[string]struct {
		wire wire
		want job.Result
	}{
		"as the rules say": {answer(404, http.Header{}), job.Result{Class: job.Failure, Reason: job.Status4xx, Status: 404}},
		"with a wait":      {answer(429, http.Header{"Retry-After": {"7"}}), job.Result{Class: job.Throttled, Reason: job.StatusThrottled, Status: 429, RetryAfter: 7 * time.Second}},
		"refused": {func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}, job.Result{Class: job.Failure, Reason: job.Connect}},
	} {
		t.Run(name, func(t *testing.T) {
			rules := []httptarget.Rule{{Status: "404", Class: "failure"}}
			d, err := httptarget.NewOver(httptarget.Config{URL: "http://127.0.0.1:1/", Classify: rules}, c.wire)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			got := d.Call(t.Context(), target.Request{Job: &job.Job{ID: "a", Stream: "S", Sequence: 1}})
			if got.Err == nil {
				t.Error("no error")
			}
			if got.Err = nil; got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}
