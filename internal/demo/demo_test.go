package demo_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/demo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a downstream and returns what calls it.
func serve(t *testing.T) (d *demo.Downstream, post func(ctx context.Context, path string) (int, string, http.Header)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d = demo.NewDownstream()
	ctx, stop := context.WithCancel(t.Context())
	transport := &http.Transport{}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := d.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); serving.Wait(); transport.CloseIdleConnections() })
	return d, func(ctx context.Context, path string) (int, string, http.Header) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.Addr().String()+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err.Error(), nil
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body), res.Header
	}
}

func TestDownstream_doesWhatItWasTold(t *testing.T) {
	d, post := serve(t)
	for _, c := range []struct {
		script string
		status int
	}{
		{"mode=down&for=20s", 503},
		{"mode=reject", 422},
		{"mode=throttled", 429},
		{"mode=ok&fail=1&latency=0s", 500},
		{"mode=slow&latency=1ms", 200},
		{"mode=ok&latency=1ms", 200},
	} {
		if status, said, _ := post(t.Context(), "/script/mail?"+c.script); status != http.StatusOK || !strings.HasPrefix(said, "mail is ") {
			t.Errorf("%s: %d %s", c.script, status, said)
		}
		status, _, header := post(t.Context(), "/mail")
		if status != c.status {
			t.Errorf("%s: answers %d, want %d", c.script, status, c.status)
		}
		if (header.Get("Retry-After") != "") != (c.status == http.StatusTooManyRequests) {
			t.Errorf("%s: Retry-After %q", c.script, header.Get("Retry-After"))
		}
	}
	if calls := d.Calls("mail"); calls.Total != 6 || calls.Failed != 4 || calls.InFlight != 0 {
		t.Errorf("counted %+v", calls)
	}
	if calls := d.Calls("other"); calls.Total != 0 {
		t.Errorf("counted %+v for a service nobody called", calls)
	}
}

func TestDownstream_hangsUntilTheCallerGivesUp(t *testing.T) {
	d, post := serve(t)
	d.Script("mail", demo.Behaviour{Mode: demo.Hang})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if status, said, _ := post(ctx, "/mail"); status != 0 {
		t.Errorf("answered %d %s", status, said)
	}
}

// TestDownstream_endsThoughCallsHang, and leaves nothing behind: goleak looks.
func TestDownstream_endsThoughCallsHang(t *testing.T) {
	d, post := serve(t) // which is stopped when the test ends
	d.Script("mail", demo.Behaviour{Mode: demo.Hang})
	var calling sync.WaitGroup
	t.Cleanup(calling.Wait)
	for range 3 {
		calling.Go(func() {
			if status, _, _ := post(context.Background(), "/mail"); status == http.StatusOK {
				t.Error("a call that hangs was answered")
			}
		})
	}
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for d.Calls("mail").InFlight < 3 {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("the calls do not come")
		}
	}
	if c := d.Calls("mail"); c.MaxSeen != 3 || c.Total != 3 {
		t.Errorf("counted %+v", c)
	}
}

func TestDownstream_returnsWhenItsListenerBreaks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := demo.NewDownstream().Serve(t.Context(), l); err == nil {
		t.Error("no error of a listener that is closed")
	}
}

// TestDownstream_oneServiceDoesNotConcernAnother: that is what the demo shows.
func TestDownstream_oneServiceDoesNotConcernAnother(t *testing.T) {
	d, post := serve(t)
	d.Script("mail", demo.Behaviour{Mode: demo.Down})
	d.Script("pdf", demo.Behaviour{Mode: demo.OK})
	if mail, _, _ := post(t.Context(), "/mail"); mail != http.StatusServiceUnavailable {
		t.Errorf("mail answers %d", mail)
	}
	if pdf, _, _ := post(t.Context(), "/pdf"); pdf != http.StatusOK {
		t.Errorf("pdf answers %d", pdf)
	}
}

func TestDownstream_isWellAgainAfterItsTime(t *testing.T) {
	d, post := serve(t)
	d.Script("mail", demo.Behaviour{Mode: demo.Down, Until: time.Now().Add(-time.Second)})
	if status, _, _ := post(t.Context(), "/mail"); status != http.StatusOK {
		t.Errorf("answers %d, want 200", status)
	}
}

func TestDownstream_refusesScriptsItDoesNotUnderstand(t *testing.T) {
	_, post := serve(t)
	for _, script := range []string{"", "mode=bogus", "mode=ok&latency=fast", "mode=ok&latency=-1s", "mode=ok&fail=2", "mode=ok&fail=x", "mode=ok&fail=NaN", "mode=down&for=ever", "mode=down&for=-1s"} {
		if status, said, _ := post(t.Context(), "/script/mail?"+script); status != http.StatusBadRequest || said == "" {
			t.Errorf("%q: %d %s", script, status, said)
		}
	}
}

func TestLoad_publishesAtItsRateAndSurvivesRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
		defer cancel()
		subjects, n := map[string]int{}, 0
		accepted := demo.Load(ctx, 40, func(_ context.Context, subject string, body []byte) error {
			if n++; n%4 == 0 {
				return io.ErrClosedPipe
			}
			subjects[subject]++
			if len(body) == 0 {
				t.Error("an empty job")
			}
			return nil
		})
		if n != 400 || accepted != 300 {
			t.Errorf("%d published, %d accepted; want 400 and 300 in 10 s", n, accepted)
		}
		for _, subject := range []string{"jobs.email.high", "jobs.email.normal", "jobs.email.low", "jobs.report.monthly"} {
			if subjects[subject] == 0 {
				t.Errorf("nothing for %s", subject)
			}
		}
	})
}

// TestLoad_endsWhilePublishingWaits: the broker is away, and the demo drains.
func TestLoad_endsWhilePublishingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		accepted := demo.Load(ctx, 100, func(ctx context.Context, _ string, _ []byte) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if accepted != 0 {
			t.Errorf("%d accepted", accepted)
		}
	})
}
