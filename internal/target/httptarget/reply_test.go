package httptarget_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target/httptarget"
)

func TestCall_keepsAsMuchOfTheAnswerAsIsWanted(t *testing.T) {
	body := strings.Repeat("0123456789", 5_000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/x-digits")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, body)
	}))
	defer server.Close()
	h := newTarget(t, httptarget.Config{URL: server.URL})
	defer h.Close()
	for keep, want := range map[int]string{0: "", 1: "0", 10_001: body[:10_001], 50_000: body, 1 << 20: body} {
		r := request("x")
		r.Keep = keep
		got := h.Call(t.Context(), r)
		switch {
		case got.Class != job.Success || (got.Reply != nil) != (keep > 0):
			t.Errorf("%d: %+v", keep, got)
		case keep > 0 && (string(got.Reply.Body) != want || got.Reply.Truncated != (keep < len(body)) || got.Reply.Status != 202 || got.Reply.ContentType != "text/x-digits"):
			t.Errorf("%d: %d bytes, %+v", keep, len(got.Reply.Body), got.Reply.Status)
		}
	}
}

// TestCall_keepsNothingOfAnAnswerWithoutAnEnd: half a reply is no reply.
func TestCall_keepsNothingOfAnAnswerWithoutAnEnd(t *testing.T) {
	h := newTarget(t, httptarget.Config{URL: rawServer(t, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true)})
	defer h.Close()
	r := request("x")
	r.Keep = 100
	if got := h.Call(t.Context(), r); got.Class != job.Failure || got.Reply != nil {
		t.Errorf("%+v", got)
	}
}
