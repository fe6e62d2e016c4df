package httptarget

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/workerd/workerd/internal/job"
)

// FuzzResponse sends raw bytes as the answer, through the real transport.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		"", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\n\r\nuntil close", "HTTP/1.0 503 x\r\nRetry-After: 9223372037\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n", "HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 409 C\r\nWorkerd-Disposition: drop\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nabcde",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "HTTP/1.1 302 F\r\nLocation: http://x/\r\n\r\n", "\x16\x03\x01\x02", "HTTP/1.1 999 X\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	t, err := New(Config{URL: "http://pipe.invalid/", MaxResponse: 1 << 10, Headers: map[string]string{"Authorization": "Bearer canary-canary"}})
	if err != nil {
		f.Fatal(err)
	}
	defer t.Close()
	f.Fuzz(func(test *testing.T, raw []byte) {
		var servers sync.WaitGroup
		t.transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			servers.Go(func() { answerRaw(theirs, raw) })
			return ours, nil
		}
		ctx, cancel := context.WithTimeoutCause(test.Context(), 10*time.Second, job.ErrTryTimeout)
		defer cancel()
		result := t.Call(ctx, requestWith(nil))
		t.transport.CloseIdleConnections()
		servers.Wait()
		checkFuzzed(test, result)
	})
}

// answerRaw reads one request, answers with raw, and closes.
func answerRaw(conn net.Conn, raw []byte) {
	defer func() { _ = conn.Close() }()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = conn.Write(raw)
}

func checkFuzzed(t *testing.T, r job.Result) {
	t.Helper()
	classes := []job.Class{job.Success, job.Failure, job.Throttled, job.Permanent, job.Neutral}
	if !slices.Contains(classes, r.Class) || !slices.Contains(job.Reasons(), r.Reason) || r.RetryAfter < 0 || r.RetryAfter > 5*time.Minute {
		t.Errorf("%+v", r)
	}
	if (r.Class == job.Success) != (r.Err == nil) {
		t.Errorf("%s with error %v", r.Class, r.Err)
	}
	if r.Err == nil {
		return
	}
	text := r.Err.Error()
	if len(text) > 600 || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("error text %q", text)
	}
}
