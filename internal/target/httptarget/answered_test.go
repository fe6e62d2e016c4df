package httptarget

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/workerd/workerd/internal/job"
)

// TestAnswered_wholeAnswerAfterTheEndDoesNotCount, whatever it says.
func TestAnswered_wholeAnswerAfterTheEndDoesNotCount(t *testing.T) {
	h, err := New(Config{URL: "http://a.invalid"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for cause, want := range map[error]job.Class{job.ErrTryTimeout: job.Timeout, job.ErrInterrupted: job.Ignored} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		for _, status := range []int{200, 400, 503} {
			resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("whole"))}
			if got := h.answered(ctx, resp, 0); got.Class != want || got.Status != status {
				t.Errorf("%d: %+v, want %s", status, got, want)
			}
		}
	}
}
