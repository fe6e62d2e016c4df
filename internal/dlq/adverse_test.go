package dlq_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/queue"
)

// await until the client has found the broker, or found it gone.
func (k *kit) await(connected bool) {
	k.t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		changed := k.conn.Changed()
		if k.conn.Connected() == connected {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			k.t.Fatalf("connected is not %v within 10 s", connected)
		}
	}
}

// putWithoutBroker stops the broker and puts a job, in vain.
func (k *kit) putWithoutBroker() {
	k.t.Helper()
	k.broker.Stop()
	k.await(false)
	ctx, cancel := context.WithTimeout(k.t.Context(), 200*time.Millisecond)
	defer cancel()
	j, out, record := failedJob()
	err := k.store.Put(ctx, j, out, record)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not connected to NATS") {
		k.t.Fatalf("without a broker: %v", err)
	}
}

// TestPut_leavesNothingBehindThatComesLater: the job went back to its stream
// and may be done by then.
func TestPut_leavesNothingBehindThatComesLater(t *testing.T) {
	k := newKit(t, nil)
	k.await(true)
	k.putWithoutBroker()
	k.broker.Restart()
	k.await(true)
	other, out, record := failedJob()
	other.Sequence++
	if err := k.store.Put(t.Context(), other, out, record); err != nil {
		t.Fatal(err)
	}
	if all := k.letters(); len(all) != 1 || all[0].Header.Get("Workerd-Dlq-Sequence") != "43" {
		t.Errorf("%d dead letters, want the one that was confirmed", len(all))
	}
}

func TestPut_waitsForABrokerThatComesBack(t *testing.T) {
	k := newKit(t, nil)
	k.await(true)
	k.putWithoutBroker()
	j, out, record := failedJob()
	var putting sync.WaitGroup
	putting.Go(func() {
		if err := k.store.Put(t.Context(), j, out, record); err != nil {
			t.Error(err)
		}
	})
	k.broker.Restart()
	putting.Wait()
	if all := k.letters(); len(all) != 1 {
		t.Errorf("%d dead letters, want one", len(all))
	}
}

func TestPut_ofOneJobByManyIsOneDeadLetter(t *testing.T) {
	k := newKit(t, nil)
	j, out, record := failedJob()
	var putting sync.WaitGroup
	for range 8 {
		putting.Go(func() {
			if err := k.store.Put(t.Context(), j, out, record); err != nil {
				t.Error(err)
			}
		})
	}
	putting.Wait()
	if all := k.letters(); len(all) != 1 {
		t.Errorf("%d dead letters, want one", len(all))
	}
}

// TestPut_keepsHeadersTheClientWouldNotWrite: it reads more than it writes, so
// a job could make itself impossible to bury.
func TestPut_keepsHeadersTheClientWouldNotWrite(t *testing.T) {
	k := newKit(t, nil)
	j, out, record := failedJob()
	j.Header = job.Header{
		"two words": {"a"}, "tab\there": {"b"}, "Größe": {"c"}, "\x01": {"d"}, "(x)": {"e"}, "Empty": {}, "Line": {"f\rg"},
		"Nats-Msg-Id": {"real"}, "Workerd-Orig-Nats-Msg-Id": {"forged"}, strings.Repeat("k", 4000): {strings.Repeat("v", 40_000)},
	}
	if err := k.store.Put(t.Context(), j, out, record); err != nil {
		t.Fatal(err)
	}
	h := k.letters()[0].Header
	for key, want := range map[string]string{
		"two%20words": "a", "tab%09here": "b", "Gr%C3%B6%C3%9Fe": "c", "%01": "d", "%28x%29": "e", "Line": "f g",
		"Workerd-Orig-Nats-Msg-Id": "real", strings.Repeat("k", 4000): strings.Repeat("v", 40_000),
	} {
		if got := h.Get(key); got != want {
			t.Errorf("%.40q is %.40q, want %.40q", key, got, want)
		}
	}
}

// TestPut_whatIsSaidMakesRoomForTheJob: it is the job that must not be lost.
func TestPut_whatIsSaidMakesRoomForTheJob(t *testing.T) {
	k := newKit(t, nil)
	j, out, record := failedJob()
	out.Err, record.Errors = errors.New(strings.Repeat("e", 1000)), []string{strings.Repeat("h", 1000)}
	k.await(true)
	limit := int(k.conn.JetStream().Conn().MaxPayload())
	j.Payload = bytes.Repeat([]byte{'x'}, limit-1500)
	if err := k.store.Put(t.Context(), j, out, record); err != nil {
		t.Fatal(err)
	}
	all := k.letters()
	if len(all) != 1 || !bytes.Equal(all[0].Data, j.Payload) {
		t.Fatalf("%d dead letters, or not the payload", len(all))
	}
	if h := all[0].Header; h.Get("Workerd-Dlq-Reason") != "max_attempts" || h.Get("X-Tenant") != "a" || len(h["Workerd-Dlq-History"])+len(h["Workerd-Dlq-Error"]) != 0 {
		t.Errorf("header %v", h)
	}
	j.Sequence++
	j.Payload = bytes.Repeat([]byte{'y'}, limit-300) // all that is said is some 450 bytes
	if err := k.store.Put(t.Context(), j, out, record); err != nil {
		t.Fatal(err)
	}
	least := []string{"Workerd-Dlq-Reason", "Workerd-Dlq-Sequence", "Workerd-Dlq-Stream", "Workerd-Dlq-Subject"}
	var said []string
	for key := range k.letters()[1].Header {
		if strings.HasPrefix(key, "Workerd-Dlq-") {
			said = append(said, key)
		}
	}
	slices.Sort(said)
	if !slices.Equal(said, least) {
		t.Errorf("it says %q, want %q", said, least)
	}
	j.Sequence++
	j.Payload = make([]byte, limit-10)
	err := k.store.Put(t.Context(), j, out, record)
	if !errors.Is(err, job.ErrTooLarge) || !strings.Contains(err.Error(), "with headers are more than the server") || !strings.Contains(err.Error(), "max_payload is 8388608") {
		t.Errorf("a job that does not fit at all: %v", err)
	}
}

func TestPut_headerThatDoesNotFitIsSaidToBeTheReason(t *testing.T) {
	k := newKit(t, nil)
	j, out, record := failedJob()
	j.Header = job.Header{"Big": {strings.Repeat("v", 65_400)}} // the most a stream takes is 64 KiB, ours included
	err := k.store.Put(t.Context(), j, out, record)
	if err == nil || !strings.Contains(err.Error(), "header size exceeds maximum allowed of 64k") {
		t.Errorf("got %v", err)
	}
	if len(k.letters()) != 0 {
		t.Error("it was stored all the same")
	}
}

// TestPut_waitsForAStreamThatElectsALeader: the cluster knows the stream, but
// nobody answers for it yet. The job must not go back, and be run again, for
// that. The cluster is played, in a domain of its own.
func TestPut_waitsForAStreamThatElectsALeader(t *testing.T) {
	k := newKit(t, nil)
	conn, err := queue.Dial(queue.Config{URL: k.broker.URL(), JetstreamDomain: "played"}.WithDefaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	nc, _ := k.broker.Connect()
	answer := func(subject, text string, after func()) {
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) {
			after()
			if err := m.Respond([]byte(text)); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Error(err)
		}
	}
	var looked, stored atomic.Int32
	answer("$JS.played.API.STREAM.INFO.WORKERD_DLQ", `{"config":{"name":"WORKERD_DLQ","subjects":["workerd.dlq.>"],"num_replicas":1,"retention":"limits","storage":"file","max_bytes":-1,"max_age":1209600000000000},"state":{}}`, func() {
		if looked.Add(1) == 3 {
			answer("workerd.dlq.email", `{"stream":"WORKERD_DLQ","seq":1}`, func() { stored.Add(1) })
		}
	})
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	j, out, record := failedJob()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := dlq.New(conn, k.cfg, "email", "mailer").Put(ctx, j, out, record); err != nil {
		t.Error(err)
	}
	if stored.Load() != 1 || looked.Load() != 3 {
		t.Errorf("stored %d times after %d looks at the stream, want once after 3", stored.Load(), looked.Load())
	}
}
