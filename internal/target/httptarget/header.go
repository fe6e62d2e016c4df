package httptarget

import (
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target"
)

const (
	keyHeader     = "Idempotency-Key"
	defaultType   = "application/octet-stream"
	userAgent     = "workerd"
	maxKey        = 255
	headersOfOurs = 11
)

// headerPlan is what is known of the request header before there is a job.
type headerPlan struct {
	// fixed by the configuration and the same in every request, therefore shared.
	fixed http.Header
	// forward: canonical names of the job headers passed on.
	forward []string
	// prefixes of more of them, canonical.
	prefixes []string
	// rawKey hides the idempotency key from net/http, see [headerPlan.build].
	rawKey string
}

func newHeaderPlan(cfg Config) headerPlan {
	p := headerPlan{fixed: make(http.Header, len(cfg.Headers)+1), rawKey: strings.ToLower(keyHeader)}
	p.fixed["User-Agent"] = []string{userAgent}
	for name, value := range cfg.Headers {
		p.fixed[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
	}
	for _, name := range cfg.ForwardHeaders {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		if stem, isPrefix := strings.CutSuffix(canonical, "*"); isPrefix {
			p.prefixes = append(p.prefixes, stem)
		} else {
			p.forward = append(p.forward, canonical)
		}
	}
	return p
}

// build makes the header of one request. An error means that the job carries
// a header which HTTP cannot.
//
// net/http sends a request without a body again by itself when it finds an
// idempotency key under its canonical name; such a request gets the key in
// lower case, which is the same header to everybody else.
func (p *headerPlan) build(r target.Request) (http.Header, error) {
	out := make(http.Header, len(p.fixed)+len(p.forward)+headersOfOurs)
	maps.Copy(out, p.fixed)
	w := headerWriter{out: out, values: make([]string, 0, headersOfOurs)}
	if err := p.pass(&w, r.Job.Header); err != nil {
		return nil, err
	}
	if _, ok := out["Content-Type"]; !ok {
		w.set("Content-Type", defaultType)
	}
	key := keyHeader
	if len(r.Job.Payload) == 0 {
		key = p.rawKey
	}
	w.own(r, key)
	return out, nil
}

// pass copies what the job may say.
func (p *headerPlan) pass(w *headerWriter, from job.Header) error {
	if len(from) == 0 {
		return nil
	}
	for _, name := range p.forward {
		if err := p.passOne(w, name, lookup(from, name)); err != nil {
			return err
		}
	}
	if err := p.passOne(w, "Content-Type", lookup(from, "Content-Type")); err != nil {
		return err
	}
	// A trace context that cannot be read is to be ignored, not punished
	// (W3C Trace Context section 3.2.2.5).
	_ = p.passOne(w, "Traceparent", lookup(from, "Traceparent"))
	_ = p.passOne(w, "Tracestate", lookup(from, "Tracestate"))
	if len(p.prefixes) == 0 {
		return nil
	}
	return p.passPrefixed(w, from)
}

func (p *headerPlan) passOne(w *headerWriter, name string, values []string) error {
	if len(values) == 0 || p.fixed[name] != nil {
		return nil
	}
	for _, v := range values {
		if !isValue(v) {
			return fmt.Errorf("job header %s: the value has a character which HTTP does not allow", name)
		}
	}
	w.out[name] = values
	return nil
}

// passPrefixed goes by sorted keys, so that of two which differ in case only
// the same one wins every time.
func (p *headerPlan) passPrefixed(w *headerWriter, from job.Header) error {
	for _, key := range slices.Sorted(maps.Keys(from)) {
		if !p.hasPrefix(key) {
			continue
		}
		if !isToken(key) {
			return fmt.Errorf("job header %q: not a name which HTTP allows", clean(key, maxName))
		}
		name := textproto.CanonicalMIMEHeaderKey(key)
		if _, taken := w.out[name]; taken || isDenied(name) {
			continue
		}
		if err := p.passOne(w, name, from[key]); err != nil {
			return err
		}
	}
	return nil
}

func (p *headerPlan) hasPrefix(key string) bool {
	for _, stem := range p.prefixes {
		if len(key) >= len(stem) && strings.EqualFold(key[:len(stem)], stem) {
			return true
		}
	}
	return false
}

// headerWriter sets headers whose values share one array.
type headerWriter struct {
	out    http.Header
	values []string
}

func (w *headerWriter) set(name, value string) {
	w.values = append(w.values, value)
	n := len(w.values)
	w.out[name] = w.values[n-1 : n : n]
}

// own sets the headers which only workerd may. Numbers and times are written
// into one string and cut from it.
func (w *headerWriter) own(r target.Request, keyName string) {
	j := r.Job
	var scratch [160]byte
	text := append(scratch[:0], j.Stream...)
	text = append(text, '-')
	text = strconv.AppendUint(text, j.Sequence, 10)
	key := len(text)
	text = j.Enqueued.UTC().AppendFormat(text, time.RFC3339Nano)
	enqueued := len(text)
	text = strconv.AppendInt(text, r.Timeout.Milliseconds(), 10)
	timeout := len(text)
	if !j.Deadline.IsZero() {
		text = j.Deadline.UTC().AppendFormat(text, time.RFC3339Nano)
	}
	all := string(text)

	w.set(keyName, idempotencyKey(j.Header, all[:key]))
	w.set(job.HeaderJobID, printable(j.ID))
	w.set(job.HeaderAttempt, strconv.Itoa(r.Attempt))
	w.set(job.HeaderDelivery, strconv.Itoa(j.Deliveries))
	w.set(job.HeaderPool, printable(r.Pool))
	w.set(job.HeaderSubject, printable(j.Subject))
	w.set(job.HeaderEnqueuedAt, all[key:enqueued])
	w.set(job.HeaderTimeoutMS, all[enqueued:timeout])
	if timeout < len(all) {
		w.set(job.HeaderDeadline, all[timeout:])
	}
}

// idempotencyKey is the publisher's key if it is 1 to 255 printable ASCII
// bytes, otherwise the job's place in its stream.
func idempotencyKey(from job.Header, otherwise string) string {
	if len(from) > 0 {
		if v := lookup(from, job.HeaderIdempotencyKey); len(v) > 0 && isKey(v[0]) {
			return v[0]
		}
	}
	return printable(otherwise)
}

func isKey(s string) bool {
	if s == "" || len(s) > maxKey || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// lookup finds a header in any case. The exact name wins, then the smallest
// key, so that the answer is the same at every call. name must be ASCII.
func lookup(from job.Header, name string) []string {
	if v := from[name]; len(v) > 0 {
		return v
	}
	best := ""
	for key, v := range from {
		if len(v) > 0 && len(key) == len(name) && strings.EqualFold(key, name) && (best == "" || key < best) {
			best = key
		}
	}
	return from[best]
}

// printable replaces what a header value must not hold. It is for names that
// come from NATS, which are looser than HTTP.
func printable(s string) string {
	if isValue(s) {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if isControl(c) {
			b[i] = '?'
		}
	}
	return string(b)
}
