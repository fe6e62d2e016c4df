package httptarget_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target/httptarget"
)

// probed makes one probe of a server that answers so.
func probed(t *testing.T, answer http.HandlerFunc) job.Result {
	t.Helper()
	s := httptest.NewServer(answer)
	defer s.Close()
	h := newTarget(t, httptarget.Config{URL: s.URL + "/jobs?key=1", Headers: map[string]string{"Authorization": "Bearer secret-token"}, Classify: []httptarget.Rule{{Status: "5xx", Class: "success"}}})
	defer h.Close()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, job.ErrTryTimeout)
	defer cancel()
	return h.Probe(ctx, "/healthz?full=1")
}

func TestProbe_asksForThePathAndNothingElse(t *testing.T) {
	var seen atomic.Pointer[http.Request]
	r := probed(t, func(_ http.ResponseWriter, r *http.Request) { seen.Store(r) })
	got := seen.Load()
	if r.Class != job.Success || r.Reason != job.OK || r.Status != 200 {
		t.Errorf("result %+v", r)
	}
	if got.Method != http.MethodGet || got.RequestURI != "/healthz?full=1" || got.ContentLength != 0 || len(got.TransferEncoding) != 0 {
		t.Errorf("asked %s %s with a body of %d (%v)", got.Method, got.RequestURI, got.ContentLength, got.TransferEncoding)
	}
	if got.Header.Get("Authorization") != "Bearer secret-token" || got.Header.Get("Idempotency-Key") != "" || got.Header.Get("Workerd-Job-Id") != "" {
		t.Errorf("headers %v", got.Header)
	}
}

func TestProbe_only2xxIsGood(t *testing.T) {
	for status, want := range map[int]job.Reason{204: job.OK, 301: job.Status3xx, 401: job.Status4xx, 404: job.Status4xx, 409: job.Status4xx, 503: job.Status5xx, 429: job.StatusThrottled} {
		r := probed(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.Header().Set("Retry-After", "7")
			w.Header().Set("Workerd-Disposition", "ack")
			w.WriteHeader(status)
		})
		good := status == 204
		if (r.Class == job.Success) != good || !good && (r.Class != job.Failure || r.RetryAfter != 7*time.Second || r.Err == nil) || r.Status != status {
			t.Errorf("%d: %+v", status, r)
		}
		if status != 503 && r.Reason != want { // 5xx are what classify says, as for calls
			t.Errorf("%d: reason %s, want %s", status, r.Reason, want)
		}
	}
}

func TestProbe_readsNoMoreThanItNeeds(t *testing.T) {
	r := probed(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	if r.Class != job.Success {
		t.Errorf("an answer without end: %+v", r)
	}
}

func TestProbe_anAnswerThatStopsOrHangsIsNone(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"hangs in the body": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		if r := probed(t, answer); r.Class != job.Timeout || r.Reason != job.TimedOut {
			t.Errorf("%s: %+v", name, r)
		}
	}
	r := probed(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusOK)
	})
	if r.Class != job.Failure || r.Reason != job.Reset {
		t.Errorf("cut off: %+v", r)
	}
}

// TestProbe_isOneRequest although net/http likes to send a GET again when a kept
// connection turns out to be closed.
func TestProbe_isOneRequest(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) > 1 {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.Close()
			}
		}
	}))
	defer s.Close()
	h := newTarget(t, httptarget.Config{URL: s.URL})
	defer h.Close()
	h.Probe(t.Context(), "/healthz")
	if r := h.Probe(t.Context(), "/healthz"); r.Class != job.Failure || asked.Load() != 2 {
		t.Errorf("%+v after %d requests", r, asked.Load())
	}
}

func TestProbe_tellsNoSecrets(t *testing.T) {
	r := probed(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte(r.Header.Get("Authorization")))
	})
	if r.Err == nil || strings.Contains(r.Err.Error(), "secret") {
		t.Errorf("error %v", r.Err)
	}
}
