package httptarget

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// maxProbe is how much of a health check's answer is read. A longer one is
// judged by its status, and its connection is closed.
const maxProbe = 64 << 10

// Probe asks with GET for a path of the target's host, with the fixed headers
// of the target and nothing of a job. A 2xx answer is a success whatever
// classify says, any other a failure; Retry-After is read as from a call.
func (t *Target) Probe(ctx context.Context, path string) job.Result {
	at, err := url.ParseRequestURI(path)
	if err != nil {
		return job.Result{Class: job.Failure, Reason: job.BadRequest, Err: t.networkError(err)}
	}
	request := (&http.Request{
		Method: http.MethodGet, Header: maps.Clone(t.headers.fixed),
		URL:  &url.URL{Scheme: t.template.URL.Scheme, Host: t.template.URL.Host, Path: at.Path, RawPath: at.RawPath, RawQuery: at.RawQuery},
		Body: io.NopCloser(bytes.NewReader(nil)), // see [Target.request]: one probe is one request
	}).WithContext(ctx)
	resp, err := t.transport.RoundTrip(request)
	if err != nil {
		return t.broken(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	return t.probed(ctx, resp)
}

// probed is the result of a probe whose response header is there.
func (t *Target) probed(ctx context.Context, resp *http.Response) job.Result {
	buffer := t.buffers.Get().(*[]byte)
	defer t.buffers.Put(buffer)
	head, err := drain(resp.Body, *buffer, maxProbe)
	if ctx.Err() != nil || err != nil && !errors.Is(err, errTooLarge) {
		return t.broken(ctx, fmt.Errorf("HTTP %d, then: %w", resp.StatusCode, err))
	}
	r := job.Result{Class: job.Failure, Status: resp.StatusCode}
	if resp.StatusCode/100 == 2 {
		r.Class, r.Reason = job.Success, job.OK
		return r
	}
	_, r.Reason = t.classes.status(resp.StatusCode, false)
	r.RetryAfter, _ = retryAfter(first(resp.Header, "Retry-After"), time.Now(), t.maxWait)
	r.Err = t.statusError(resp.StatusCode, "", head)
	return r
}
