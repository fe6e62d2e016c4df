package admin_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/admin"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a backend that is what it was made to be.
type fake struct {
	status      admin.Status
	ready, live []admin.Check
	controls    []admin.Control
}

func (f *fake) Status() admin.Status { return f.status }
func (f *fake) Ready() []admin.Check { return f.ready }
func (f *fake) Live() []admin.Check  { return f.live }

// Control notes what is wanted. It knows nothing called "nobody", and refuses
// what is called "never".
func (f *fake) Control(c admin.Control) error {
	switch c.Name {
	case "nobody":
		return fmt.Errorf("pool %q: %w", c.Name, admin.ErrUnknownName)
	case "never":
		return errors.New("it cannot be done")
	}
	f.controls = append(f.controls, c)
	return nil
}

// elsewhere is a listener that claims not to be on a loopback address.
type elsewhere struct{ net.Listener }

func (elsewhere) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 8422} }

// listen returns a loopback listener on a free port.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start runs a server for the length of the test.
func start(t *testing.T, s *admin.Server, l net.Listener) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { done <- s.Serve(ctx, l) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return func() error { cancel(); return <-done }
}

// site is a server on a loopback address and a client for it.
type site struct {
	*testing.T
	addr   string
	client *http.Client
}

func visit(t *testing.T, f *fake, cfg admin.Config) site {
	t.Helper()
	l := listen(t)
	start(t, newServer(f, cfg), l)
	return site{t, l.Addr().String(), client(t)}
}

// client with connections of its own, all closed when the test ends.
func client(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// ask makes a request and reads the answer.
func (s site) ask(method, path string, edit func(*http.Request)) (*http.Response, string) {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), method, "http://"+s.addr+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	if edit != nil {
		edit(r)
	}
	res, err := s.client.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	return res, string(body)
}

func (s site) get(path string) string {
	s.Helper()
	_, body := s.ask(http.MethodGet, path, nil)
	return body
}

func newServer(f *fake, cfg admin.Config) *admin.Server {
	return admin.New(cfg, f, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("workerd_ready 1\n"))
	}), slog.New(slog.DiscardHandler))
}

// golden compares text with a file, which -update rewrites.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs, renew with -update if that is right (-want +got):\n%s", file, diff)
	}
}

func noon() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

func at(before time.Duration) time.Time { return noon().Add(-before) }

func consumers(pool string, pending uint64) []admin.Consumer {
	return []admin.Consumer{
		{Name: pool + "-high", Stream: "JOBS", Priority: "high", Ready: true, Pending: pending / 10},
		{Name: pool + "-normal", Stream: "JOBS", Priority: "normal", Ready: true, Pending: pending - pending/10, AckPending: 3},
	}
}

// calmDay: everything runs.
func calmDay() *fake {
	checks := []admin.Check{{Name: "nats", OK: true}, {Name: "consumers", OK: true, Message: "4 of 4"}}
	return &fake{ready: checks, live: []admin.Check{{Name: "pools", OK: true}}, status: admin.Status{
		Version: "v0.1.0", Revision: "0123abcd", GoVersion: "go1.26", Instance: "a1f3@host-7",
		Now: noon(), Started: at(3*time.Hour + 12*time.Minute), Ready: true, Checks: checks,
		NATS: admin.NATS{Connected: true, URL: "nats://127.0.0.1:4222", Reconnects: 1, UnsettledAcks: 2},
		Pools: []admin.Pool{
			{
				Name: "email", Target: "mailer", State: admin.PoolRunning, Concurrency: 16, Limit: 16, InFlight: 14, Waiting: 3,
				OldestJobAgeSeconds: 0.42, JobsPerSecond: new(88.2), LastCompletion: noon(), Jobs: admin.Jobs{OK: 1_012_345, Retry: 13_310, Deferred: 20},
				Consumers: consumers("email", 1204),
			},
			{
				Name: "reports", Target: "pdf", State: admin.PoolRunning, Concurrency: 4, Limit: 4, InFlight: 1,
				OldestJobAgeSeconds: 11.4, JobsPerSecond: new(0.04), Jobs: admin.Jobs{OK: 611}, Consumers: consumers("reports", 0),
			},
		},
		Targets: []admin.Target{
			{
				Name: "mailer", Kind: "http", URL: "http://mailer.internal:8080/send", Calls: 1_025_700, Failed: 13_400, CallsPerSecond: new(91.0),
				RetryBudgetRatio: new(0.97), Breaker: admin.Breaker{State: admin.BreakerClosed, Total: 512, Bad: 6},
			},
			{Name: "pdf", Kind: "http", URL: "http://pdf:9000/", Calls: 611, CallsPerSecond: new(0.04), Breaker: admin.Breaker{State: admin.BreakerClosed}},
		},
	}}
}

// outage: a target is down and another is being probed.
func outage() *fake {
	f := calmDay()
	s := &f.status
	s.Pools[1] = admin.Pool{
		Name: "reports", Target: "pdf", State: admin.PoolHeld, HoldReason: "breaker", Since: at(3*time.Minute + 12*time.Second), Until: at(-6 * time.Second),
		Concurrency: 4, JobsPerSecond: new(0.0), Jobs: admin.Jobs{OK: 611, Retry: 40, Dead: 2}, Consumers: consumers("reports", 9551),
	}
	s.Pools = append(s.Pools, admin.Pool{
		Name: "thumbnails", Target: "images", State: admin.PoolHeld, HoldReason: "breaker", Since: at(20 * time.Second),
		Concurrency: 8, Limit: 1, InFlight: 1, Waiting: 2, OldestJobAgeSeconds: 21, Jobs: admin.Jobs{OK: 80, Retry: 9}, Consumers: consumers("thumbnails", 77),
	}, admin.Pool{
		Name: "audit", Target: "mailer", State: admin.PoolStarting, Concurrency: 2, Limit: 2, Since: at(9 * time.Second),
		Consumers: []admin.Consumer{{Name: "audit-low", Stream: "AUDIT", Priority: "low", Problem: "stream AUDIT does not exist"}},
	})
	s.Targets[1].Breaker = admin.Breaker{
		State: admin.BreakerOpen, Reason: "failure_rate", Since: at(14 * time.Second), Until: at(-6 * time.Second), Opens: 3, Total: 20, Bad: 17, Rejected: 12,
	}
	s.Targets[1].RetryBudgetRatio, s.Targets[1].Failed = new(0.0), 57
	s.Targets = append(s.Targets, admin.Target{
		Name: "images", Kind: "http", URL: "https://img.example/api", Calls: 98, Failed: 11, CallsPerSecond: new(0.2), RetryBudgetRatio: new(0.4),
		Breaker: admin.Breaker{State: admin.BreakerHalfOpen, Since: at(time.Second), Probes: 1, Proven: 2, Rejected: 3},
	})
	s.Pools = append(s.Pools, admin.Pool{
		Name: "quotes", Target: "prices", State: admin.PoolRunning, Concurrency: 8, Limit: 8, InFlight: 2, JobsPerSecond: new(31.0),
		Jobs: admin.Jobs{OK: 40_211}, Consumers: consumers("quotes", 0),
	})
	s.Targets = append(s.Targets, admin.Target{
		Name: "prices", Kind: "http", URL: "https://prices.example/v2", Calls: 38_010, Failed: 41, CallsPerSecond: new(0.0), RetryBudgetRatio: new(0.9),
		Breaker: admin.Breaker{State: admin.BreakerClosed},
		Degraded: &admin.Degraded{
			On: true, By: admin.ByHealth, Note: "5 health checks in a row were not good, the last: status_5xx", Since: at(71 * time.Second), Probe: "/healthz", Healthy: 2,
		},
	})
	s.Cache = &admin.Cache{Entries: 1204, MaxEntries: 10_000, Bytes: 12 << 20, MaxBytes: 64 << 20, Hits: 2201, Misses: 12, Stale: 3, Evicted: 0}
	s.Failures = []admin.Failure{
		{At: at(2 * time.Second), Pool: "reports", Target: "pdf", JobID: "7781", Subject: "jobs.reports.monthly", Attempt: 4, Outcome: "retry", Reason: "status_5xx", Status: 503, Error: `HTTP 503 "overloaded"`, NextSeconds: 45},
		{At: at(9 * time.Second), Pool: "reports", Target: "pdf", JobID: "JOBS:7779", Subject: "jobs.reports.daily", Attempt: 10, Outcome: "dead", Reason: "max_attempts", Status: 503, Error: `failed 10 times (max_attempts): HTTP 503 "overloaded"`},
		{At: at(40 * time.Second), Pool: "thumbnails", Target: "images", JobID: "c6e1f0aa-13b5-4e55-9d3a-6d0f5dd8c1aa", Subject: "jobs.thumbs", Outcome: "deferred", Reason: "breaker", NextSeconds: 12},
	}
	f.ready = append([]admin.Check{}, f.ready...)
	f.ready[1] = admin.Check{Name: "consumers", Message: "3 of 4 are ready; audit-low: stream AUDIT does not exist"}
	s.Ready, s.Checks = false, f.ready
	return f
}

// leaving: SIGTERM came six seconds ago.
func leaving() *fake {
	f := calmDay()
	s := &f.status
	s.Ready, f.ready = false, []admin.Check{{Name: "shutdown", Message: "draining"}}
	s.Checks = f.ready
	s.Drain = &admin.Drain{Phase: "drain", Since: at(6100 * time.Millisecond), Timeout: 25, AtStart: 14, Running: 5, HandedBack: 3}
	for i := range s.Pools {
		s.Pools[i].State, s.Pools[i].Since, s.Pools[i].Limit, s.Pools[i].Waiting = admin.PoolDraining, at(6*time.Second), 0, 0
	}
	s.Pools[0].InFlight, s.Pools[1].InFlight = 5, 0
	return f
}

// attacks on a page that shows what others wrote.
func attacks() []string {
	return []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'><svg onload=alert(1)>`, `</title><script>alert(1)</script>`,
		`javascript:alert(1)`, `</td></tr></table><h1>owned</h1>`, `{{.Instance}} {{template "page"}}`, `<!--`, `]]><b>`, `&lt;b&gt;`,
		"\u202egnp.exe\u202c", "\u2066\u2067\u200b\ufeff", "a\x00b\x1b[31mred\x07", "\xff\xfe<\xc0\xbc>", "line\r\nbreak\u2028more",
		`<iframe srcdoc="<script>alert(1)</script>">`, `" style="position:fixed" x="`, `<base href=//evil>`, `<meta http-equiv=refresh content=0>`,
		strings.Repeat("W", 4000), strings.Repeat("很长", 500), strings.Repeat("a-b_", 200), `مرحبا <b>`,
	}
}

// hostile: every text that comes from outside is one of the attacks.
func hostile() *fake {
	f := outage()
	s := &f.status
	s.Instance, s.Version, s.NATS.URL = attacks()[3], attacks()[1], attacks()[0]
	s.Pools, s.Targets, s.Failures, s.Checks = nil, nil, nil, nil
	for i, a := range attacks() {
		s.Pools = append(s.Pools, admin.Pool{
			Name: a, Target: a, State: []admin.PoolState{admin.PoolHeld, admin.PoolState(a)}[i%2], HoldReason: a, Why: []string{"", a}[i%2], Concurrency: 1 << 62, InFlight: -5,
			OldestJobAgeSeconds: 1e300, JobsPerSecond: new(1e18), Consumers: []admin.Consumer{{Name: a, Problem: a, Pending: 1 << 63}},
		})
		s.Targets = append(s.Targets, admin.Target{Name: a, Kind: a, URL: a, Why: a, Breaker: admin.Breaker{State: a, Reason: a, Note: a}, RetryBudgetRatio: new(-7e300)})
		s.Failures = append(s.Failures, admin.Failure{At: noon(), Pool: a, Target: a, JobID: a, Subject: a, Outcome: a, Reason: a, Error: a, NextSeconds: 1e300})
		s.Checks = append(s.Checks, admin.Check{Name: a, Message: a})
	}
	s.Drain = &admin.Drain{Phase: attacks()[0], Since: at(-time.Hour), Timeout: -1, Running: -1}
	return f
}
