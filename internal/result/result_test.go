package result_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/natstest"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/result"
)

type kit struct {
	t    *testing.T
	nc   *nats.Conn
	js   jetstream.JetStream
	conn *queue.Conn
}

func newKit(t *testing.T) *kit {
	t.Helper()
	b := natstest.Start(t)
	nc, js := b.Connect()
	conn, err := queue.Dial(queue.Config{URL: b.URL()}.WithDefaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if err := conn.AwaitConnected(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &kit{t, nc, js, conn}
}

func (k *kit) sender(stream string, subjects ...string) *result.Sender {
	return result.New(k.conn, pool.Results{Subjects: subjects, Stream: stream}.WithDefaults())
}

func replyTo(subject string) *job.Job {
	return &job.Job{ID: "order-1", Stream: "JOBS", Sequence: 7, Enqueued: time.Unix(1, 0), Header: job.Header{"workerd-reply-to": {subject}}}
}

func done(body string) job.Outcome {
	return job.Outcome{Action: job.Done, Reason: job.OK, Source: job.Primary, Last: job.Result{
		Status: 201, Reply: &job.Reply{Status: 201, ContentType: "application/json", Body: []byte(body)},
	}}
}

func TestSend_tellsWhomTheJobNames(t *testing.T) {
	k := newKit(t)
	inbox := k.nc.NewRespInbox()
	sub, err := k.nc.SubscribeSync(inbox)
	if err != nil || k.nc.Flush() != nil {
		t.Fatal(err)
	}
	s := k.sender("", "_INBOX.>")
	if answer, err := s.Send(t.Context(), replyTo(inbox), done(`{"id":1}`)); answer != pool.Sent || err != nil {
		t.Fatalf("%s, %v", answer, err)
	}
	m, err := sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"Workerd-Outcome": "ok", "Workerd-Source": "primary", "Workerd-Status": "201", "Workerd-Job-Id": "order-1", "Workerd-Reason": "ok", "Content-Type": "application/json",
	} {
		if got := m.Header.Get(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if string(m.Data) != `{"id":1}` {
		t.Errorf("body %q", m.Data)
	}
	dead := job.Outcome{Action: job.DeadLetter, Reason: job.MaxAttempts, Err: errors.New("failed\r\n3 times"), Last: job.Result{Status: 503}}
	if answer, err := s.Send(t.Context(), replyTo(inbox), dead); answer != pool.Sent || err != nil {
		t.Fatalf("%s, %v", answer, err)
	}
	if m, err = sub.NextMsg(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Workerd-Outcome") != "dead" || m.Header.Get("Workerd-Reason") != "max_attempts" || strings.ContainsAny(m.Header.Get("Workerd-Error"), "\r\n") || m.Header.Get("Workerd-Error") == "" {
		t.Errorf("header %v", m.Header)
	}
}

// TestSend_publishesNowhereElse: whatever a job says, our rights are used for
// nothing that was not allowed.
func TestSend_publishesNowhereElse(t *testing.T) {
	k := newKit(t)
	heard, err := k.nc.SubscribeSync(">")
	if err != nil || k.nc.Flush() != nil {
		t.Fatal(err)
	}
	s := k.sender("", "results.>", "_INBOX.>")
	for _, subject := range []string{
		"$JS.API.STREAM.DELETE.JOBS", "$SYS.REQ.SERVER.PING", "$KV.x.y", "jobs.email", "results", "results.", "results..x", ".results.x", "results.*", "results.>", ">", "*",
		"results.x y", "results.x\r\nPUB y 0", "results.\x00", "results.ä", "_INBOX", "_INBOX.>", "Results.x", "results." + strings.Repeat("x", 255), " results.x",
	} {
		if answer, err := s.Send(t.Context(), replyTo(subject), done("x")); answer != pool.Refused || err != nil {
			t.Errorf("%q: %s, %v", subject, answer, err)
		}
	}
	if answer, err := s.Send(t.Context(), &job.Job{}, done("x")); answer != "" || err != nil {
		t.Errorf("nobody named: %s, %v", answer, err)
	}
	if answer, _ := s.Send(t.Context(), replyTo("results.last"), done("x")); answer != pool.Sent {
		t.Fatalf("%s", answer)
	}
	for {
		m, err := heard.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject == "results.last" {
			return
		}
		if !strings.HasPrefix(m.Subject, "$JS.") && !strings.HasPrefix(m.Subject, "_INBOX.") { // of the connections themselves
			t.Errorf("something was sent to %s", m.Subject)
		}
	}
}

func TestSend_whatDoesNotFitIsLeftOutAndSaidToBe(t *testing.T) {
	k := newKit(t)
	sub, err := k.nc.SubscribeSync("results.>")
	if err != nil || k.nc.Flush() != nil {
		t.Fatal(err)
	}
	cut := done("beginning")
	cut.Last.Reply.Truncated = true
	for name, out := range map[string]job.Outcome{"large": done(string(bytes.Repeat([]byte("x"), 256<<10+1))), "cut off": cut} {
		if answer, err := k.sender("", "results.>").Send(t.Context(), replyTo("results.x"), out); answer != pool.Sent || err != nil {
			t.Fatalf("%s: %s, %v", name, answer, err)
		}
		if m, err := sub.NextMsg(10 * time.Second); err != nil || len(m.Data) > 0 || m.Header.Get("Workerd-Omitted") == "" {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

func TestSend_aStreamHasTheResultOnceOrItIsUnsent(t *testing.T) {
	k := newKit(t)
	if _, err := k.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "RESULTS", Subjects: []string{"results.>"}}); err != nil {
		t.Fatal(err)
	}
	s := k.sender("RESULTS", "results.>", "other.>")
	for range 2 {
		if answer, err := s.Send(t.Context(), replyTo("results.x"), done("x")); answer != pool.Sent || err != nil {
			t.Fatalf("%s, %v", answer, err)
		}
	}
	stream, err := k.js.Stream(t.Context(), "RESULTS")
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d results, want 1", n)
	}
	if answer, err := s.Send(t.Context(), replyTo("other.x"), done("x")); answer != pool.Lost || err != nil {
		t.Errorf("a subject no stream takes: %s, %v; running the job again would not help", answer, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if answer, err := s.Send(ended, replyTo("results.y"), done("x")); answer != pool.Unsent || err == nil {
		t.Errorf("no time for the answer: %s, %v", answer, err)
	}
}
