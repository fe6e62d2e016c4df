// Package httptarget calls a downstream service by HTTP/1.1: one request per
// call, the job's payload as its body, the status as the answer.
//
// It guarantees:
//   - one Call is at most one request on the wire; net/http's own repetition
//     is disabled and redirects are never followed;
//   - the payload goes out byte for byte, with an idempotency key that is the
//     same at every try, attempt and delivery of the job;
//   - nothing a job says reaches another host, another path or a header that
//     the configuration did not allow;
//   - a success was read to its end, within max_response, before the context
//     ended;
//   - memory per call is bounded whatever the target sends, and error texts
//     are one bounded line without the configured secrets.
//
// A Call's way:
//
//	header ──bad──────────────────────────────────────────► permanent
//	  │
//	request ──context ended──► timeout (ErrTryTimeout) or ignored
//	  │     └─no answer──────► failure (connect, dns, tls, reset, protocol)
//	judge: Workerd-Disposition, else classify rules, else defaults
//	  │
//	body ──context ended─────► timeout or ignored
//	  ├────cut off───────────► failure, if judged success or permanent
//	  ├────beyond the limit──► permanent, if judged success
//	  └────whole─────────────► as judged
//
// Trying again, waiting, breaking and limiting are left to the pipeline. One
// thing it leaves to net/http: when a target answers before it has read the
// whole request, the payload may still be read for a moment after Call has
// returned. It is never written to.
package httptarget

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target"
)

const (
	// maxHeader bounds a response's header; net/http's default is 10 MiB.
	maxHeader = 64 << 10
	// idleTimeout is short, as many servers close unused connections after
	// 60 s or less, and a request that meets the closing fails.
	idleTimeout = 30 * time.Second
	// bufferSize of the buffers that bodies are read through.
	bufferSize = 8 << 10
	// headSize is how much of a body is kept for the error text: enough that
	// a secret is struck out before the text is cut.
	headSize = 2 << 10
)

var _ target.Target = (*Target)(nil)

// Target is an HTTP service. Any number of goroutines may Call at once.
type Target struct {
	host        string // for error texts; holds no secrets
	headers     headerPlan
	classes     *classifier
	secrets     redactor
	maxResponse int64
	maxWait     time.Duration

	// template of all requests: method and URL, parsed once.
	template *http.Request
	// bodiless methods get no body at all if the payload is empty.
	bodiless bool

	transport Wire
	dialer    *dialer
	buffers   sync.Pool // of *[]byte, each bufferSize long
}

// Wire brings a request to a downstream and an answer back. Any number of
// goroutines may use it at once. [*http.Transport] is one.
type Wire interface {
	http.RoundTripper
	CloseIdleConnections()
}

// New makes the target. cfg gets its defaults here if it has none yet; the
// error tells every problem of an invalid one. Nothing is dialled.
func New(cfg Config) (*Target, error) { return NewOver(cfg, nil) }

// NewOver is New with a wire of the caller's, for trying out what answers come
// to. A nil wire is the network.
func NewOver(cfg Config, wire Wire) (*Target, error) {
	cfg = cfg.WithDefaults()
	var problems []error
	cfg.Validate(func(field, message string) { problems = append(problems, fmt.Errorf("%s: %s", field, message)) })
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	address, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("url: is not a URL")
	}
	classes, err := compile(cfg.Classify)
	if err != nil {
		return nil, err
	}
	d := newDialer(address.Hostname())
	if wire == nil {
		wire = newTransport(cfg, d)
	}
	return &Target{
		host: address.Host, headers: newHeaderPlan(cfg), classes: classes, secrets: newRedactor(cfg.Headers),
		maxResponse: cfg.MaxResponse, maxWait: cfg.MaxRetryAfter,
		template: &http.Request{Method: cfg.Method, URL: address},
		bodiless: isBodiless(cfg.Method), transport: wire, dialer: d,
		buffers: sync.Pool{New: func() any { return new(make([]byte, bufferSize)) }},
	}, nil
}

func newTransport(cfg Config, d *dialer) *http.Transport {
	idle := cfg.MaxIdleConns
	if idle == 0 {
		idle = defaultMaxIdleConns
	}
	// HTTP/1.1 only: one call is one connection, so that what happens to one
	// happens to no other. HTTP/2 would also repeat requests by itself.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Protocols:              protocols,
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idle,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
	}
}

// Close stops dialling and closes the unused connections.
func (t *Target) Close() {
	t.dialer.close()
	t.transport.CloseIdleConnections()
}

// Call sends the job and reads the whole answer.
func (t *Target) Call(ctx context.Context, r target.Request) job.Result {
	header, err := t.headers.build(r)
	if err != nil {
		return job.Result{Class: job.Permanent, Reason: job.BadRequest, Err: err}
	}
	// The transport itself and not a Client: no redirects, no cookies, no
	// error that quotes the URL.
	resp, err := t.transport.RoundTrip(t.request(ctx, header, r.Job.Payload)) //nolint:bodyclose // answered closes it
	if err != nil {
		return t.broken(ctx, err)
	}
	return t.answered(ctx, resp, r.Keep)
}

// request makes what net/http must not send twice. GetBody stays nil, so that
// it has no second body to send. Without a body it repeats GET, HEAD and
// OPTIONS, unless it is given an empty one, of which it notices the emptiness
// only when sending; and every method with a canonical Idempotency-Key, which
// is why such a request carries it in lower case (see [headerPlan.build]).
func (t *Target) request(ctx context.Context, header http.Header, payload []byte) *http.Request {
	r := t.template.WithContext(ctx)
	r.Header = header
	r.ContentLength = int64(len(payload))
	if len(payload) == 0 && !t.bodiless {
		r.Body = http.NoBody
		return r
	}
	// Exactly these two types: net/http knows them, and sends header and
	// body in one write.
	r.Body = io.NopCloser(bytes.NewReader(payload))
	return r
}

// isBodiless reports methods that net/http repeats of its own accord.
func isBodiless(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// broken is the result of a call without a whole answer.
func (t *Target) broken(ctx context.Context, err error) job.Result {
	if ctx.Err() != nil {
		return t.ended(context.Cause(ctx))
	}
	reason, noRetry := networkReason(err)
	return job.Result{Class: job.Failure, Reason: reason, NoRetry: noRetry, Err: t.networkError(err)}
}

// ended is the result of a call that was given up.
func (t *Target) ended(cause error) job.Result {
	class, reason := job.Ignored, job.Interrupted
	switch {
	case errors.Is(cause, job.ErrTryTimeout):
		class, reason = job.Timeout, job.TimedOut
	case errors.Is(cause, job.ErrJobTimeout):
		reason = job.TimedOut
	case errors.Is(cause, job.ErrLeaseLost):
		reason = job.LeaseLost
	}
	return job.Result{Class: class, Reason: reason, Err: t.networkError(cause)}
}

// answered is the result of a call whose response header is there. Of a body
// that was read to its end the given number of bytes is kept.
func (t *Target) answered(ctx context.Context, resp *http.Response, keep int) job.Result {
	defer func() { _ = resp.Body.Close() }() // of an unread body: closes the connection
	if resp.StatusCode < minStatus {
		// 101 turns the connection into something else, of which no end comes.
		err := fmt.Errorf("HTTP status %d is not a final one", resp.StatusCode)
		return job.Result{Class: job.Failure, Reason: job.Protocol, Status: resp.StatusCode, Err: t.networkError(err)}
	}
	result, said := t.judge(resp)
	buffer := t.buffers.Get().(*[]byte)
	defer t.buffers.Put(buffer)
	body, kept := keeping(resp.Body, keep)
	head, err := drain(body, *buffer, t.maxResponse)
	if err != nil || ctx.Err() != nil {
		result = t.unread(ctx, result, err)
	} else if kept != nil {
		result.Reply = kept.reply(resp)
	}
	if result.Class != job.Success && result.Err == nil {
		result.Err = t.statusError(resp.StatusCode, said, head)
	}
	return result
}

// judge says what the response header means, without an error yet.
func (t *Target) judge(resp *http.Response) (result job.Result, said string) {
	result.Status = resp.StatusCode
	var wait time.Duration
	var throttling bool
	if value := first(resp.Header, "Retry-After"); value != "" {
		wait, throttling = retryAfter(value, time.Now(), t.maxWait)
	}
	result.Class, result.Reason = t.classes.status(resp.StatusCode, throttling)
	if value := first(resp.Header, job.HeaderDisposition); value != "" {
		if class, reason, ok := disposition(value); ok {
			result.Class, result.Reason, said = class, reason, value
		}
	}
	if result.Class != job.Success {
		result.RetryAfter = wait
	}
	return result, said
}

// first is Header.Get without making the key canonical once more.
func first(h http.Header, canonical string) string {
	if v := h[canonical]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// unread is the result of a call whose body has no end within the limit, or
// whose context ended first. What was judged stands if it leads to another try
// anyway, and if the body is only too long for a refusal.
//
// A whole answer does not count after the context has ended: a handler that
// notices our leaving returns, its server makes a 200 of that, and over TLS
// that 200 may still reach us. Taking it for a success would lose the job.
func (t *Target) unread(ctx context.Context, judged job.Result, err error) job.Result {
	final := judged.Class == job.Success || judged.Class == job.Permanent
	switch {
	case ctx.Err() != nil:
		given := t.ended(context.Cause(ctx))
		judged.Class, judged.Reason, judged.Err = given.Class, given.Reason, given.Err
	case errors.Is(err, errTooLarge):
		if judged.Class == job.Success {
			judged.Class, judged.Reason = job.Permanent, job.ResponseSize
			judged.Err = t.networkError(fmt.Errorf("%w (%d bytes)", errTooLarge, t.maxResponse))
		}
	case final:
		reason, noRetry := networkReason(err)
		judged.Class, judged.Reason, judged.NoRetry = job.Failure, reason, noRetry
		judged.Err = t.networkError(fmt.Errorf("HTTP %d, then: %w", judged.Status, err))
	}
	return judged
}

// drain reads a body to its end and keeps its beginning, which lies in buffer.
func drain(body io.Reader, buffer []byte, limit int64) (head []byte, err error) {
	kept, free := 0, buffer
	for total := int64(0); ; {
		n, err := body.Read(free)
		kept = min(kept+n, headSize)
		free = buffer[kept:]
		total += int64(n)
		switch {
		case total > limit:
			return buffer[:kept], errTooLarge
		case errors.Is(err, io.EOF):
			return buffer[:kept], nil
		case err != nil:
			return buffer[:kept], err
		}
	}
}
