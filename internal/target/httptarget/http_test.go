package httptarget_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target"
	"github.com/workerd/workerd/internal/target/httptarget"
)

func request(payload string) target.Request {
	return target.Request{
		Pool: "email", Attempt: 3, Try: 2, Timeout: 10 * time.Second,
		Job: &job.Job{
			ID: "order-17", Stream: "JOBS", Consumer: "email-normal", Sequence: 42, Subject: "jobs.email.normal",
			Payload: []byte(payload), Deliveries: 4, Enqueued: time.Date(2026, 11, 20, 12, 0, 0, 5e8, time.UTC),
		},
	}
}

// call makes one call to url, bounded, with a target of its own.
func call(t *testing.T, cfg httptarget.Config) job.Result {
	t.Helper()
	h := newTarget(t, cfg)
	defer h.Close()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, job.ErrTryTimeout)
	defer cancel()
	return h.Call(ctx, request("payload"))
}

// answer is a response in bytes.
func answer(status int, header, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d Text\r\n%sContent-Length: %d\r\n\r\n%s", status, header, len(body), body)
}

func TestCall_judgesTheAnswer(t *testing.T) {
	const token = "0123456789abcdefghijklmnopqrstuvwxyz"
	long := strings.Repeat("x", 2000)
	for name, c := range map[string]struct {
		raw  string
		want job.Result
		text string // of the error, with HOST for the host
	}{
		"200":              {answer(200, "", "fine"), job.Result{Class: job.Success, Reason: job.OK}, ""},
		"204":              {"HTTP/1.1 204 No Content\r\n\r\n", job.Result{Class: job.Success, Reason: job.OK}, ""},
		"302":              {answer(302, "Location: http://127.0.0.1:1/\r\n", ""), job.Result{Class: job.Permanent, Reason: job.Status3xx}, `HTTP 302 from HOST: ""`},
		"400 with a body":  {answer(400, "", "no\r\n\x1b[31m such \u202efield\xff"), job.Result{Class: job.Permanent, Reason: job.Status4xx}, `HTTP 400 from HOST: "no  [31m such field"`},
		"401":              {answer(401, "", ""), job.Result{Class: job.Failure, Reason: job.Status4xx}, `HTTP 401 from HOST: ""`},
		"409":              {answer(409, "", ""), job.Result{Class: job.Neutral, Reason: job.Status4xx}, `HTTP 409 from HOST: ""`},
		"429":              {answer(429, "Retry-After: 7\r\n", ""), job.Result{Class: job.Throttled, Reason: job.StatusThrottled, RetryAfter: 7 * time.Second}, `HTTP 429 from HOST: ""`},
		"429 for ever":     {answer(429, "Retry-After: 99999999999999999999\r\n", ""), job.Result{Class: job.Throttled, Reason: job.StatusThrottled, RetryAfter: 5 * time.Minute}, `HTTP 429 from HOST: ""`},
		"500":              {answer(500, "", long), job.Result{Class: job.Failure, Reason: job.Status5xx}, `HTTP 500 from HOST: "` + long[:200] + `"`},
		"500, wait":        {answer(500, "Retry-After: 7\r\n", ""), job.Result{Class: job.Failure, Reason: job.Status5xx, RetryAfter: 7 * time.Second}, `HTTP 500 from HOST: ""`},
		"503":              {answer(503, "", ""), job.Result{Class: job.Failure, Reason: job.Status5xx}, `HTTP 503 from HOST: ""`},
		"503, wait":        {answer(503, "Retry-After: 0\r\n", ""), job.Result{Class: job.Throttled, Reason: job.StatusThrottled}, `HTTP 503 from HOST: ""`},
		"503, odd wait":    {answer(503, "Retry-After: -1\r\n", ""), job.Result{Class: job.Failure, Reason: job.Status5xx}, `HTTP 503 from HOST: ""`},
		"echoed secret":    {answer(500, "", "got Bearer "+token+" and "+token[:20]), job.Result{Class: job.Failure, Reason: job.Status5xx}, `HTTP 500 from HOST: "got *** and ***"`},
		"disposition ack":  {answer(500, "Workerd-Disposition: ack\r\n", "x"), job.Result{Class: job.Success, Reason: job.Disposition}, ""},
		"retry":            {answer(200, "Workerd-Disposition: Retry\r\nRetry-After: 3\r\n", ""), job.Result{Class: job.Neutral, Reason: job.Disposition, RetryAfter: 3 * time.Second}, `HTTP 200 from HOST (Workerd-Disposition Retry): ""`},
		"dead":             {answer(200, "workerd-disposition: dead \r\n", ""), job.Result{Class: job.Permanent, Reason: job.Disposition}, `HTTP 200 from HOST (Workerd-Disposition dead): ""`},
		"drop":             {answer(503, "Workerd-Disposition: drop\r\n", ""), job.Result{Class: job.Permanent, Reason: job.Dropped}, `HTTP 503 from HOST (Workerd-Disposition drop): ""`},
		"odd disposition":  {answer(200, "Workerd-Disposition: maybe\r\n", ""), job.Result{Class: job.Success, Reason: job.OK}, ""},
		"ruled 418":        {answer(418, "", ""), job.Result{Class: job.Neutral, Reason: job.Status4xx}, `HTTP 418 from HOST: ""`},
		"chunked":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", job.Result{Class: job.Success, Reason: job.OK}, ""},
		"1xx before":       {"HTTP/1.1 103 Early\r\n\r\n" + answer(200, "", "x"), job.Result{Class: job.Success, Reason: job.OK}, ""},
		"not decompressed": {answer(200, "Content-Encoding: gzip\r\n", "not gzip at all"), job.Result{Class: job.Success, Reason: job.OK}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			address := rawServer(t, c.raw, false)
			got := call(t, httptarget.Config{
				URL: address, Headers: map[string]string{"Authorization": "Bearer " + token},
				Classify: []httptarget.Rule{{Status: "418", Class: "neutral"}},
			})
			text := strings.ReplaceAll(c.text, "HOST", strings.TrimPrefix(address, "http://"))
			if _, err := fmt.Sscanf(c.raw[len("HTTP/1.1 "):], "%d", &c.want.Status); err != nil {
				t.Fatal(err)
			}
			if c.want.Status == 103 {
				c.want.Status = 200
			}
			checkResult(t, got, c.want, text)
		})
	}
}

func checkResult(t *testing.T, got, want job.Result, text string) {
	t.Helper()
	if got.Err == nil != (text == "") || got.Err != nil && got.Err.Error() != text {
		t.Errorf("error %v, want %s", got.Err, text)
	}
	got.Err, want.Err = nil, nil
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestCall_wantsTheWholeBody(t *testing.T) {
	const limit = 1000
	tooLong := strings.Repeat("x", limit+1)
	cut := "Content-Length: 100\r\n\r\nonly this"
	for name, c := range map[string]struct {
		raw    string
		class  job.Class
		reason job.Reason
	}{
		"exactly the limit":           {answer(200, "", tooLong[1:]), job.Success, job.OK},
		"more than the limit":         {answer(200, "", tooLong), job.Permanent, job.ResponseSize},
		"more, chunked":               {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + tooLong + "\r\n", job.Permanent, job.ResponseSize},
		"more, until close":           {"HTTP/1.1 200 OK\r\n\r\n" + tooLong, job.Permanent, job.ResponseSize},
		"until close":                 {"HTTP/1.1 200 OK\r\n\r\nabc", job.Success, job.OK},
		"error page too long":         {answer(503, "", tooLong), job.Failure, job.Status5xx},
		"refusal too long":            {answer(422, "", tooLong), job.Permanent, job.Status4xx},
		"acked, too long":             {answer(500, "Workerd-Disposition: ack\r\n", tooLong), job.Permanent, job.ResponseSize},
		"success cut off":             {"HTTP/1.1 200 OK\r\n" + cut, job.Failure, job.Reset},
		"success cut off, chunked":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", job.Failure, job.Reset},
		"last chunk missing":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", job.Failure, job.Reset},
		"success with broken chunks":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab", job.Failure, job.Protocol},
		"refusal cut off":             {"HTTP/1.1 400 Bad\r\n" + cut, job.Failure, job.Reset},
		"death cut off":               {"HTTP/1.1 200 OK\r\nWorkerd-Disposition: dead\r\n" + cut, job.Failure, job.Reset},
		"throttling cut off":          {"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\n" + cut, job.Throttled, job.StatusThrottled},
		"body shorter than said":      {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", job.Failure, job.Reset},
		"body longer than said":       {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", job.Success, job.OK},
		"body length that is nothing": {"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nabc", job.Failure, job.Protocol},
	} {
		t.Run(name, func(t *testing.T) {
			got := call(t, httptarget.Config{URL: rawServer(t, c.raw, true), MaxResponse: limit})
			if got.Class != c.class || got.Reason != c.reason {
				t.Errorf("got %s, %s (%v), want %s, %s", got.Class, got.Reason, got.Err, c.class, c.reason)
			}
		})
	}
}

func TestCall_namesWhatIsBroken(t *testing.T) {
	flood := strings.Repeat("HTTP/1.1 103 Early\r\nX: y\r\n\r\n", 10_000)
	for name, c := range map[string]struct {
		url     string
		reason  job.Reason
		noRetry bool
	}{
		"nobody listens":             {"http://" + refusing(t), job.Connect, false},
		"closed at once":             {rawServer(t, "", true), job.Reset, false},
		"header cut off":             {rawServer(t, "HTTP/1.1 200 OK\r\nX: ", true), job.Reset, false},
		"no HTTP":                    {rawServer(t, "SSH-2.0-OpenSSH\r\n\r\n", true), job.Protocol, false},
		"HTTP/2 preface":             {rawServer(t, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", true), job.Protocol, false},
		"HTTP/2 frames":              {rawServer(t, "\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\r\n\r\n", true), job.Protocol, false},
		"status line too large":      {rawServer(t, "HTTP/1.1 200 "+strings.Repeat("x", 1<<20), true), job.Protocol, false},
		"header without an end":      {rawServer(t, "HTTP/1.1 200 OK\r\n"+strings.Repeat("X-Again: y\r\n", 100_000), true), job.Protocol, false},
		"two lengths":                {rawServer(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", true), job.Protocol, false},
		"odd status":                 {rawServer(t, "HTTP/1.1 2OO OK\r\n\r\n", true), job.Protocol, false},
		"status 600":                 {rawServer(t, answer(600, "", ""), true), job.Protocol, false},
		"switching protocols":        {rawServer(t, "HTTP/1.1 101 X\r\nUpgrade: y\r\nConnection: upgrade\r\n\r\n", false), job.Protocol, false},
		"header too large":           {rawServer(t, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 70<<10)+"\r\n\r\n", true), job.Protocol, false},
		"header without a colon":     {rawServer(t, "HTTP/1.1 200 OK\r\nX y\r\n\r\n", true), job.Protocol, false},
		"1xx flood":                  {rawServer(t, flood, true), job.Protocol, false},
		"certificate of another":     {strings.Replace(serveTLS(t, http.NotFoundHandler()).URL, "127.0.0.1", "localhost", 1), job.TLS, true},
		"no TLS":                     {strings.Replace(serve(t, http.NotFoundHandler()), "http:", "https:", 1), job.TLS, true},
		"TLS closed at once":         {strings.Replace(accept(t, readSome), "http:", "https:", 1), job.Reset, false},
		"TLS reset in handshake":     {strings.Replace(accept(t, func(c net.Conn) { readSome(c); hard(c) }), "http:", "https:", 1), job.Reset, false},
		"HTTP asked of a TLS server": {strings.Replace(serveTLS(t, http.NotFoundHandler()).URL, "https:", "http:", 1), job.Status4xx, false},
	} {
		t.Run(name, func(t *testing.T) {
			got := call(t, httptarget.Config{URL: c.url})
			class := job.Failure
			if c.reason == job.Status4xx {
				class = job.Permanent // 400 in plain text, by courtesy of the server
			}
			if got.Class != class || got.Reason != c.reason || got.NoRetry != c.noRetry {
				t.Errorf("got %s, %s, no retry %t (%v), want %s, %s, %t", got.Class, got.Reason, got.NoRetry, got.Err, class, c.reason, c.noRetry)
			}
		})
	}
}

// readSome lets the other side finish connecting.
func readSome(c net.Conn) { _, _ = c.Read(make([]byte, 16)) }

// accept treats every connection so and closes it.
func accept(t testing.TB, treat func(net.Conn)) string {
	l := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			treat(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

func TestCall_sendsTheJobAsIs(t *testing.T) {
	var got *http.Request
	var body string
	address := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, body = r, string(b)
	}))
	h := newTarget(t, httptarget.Config{URL: address + "/a%2Fb?x=1", Method: "PUT", Headers: map[string]string{"x-fixed": "f"}})
	defer h.Close()
	r := request("payload")
	r.Job.Header = job.Header{"traceparent": {"00-1-2-01"}, "tracestate": {"bad\x00"}, "content-type": {"text/plain"}}
	r.Job.Deadline = time.Date(2026, 11, 21, 0, 0, 0, 0, time.FixedZone("", 3600))
	if result := h.Call(t.Context(), r); result.Class != job.Success {
		t.Fatal(result)
	}
	if body != "payload" || got.Method != http.MethodPut || got.RequestURI != "/a%2Fb?x=1" || got.ContentLength != 7 || "http://"+got.Host != address {
		t.Errorf("%s %s, %d bytes for %s: %q", got.Method, got.RequestURI, got.ContentLength, got.Host, body)
	}
	want := map[string]string{
		"Content-Type": "text/plain", "Content-Length": "7", "Idempotency-Key": "JOBS-42", "User-Agent": "workerd", "Traceparent": "00-1-2-01",
		"X-Fixed": "f", "Workerd-Job-Id": "order-17", "Workerd-Attempt": "3", "Workerd-Delivery": "4", "Workerd-Pool": "email",
		"Workerd-Subject": "jobs.email.normal", "Workerd-Enqueued-At": "2026-11-20T12:00:00.5Z", "Workerd-Timeout-Ms": "10000",
		"Workerd-Deadline": "2026-11-20T23:00:00Z",
	}
	for name, value := range want {
		if got.Header.Get(name) != value {
			t.Errorf("%s is %q, want %q", name, got.Header[name], value)
		}
	}
	if len(got.Header) != len(want) {
		t.Errorf("headers %v", got.Header)
	}
}

// An empty body is said to be empty, not chunked.
func TestCall_sendsAnEmptyPayloadAsLengthZero(t *testing.T) {
	for method, want := range map[string]string{"POST": "0", "PUT": "0", "GET": "", "DELETE": ""} {
		header := make(chan http.Header, 1)
		address := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			r.Header["Transfer-Encoding"] = r.TransferEncoding
			header <- r.Header
		}))
		h := newTarget(t, httptarget.Config{URL: address, Method: method})
		if result := h.Call(t.Context(), request("")); result.Class != job.Success {
			t.Error(result)
		} else if got := <-header; got.Get("Content-Length") != want || got.Get("Transfer-Encoding") != "" {
			t.Errorf("%s: %v", method, got)
		}
		h.Close()
	}
}

func TestCall_neverFollowsNorUsesAProxy(t *testing.T) {
	var elsewhere atomic.Int32
	other := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Setenv("HTTP_PROXY", other)
	t.Setenv("http_proxy", other)
	t.Setenv("NO_PROXY", "")
	for _, status := range []int{301, 302, 303, 307, 308} {
		raw := answer(status, "Location: "+other+"/next\r\n", "")
		got := call(t, httptarget.Config{URL: rawServer(t, raw, false)})
		if got.Class != job.Permanent || got.Status != status || got.Reason != job.Status3xx {
			t.Errorf("%d: %+v", status, got)
		}
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

func TestCall_keepsConnections(t *testing.T) {
	var dialled atomic.Int32
	l := listen(t)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := 200 + len(r.Header.Get("Idempotency-Key"))%2*300
		w.WriteHeader(status)
		_, _ = w.Write(make([]byte, 100_000))
	}), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			dialled.Add(1)
		}
	}}
	go func() { _ = server.Serve(l) }()
	defer func() { _ = server.Close() }()
	h := newTarget(t, httptarget.Config{URL: "http://" + l.Addr().String()})
	defer h.Close()
	for i := range 20 {
		r := request(strings.Repeat("x", i))
		r.Job.Sequence = uint64(i)
		h.Call(t.Context(), r)
	}
	if n := dialled.Load(); n != 1 {
		t.Errorf("20 calls in a row took %d connections", n)
	}
}

func TestCall_errorsTellNoURL(t *testing.T) {
	u := url.URL{Scheme: "http", Host: refusing(t), Path: "/" + canary, RawQuery: "key=" + canary}
	got := call(t, httptarget.Config{URL: u.String()})
	if strings.Contains(fmt.Sprintf("%v %+v %s", got.Err, got.Err, errors.Unwrap(got.Err)), canary) {
		t.Error(got.Err)
	}
}

// TestClose_endsDialling that nobody waits for any more.
func TestClose_endsDialling(t *testing.T) {
	l := listen(t)
	defer l.Close()
	h := newTarget(t, httptarget.Config{URL: "https://" + l.Addr().String()})
	ctx, cancel := context.WithCancelCause(t.Context())
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := l.Accept()
		cancel(job.ErrInterrupted) // the handshake hangs now
		accepted <- conn
	}()
	if got := h.Call(ctx, request("x")); got.Class != job.Ignored || got.Reason != job.Interrupted {
		t.Error(got)
	}
	h.Close()
	conn := <-accepted
	defer conn.Close()
	if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, io.EOF) {
		t.Log(err) // closed, one way or another
	}
	if got := h.Call(t.Context(), request("x")); got.Class != job.Failure {
		t.Errorf("a call after Close: %+v", got)
	}
}

func TestCall_saysWhoEndedIt(t *testing.T) {
	h := newTarget(t, httptarget.Config{URL: "http://" + refusing(t)})
	defer h.Close()
	for cause, want := range map[error]job.Result{
		job.ErrTryTimeout:   {Class: job.Timeout, Reason: job.TimedOut},
		job.ErrJobTimeout:   {Class: job.Ignored, Reason: job.TimedOut},
		job.ErrInterrupted:  {Class: job.Ignored, Reason: job.Interrupted},
		job.ErrLeaseLost:    {Class: job.Ignored, Reason: job.LeaseLost},
		errors.New("other"): {Class: job.Ignored, Reason: job.Interrupted},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		got := h.Call(ctx, request("x"))
		if !errors.Is(got.Err, cause) {
			t.Errorf("%v does not wrap %v", got.Err, cause)
		}
		checkResult(t, got, want, got.Err.Error())
	}
}

// BadRequest costs no connection.
func TestCall_refusesABrokenHeaderBeforeDialling(t *testing.T) {
	h := newTarget(t, httptarget.Config{URL: "http://" + refusing(t), ForwardHeaders: []string{"X-Tenant", "ce-*"}})
	defer h.Close()
	for _, header := range []job.Header{
		{"x-tenant": {"a\nb"}}, {"X-Tenant": {"a", "\x00"}}, {"ce-id": {"\x7f"}}, {"ce-i d": {"x"}}, {"Content-Type": {"a\rb"}},
	} {
		r := request("x")
		r.Job.Header = header
		got := h.Call(t.Context(), r)
		if got.Class != job.Permanent || got.Reason != job.BadRequest || got.Err == nil {
			t.Errorf("%q: %+v", header, got)
		}
	}
}

// TestCall_isNoSuccessOnceItsContextHasEnded: a handler that learns that the
// caller has gone returns, which is a 200 to its server. Over TLS there is a
// moment in which the caller could still read it; one call in some dozens did.
func TestCall_isNoSuccessOnceItsContextHasEnded(t *testing.T) {
	for name, start := range map[string]func(http.ResponseWriter){
		"before the answer": func(http.ResponseWriter) {},
		"within the answer": begin,
	} {
		server := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			start(w)
			<-r.Context().Done()
		}))
		h := newTarget(t, httptarget.Config{URL: server.URL})
		for range 50 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, job.ErrTryTimeout)
			if got := h.Call(ctx, request("x")); got.Class != job.Timeout {
				t.Errorf("%s: %+v", name, got)
			}
			cancel()
		}
		h.Close()
	}
}
