package dlq_test

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/natstest"
	"github.com/workerd/workerd/internal/queue"
)

// kit is a broker, our connection to it and a store of dead letters.
type kit struct {
	t      *testing.T
	broker *natstest.Broker
	js     jetstream.JetStream
	conn   *queue.Conn
	cfg    dlq.Config
	store  *dlq.Store
}

func newKit(t *testing.T, change func(*dlq.Config)) *kit {
	t.Helper()
	b := natstest.Start(t)
	_, js := b.Connect()
	conn, err := queue.Dial(queue.Config{URL: b.URL()}.WithDefaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !conn.JetStream().Conn().IsClosed() {
			conn.Close()
		}
	})
	cfg := dlq.Config{}.WithDefaults()
	if change != nil {
		change(&cfg)
	}
	return &kit{t, b, js, conn, cfg, dlq.New(conn, cfg, "email", "mailer")}
}

func failedJob() (*job.Job, job.Outcome, job.Record) {
	j := &job.Job{
		ID: "order-1", Stream: "JOBS", Sequence: 42, Subject: "jobs.email.high", Deliveries: 5,
		Enqueued: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), Payload: []byte("\x00body\xff"),
		Header: job.Header{"Nats-Msg-Id": {"order-1"}, "X-Tenant": {"a", "b"}},
	}
	out := job.Outcome{
		Action: job.DeadLetter, Reason: job.MaxAttempts, Charged: true, Last: job.Result{Status: 503},
		Err: errors.New("failed 3 times (max_attempts): 503"),
	}
	return j, out, job.Record{Attempts: 2, Errors: []string{"503", "connection\r\nreset"}}
}

// letters returns everything in the dead-letter stream.
func (k *kit) letters() []*jetstream.RawStreamMsg {
	k.t.Helper()
	s, err := k.js.Stream(k.t.Context(), k.cfg.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		k.t.Fatal(err)
	}
	var all []*jetstream.RawStreamMsg
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(k.t.Context(), seq)
		if err != nil {
			k.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func TestPut_keepsTheJobAndSaysWhy(t *testing.T) {
	k := newKit(t, nil)
	j, out, record := failedJob()
	if err := k.store.Put(t.Context(), j, out, record); err != nil {
		t.Fatal(err)
	}
	all := k.letters()
	if len(all) != 1 || all[0].Subject != "workerd.dlq.email" || !bytes.Equal(all[0].Data, j.Payload) {
		t.Fatalf("stored %+v", all)
	}
	for key, want := range map[string]string{
		"X-Tenant": "a", "Workerd-Orig-Nats-Msg-Id": "order-1", "Workerd-Dlq-Reason": "max_attempts",
		"Workerd-Dlq-Error": "failed 3 times (max_attempts): 503", "Workerd-Dlq-Subject": "jobs.email.high", "Workerd-Dlq-Stream": "JOBS",
		"Workerd-Dlq-Sequence": "42", "Workerd-Dlq-Attempts": "3", "Workerd-Dlq-Deliveries": "5", "Workerd-Dlq-Last-Status": "503",
		"Workerd-Dlq-Pool": "email", "Workerd-Dlq-Target": "mailer", "Workerd-Dlq-Enqueued-At": "2026-01-01T12:00:00Z",
	} {
		if got := all[0].Header.Get(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if got := all[0].Header.Values("X-Tenant"); len(got) != 2 {
		t.Errorf("X-Tenant has %q, want both values", got)
	}
	if got := all[0].Header.Values("Workerd-Dlq-History"); !slices.Equal(got, []string{"503", "connection  reset"}) {
		t.Errorf("history %q, want the errors before, the oldest first", got)
	}
}

func TestPut_twiceIsOneDeadLetter(t *testing.T) {
	k := newKit(t, nil)
	j, out, record := failedJob()
	for range 3 {
		if err := k.store.Put(t.Context(), j, out, record); err != nil {
			t.Fatal(err)
		}
	}
	// A stream that was made anew has other jobs under the same numbers.
	other := *j
	other.Enqueued = j.Enqueued.Add(time.Nanosecond)
	if err := k.store.Put(t.Context(), &other, out, record); err != nil {
		t.Fatal(err)
	}
	if all := k.letters(); len(all) != 2 {
		t.Errorf("%d dead letters, want one for each of two jobs", len(all))
	}
}

// TestPut_headersOfTheJobDoNotActOnTheBroker: a job must not be able to purge
// the dead letters, to expire itself, or to pass for another.
func TestPut_headersOfTheJobDoNotActOnTheBroker(t *testing.T) {
	k := newKit(t, nil)
	j, out, record := failedJob()
	if err := k.store.Put(t.Context(), j, out, record); err != nil {
		t.Fatal(err)
	}
	hostile := *j
	hostile.Sequence = 43
	hostile.Header = job.Header{
		"Nats-Rollup": {"all"}, "nats-rollup": {"sub"}, "Nats-TTL": {"1s"}, "Nats-Expected-Last-Sequence": {"99"}, "Nats-Msg-Id": {"JOBS:42"},
		"Nats-Expected-Stream": {"OTHER"}, "Workerd-Dlq-Reason": {"forged"}, "workerd-dlq-pool": {"forged"}, "Status": {"503"},
	}
	if err := k.store.Put(t.Context(), &hostile, out, record); err != nil {
		t.Fatal(err)
	}
	all := k.letters()
	if len(all) != 2 {
		t.Fatalf("%d dead letters, want 2", len(all))
	}
	h := all[1].Header
	if h.Get("Workerd-Orig-Nats-Rollup") != "all" || h.Get("Workerd-Dlq-Reason") != "max_attempts" || len(h["workerd-dlq-pool"]) != 0 {
		t.Errorf("header %v", h)
	}
}

func TestPut_textsAreMadeFitForAHeader(t *testing.T) {
	k := newKit(t, nil)
	j, out, record := failedJob()
	out.Err = errors.New("line\r\nWorkerd-Dlq-Reason: forged\x00\xff" + strings.Repeat("é", 4000))
	if err := k.store.Put(t.Context(), j, out, record); err != nil {
		t.Fatal(err)
	}
	h := k.letters()[0].Header
	if got := h.Get("Workerd-Dlq-Error"); strings.ContainsAny(got, "\r\n\x00") || len(got) > 1100 || !strings.HasPrefix(got, "line") {
		t.Errorf("error text %q", got)
	}
	if got := h.Values("Workerd-Dlq-Reason"); len(got) != 1 || got[0] != "max_attempts" {
		t.Errorf("reason %q", got)
	}
}

func TestPut_whatCouldNotBeStoredIsAnError(t *testing.T) {
	j, out, record := failedJob()
	t.Run("stream is full", func(t *testing.T) {
		k := newKit(t, func(c *dlq.Config) { c.MaxBytes = 1 << 20 })
		big := *j
		big.Payload = make([]byte, 900<<10)
		var errs int
		for i := range 3 {
			big.Sequence = uint64(i)
			if k.store.Put(t.Context(), &big, out, record) != nil {
				errs++
			}
		}
		if stored := len(k.letters()); stored+errs != 3 || errs == 0 {
			t.Errorf("%d stored, %d errors", stored, errs)
		}
	})
	t.Run("subject belongs to another stream", func(t *testing.T) {
		k := newKit(t, nil)
		k.broker.Stream(k.js, "OTHER", "workerd.>")
		if err := k.store.Put(t.Context(), j, out, record); err == nil {
			t.Error("no error although the job went elsewhere")
		}
	})
	t.Run("stream takes other subjects", func(t *testing.T) {
		k := newKit(t, nil)
		k.broker.Stream(k.js, "WORKERD_DLQ", "elsewhere")
		err := k.store.Put(t.Context(), j, out, record)
		if err == nil || !strings.Contains(err.Error(), "subjects is [elsewhere], the configuration says [workerd.dlq.>]") {
			t.Errorf("got %v, want what is wrong with the stream", err)
		}
	})
	t.Run("stream takes small messages", func(t *testing.T) {
		k := newKit(t, nil)
		if _, err := k.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "WORKERD_DLQ", Subjects: []string{"workerd.dlq.>"}, MaxMsgSize: 100}); err != nil {
			t.Fatal(err)
		}
		err := k.store.Put(t.Context(), j, out, record)
		if err == nil || !strings.Contains(err.Error(), "more than the server or stream WORKERD_DLQ takes") {
			t.Errorf("got %v, want the size", err)
		}
	})
	t.Run("connection is closed", func(t *testing.T) {
		k := newKit(t, nil)
		k.conn.Close()
		if err := k.store.Put(t.Context(), j, out, record); !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestEnsure_leavesAStreamThatExistsAsItIs(t *testing.T) {
	k := newKit(t, nil)
	if _, err := k.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "WORKERD_DLQ", Subjects: []string{"workerd.dlq.>"}, MaxMsgs: 7}); err != nil {
		t.Fatal(err)
	}
	j, out, record := failedJob()
	if err := k.store.Put(t.Context(), j, out, record); err != nil {
		t.Fatal(err)
	}
	s, err := k.js.Stream(t.Context(), "WORKERD_DLQ")
	if err != nil || s.CachedInfo().Config.MaxMsgs != 7 || s.CachedInfo().State.Msgs != 1 {
		t.Errorf("%v: %+v", err, s.CachedInfo())
	}
	differs, err := dlq.Ensure(t.Context(), k.conn, k.cfg)
	if text := strings.Join(differs, "\n"); err != nil || !strings.Contains(text, "max_age is 0s, the configuration says 336h") {
		t.Errorf("%v, differs: %s", err, text)
	}
}

func TestConfig_everyProblemIsReported(t *testing.T) {
	var fields []string
	dlq.Config{Subject: "a b", MaxAge: 1, MaxBytes: 1, DuplicateWindow: 1, Replicas: 7}.Validate(func(field, _ string) { fields = append(fields, field) })
	if got := strings.Join(fields, " "); got != "subject max_age max_bytes duplicate_window replicas" {
		t.Errorf("problems with %q", got)
	}
	dlq.Config{}.WithDefaults().Validate(func(field, message string) { t.Errorf("the default: %s: %s", field, message) })
}
