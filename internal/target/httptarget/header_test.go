package httptarget

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target"
)

func requestWith(h job.Header) target.Request {
	return target.Request{Pool: "p", Attempt: 1, Try: 1, Timeout: time.Second, Job: &job.Job{
		ID: "id", Stream: "S", Sequence: 9, Subject: "s", Header: h, Payload: []byte("x"), Deliveries: 1, Enqueued: time.Unix(0, 0),
	}}
}

// passed builds the header and leaves out what every request has.
func passed(t *testing.T, cfg Config, h job.Header) http.Header {
	t.Helper()
	p := newHeaderPlan(cfg)
	out, err := p.build(requestWith(h))
	if err != nil {
		t.Fatal(err)
	}
	for name := range out {
		if strings.HasPrefix(name, "Workerd-") || name == "User-Agent" || name == keyHeader {
			delete(out, name)
		}
	}
	return out
}

func TestHeader_passesOnlyWhatIsAllowed(t *testing.T) {
	cfg := Config{Headers: map[string]string{"x-fixed": "ours"}, ForwardHeaders: []string{"x-tenant", "CE-*", "x-f*", "nats-*", "workerd-*", "c*"}}
	got := passed(t, cfg, job.Header{
		"X-TENANT": {"a", "b"}, "ce-id": {"1"}, "Ce-Type": {"t"}, "X-Other": {"no"}, "x-Fixed": {"no"}, "X-Forwarded-For": {"no"},
		"Nats-Msg-Id": {"no"}, "workerd-pool": {"no"}, "cookie": {"no"}, "CONTENT-LENGTH": {"no"}, "connection": {"no"}, "ce-empty": {}, "Authorization": {"no"},
	})
	want := http.Header{"X-Tenant": {"a", "b"}, "Ce-Id": {"1"}, "Ce-Type": {"t"}, "X-Fixed": {"ours"}, "Content-Type": {defaultType}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHeader_fixedContentTypeWins(t *testing.T) {
	cfg := Config{Headers: map[string]string{"content-type": "application/json"}}
	want := http.Header{"Content-Type": {"application/json"}}
	if diff := cmp.Diff(want, passed(t, cfg, job.Header{"Content-Type": {"text/plain\n"}})); diff != "" {
		t.Error(diff)
	}
}

func TestLookup_isTheSameEveryTime(t *testing.T) {
	h := job.Header{"IDEMPOTENCY-key": {"c"}, "idempotency-KEY": {"b"}, "IDEMPOTENCY-KEY": {"a"}, "\u212Adempotency-Key": {"x"}, "iDempotency-Key": nil}
	for range 100 {
		if got := lookup(h, "Idempotency-Key"); len(got) != 1 || got[0] != "a" {
			t.Fatal(got)
		}
	}
	h["Idempotency-Key"] = []string{"exact"}
	if got := lookup(h, "Idempotency-Key"); got[0] != "exact" {
		t.Error(got)
	}
}

// Requests without a body hide the key from net/http, not from the target.
func TestHeader_emptyPayloadHasTheKeyInLowerCase(t *testing.T) {
	p := newHeaderPlan(Config{})
	r := requestWith(nil)
	r.Job.Payload = nil
	out, err := p.build(r)
	if err != nil || out[keyHeader] != nil || len(map[string][]string(out)["idempotency-key"]) != 1 {
		t.Errorf("%v, %v", out, err)
	}
}

var errReached = errors.New("reached the network")

// acceptedByNetHTTP asks the judge that counts: net/http checks headers by
// httpguts before it dials.
func acceptedByNetHTTP(h http.Header) error {
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errReached }}
	r, err := http.NewRequest(http.MethodPost, "http://host.invalid/", nil)
	if err != nil {
		return err
	}
	r.Header = h
	if _, err = transport.RoundTrip(r); !errors.Is(err, errReached) {
		return err
	}
	return nil
}

// FuzzHeaders: whatever job and allow-list say, the header is one that
// net/http sends, or the job is refused; and nothing denied gets through.
func FuzzHeaders(f *testing.F) {
	f.Add("X-Tenant", "x-tenant", "value", "jobs.a")
	f.Add("ce-*", "ce-id", "a\r\nb", "jobs.\x01")
	f.Add("X-*", "X-Forwarded-For", "1.2.3.4", "")
	f.Add("Workerd-*", "Workerd-Idempotency-Key", "k", "\u2028")
	f.Add("c*", "Content-Type", "\x00", "x")
	f.Add("t*", "Te", "trailers", "x")
	f.Fuzz(func(t *testing.T, allowed, name, value, strange string) {
		cfg := Config{ForwardHeaders: []string{allowed}, Headers: map[string]string{"Authorization": "ours", "X-Fixed": "ours"}}
		isBad := false
		cfg.Validate(func(field, _ string) { isBad = isBad || strings.HasPrefix(field, "forward_headers") })
		if isBad {
			t.Skip()
		}
		p := newHeaderPlan(cfg)
		r := requestWith(job.Header{name: {value}, "Plain": {"x"}})
		r.Job.ID, r.Job.Subject, r.Job.Stream, r.Pool = strange, strange, strange, strange
		out, err := p.build(r)
		if err != nil {
			if isValue(value) && isToken(name) {
				t.Errorf("refused without need: %v", err)
			}
			return
		}
		if err := acceptedByNetHTTP(out); err != nil {
			t.Errorf("%q: %v", out, err)
		}
		checkNothingDenied(t, out)
	})
}

func checkNothingDenied(t *testing.T, out http.Header) {
	t.Helper()
	ours := []string{
		keyHeader, "User-Agent", "Authorization", job.HeaderJobID, job.HeaderAttempt, job.HeaderDelivery, job.HeaderPool, job.HeaderSubject,
		job.HeaderEnqueuedAt, job.HeaderTimeoutMS,
	}
	for name := range out {
		if isDenied(name) && !slices.Contains(ours, name) {
			t.Errorf("%s got through: %q", name, out)
		}
	}
	if out.Get("Authorization") != "ours" || out.Get("X-Fixed") != "ours" || out.Get("User-Agent") != userAgent {
		t.Errorf("a job replaced what is fixed: %q", out)
	}
}

// TestHeaderRules_areThoseOfNetHTTP, byte by byte.
func TestHeaderRules_areThoseOfNetHTTP(t *testing.T) {
	for c := range 256 {
		s := "a" + string([]byte{byte(c)}) + "b"
		if got, want := isValue(s), acceptedByNetHTTP(http.Header{"X": {s}}) == nil; got != want {
			t.Errorf("value with byte %#x: %t, want %t", c, got, want)
		}
		if got, want := isToken(s), acceptedByNetHTTP(http.Header{s: {"x"}}) == nil; got != want {
			t.Errorf("name with byte %#x: %t, want %t", c, got, want)
		}
	}
	if isToken("") {
		t.Error("an empty name")
	}
}
