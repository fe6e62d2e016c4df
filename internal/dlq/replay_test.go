package dlq_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/job"
	targets "github.com/workerd/workerd/internal/target"
	"github.com/workerd/workerd/internal/target/httptarget"
)

// jobs are the messages of stream JOBS, oldest first.
func (k *kit) jobs() (all []*jetstream.RawStreamMsg) {
	k.t.Helper()
	s, err := k.js.Stream(k.t.Context(), "JOBS")
	if err != nil {
		k.t.Fatal(err)
	}
	state := s.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		m, err := s.GetMsg(k.t.Context(), seq)
		if err != nil {
			k.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func (k *kit) get(sequence uint64) *dlq.Letter {
	k.t.Helper()
	l, err := k.open().Get(k.t.Context(), sequence)
	if err != nil {
		k.t.Fatal(err)
	}
	return l
}

// hostile are headers by which a job could command the broker.
func hostile() map[string]nats.Header {
	all := map[string]nats.Header{"foreign id": {"Nats-Msg-Id": {"JOBS:1"}}, "tracing": {"Nats-Trace-Dest": {"secret"}, "Nats-Trace-Only": {"true"}}}
	for key, value := range map[string]string{
		"Nats-Rollup": "all", "Nats-TTL": "1s", "Nats-Expected-Last-Sequence": "99", "Nats-Expected-Stream": "OTHER",
		"Nats-Expected-Last-Msg-Id": "x", "Nats-Expected-Last-Subject-Sequence": "7", "Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1",
		"Nats-Schedule": "@at 2099-01-01T00:00:00Z", "Nats-Schedule-Target": "jobs.a", "Nats-Incr": "+1", "Nats-Trace-Dest": "secret",
		"Nats-Required-Api-Level": "99", "Nats-Stream-Source": "x", "Nats-Marker-Reason": "Purge",
	} {
		for _, name := range []string{key, strings.ToLower(key), strings.ToUpper(key)} {
			all[name] = nats.Header{name: {value}}
		}
	}
	return all
}

// TestReplay_hostileHeadersHurtNeitherStream: each is put and replayed in
// streams that allow all there is to command.
func TestReplay_hostileHeadersHurtNeitherStream(t *testing.T) {
	k := newKit(t, nil)
	for name, subject := range map[string]string{"JOBS": "jobs.>", k.cfg.Stream: k.cfg.Subject + ".>"} {
		_, err := k.js.CreateStream(t.Context(), jetstream.StreamConfig{
			Name: name, Subjects: []string{subject}, AllowRollup: true, AllowMsgTTL: true, AllowAtomicPublish: true, AllowMsgSchedules: true,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	secret, err := k.js.Conn().SubscribeSync("secret")
	if err != nil {
		t.Fatal(err)
	}
	k.put(1, 1, nil)
	all := hostile()
	names := slices.Sorted(maps.Keys(all))
	for i, name := range names {
		k.put(100+i, 1, func(j *job.Job, _ *job.Outcome) {
			j.Header = job.Header(all[name])
			j.Header["X-Name"] = []string{name}
		})
	}
	if got := k.sequences(dlq.Filter{}); len(got) != len(names)+1 {
		t.Fatalf("%d dead letters, want %d", len(got), len(names)+1)
	}
	b := k.open()
	for l, err := range b.Letters(t.Context(), dlq.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if r, err := b.Replay(t.Context(), l, ""); err != nil || r.Duplicate {
			t.Errorf("replay of %s: %+v, %v", l.Header.Get("X-Name"), r, err)
		}
	}
	jobs := k.jobs()
	if len(jobs) != len(names)+1 || len(k.sequences(dlq.Filter{})) != 0 {
		t.Fatalf("%d jobs, %d letters", len(jobs), len(k.sequences(dlq.Filter{})))
	}
	for i, m := range jobs[1:] {
		if m.Header.Get("X-Name") != names[i] || m.Subject != "jobs.email.high" || string(m.Data) != fmt.Sprint("body ", 100+i) {
			t.Errorf("%s came back as %+v", names[i], m)
		}
		for key := range m.Header {
			if lower := strings.ToLower(key); strings.HasPrefix(lower, "nats-") && key != "Nats-Msg-Id" && key != "Nats-Expected-Stream" || strings.Contains(lower, "orig") {
				t.Errorf("%s came back with %s", names[i], key)
			}
		}
	}
	if n, _, _ := secret.Pending(); n != 0 {
		t.Errorf("the broker was made to send %d messages", n)
	}
}

// TestReplay_bringsTheVeryJobBack, whatever its bytes are.
func TestReplay_bringsTheVeryJobBack(t *testing.T) {
	k := newKit(t, nil)
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	header := nats.Header{
		"X-Tenant": {"a", "b"}, "x-tenant": {"c"}, "Empty": {""}, "traceparent": {"00-1-2-01"}, "Content-Type": {"text/ü"}, "Workerd-TTL": {"1h"},
		"Workerd-Orig-Mine": {"x"}, "Nats-Msg-Id": {"order-1"},
	}
	payload := make([]byte, 256)
	for i := range payload {
		payload[i] = byte(i)
	}
	ack, err := k.js.PublishMsg(t.Context(), &nats.Msg{Subject: "jobs.email.high", Header: header, Data: payload})
	if err != nil {
		t.Fatal(err)
	}
	first := k.jobs()[0]
	k.put(int(ack.Sequence), 1, func(j *job.Job, _ *job.Outcome) { j.Header, j.Payload = job.Header(first.Header), first.Data })
	l := k.get(1)
	r, err := k.open().Replay(t.Context(), l, "")
	if err != nil || r.Stream != "JOBS" || r.Sequence != 2 || r.Duplicate {
		t.Fatalf("replay: %+v, %v", r, err)
	}
	again := k.jobs()[1]
	want := maps.Clone(first.Header)
	want["Nats-Expected-Stream"] = []string{"JOBS"}
	want["Nats-Msg-Id"] = again.Header["Nats-Msg-Id"] // see below
	want["Workerd-Idempotency-Key"] = []string{"JOBS-1"}
	if !maps.EqualFunc(again.Header, want, slices.Equal) || !bytes.Equal(again.Data, payload) || again.Subject != first.Subject {
		t.Errorf("job  %v %q\nwant %v %q", again.Header, again.Data, want, payload)
	}
	if id := again.Header.Get("Nats-Msg-Id"); !strings.HasPrefix(id, "order-1.r1-") {
		t.Errorf("id %s", id)
	}
}

// TestReplay_cutShortAndDoneAgainIsOneJob: between the publishing and the
// removing of a letter anything may happen.
func TestReplay_cutShortAndDoneAgainIsOneJob(t *testing.T) {
	k := newKit(t, nil)
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	k.put(1, 20, nil)
	b := k.open()
	for seq := range uint64(10) { // published, not removed
		if _, err := b.Publish(t.Context(), k.get(seq+1), ""); err != nil {
			t.Fatal(err)
		}
	}
	duplicates := 0
	b = k.open()
	for l, err := range b.Letters(t.Context(), dlq.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Replay(t.Context(), l, "")
		if err != nil {
			t.Fatal(err)
		}
		if r.Duplicate {
			duplicates++
		}
	}
	if n := len(k.jobs()); n != 20 || duplicates != 10 || len(k.sequences(dlq.Filter{})) != 0 {
		t.Errorf("%d jobs, %d duplicates, %d letters left", n, duplicates, len(k.sequences(dlq.Filter{})))
	}
	seen := map[string]bool{}
	for _, m := range k.jobs() {
		seen[string(m.Data)] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d different jobs", len(seen))
	}
}

// TestReplay_isNoDuplicateOfTheOriginal, nor of an earlier replay, though all of
// it happens within the duplicate window.
func TestReplay_isNoDuplicateOfTheOriginal(t *testing.T) {
	k := newKit(t, nil)
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	if _, err := k.js.PublishMsg(t.Context(), &nats.Msg{Subject: "jobs.email.high", Header: nats.Header{"Nats-Msg-Id": {"order-1"}}}); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		jobs := k.jobs()
		m := jobs[len(jobs)-1]
		k.put(int(m.Sequence), 1, func(j *job.Job, _ *job.Outcome) { j.Header = job.Header(m.Header) })
		l := k.get(uint64(i + 1))
		if r, err := k.open().Replay(t.Context(), l, ""); err != nil || r.Duplicate {
			t.Fatalf("replay %d: %+v, %v", i, r, err)
		}
	}
	jobs := k.jobs()
	if len(jobs) != 5 {
		t.Fatalf("%d jobs, want the original and 4 replays", len(jobs))
	}
	last := jobs[4].Header
	if id := last.Get("Nats-Msg-Id"); !strings.HasPrefix(id, "order-1.r4-") || strings.Contains(id, ".r3-") {
		t.Errorf("the id is %s after 4 replays", id)
	}
	if key := last.Values("Workerd-Idempotency-Key"); !slices.Equal(key, []string{"JOBS-1"}) {
		t.Errorf("idempotency key %q, want that of the first", key)
	}
}

// TestReplay_aLetterCannotCommandTheBroker through the subject it names: who
// may write letters must not act with the rights of who replays them.
func TestReplay_aLetterCannotCommandTheBroker(t *testing.T) {
	k := newKit(t, nil)
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	k.broker.Stream(k.js, "OTHER", "other.>")
	k.put(1, 1, nil)
	b := k.open()
	for name, c := range map[string][2]string{
		"order to the broker": {"$JS.API.STREAM.DELETE.OTHER", "JOBS"}, "other stream": {"other.a", "JOBS"}, "wildcard": {"jobs.*", "JOBS"},
		"no subject": {"", "JOBS"}, "no stream": {"jobs.a", ""}, "stream that is none": {"jobs.a", "a.b c"}, "stream that is gone": {"jobs.a", "GONE"},
		"itself": {"workerd.dlq.email", k.cfg.Stream}, "spaces": {"jobs.a b", "JOBS"}, "line": {"jobs.a\r\nPUB x 0", "JOBS"},
	} {
		l := *k.get(1)
		l.JobSubject, l.JobStream = c[0], c[1]
		var refusal *dlq.Refusal
		if _, err := b.Replay(t.Context(), &l, ""); !errors.As(err, &refusal) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
	for _, stream := range []string{"JOBS", "OTHER"} {
		s, err := k.js.Stream(t.Context(), stream)
		if err != nil || s.CachedInfo().State.Msgs != 0 {
			t.Errorf("stream %s: %v", stream, err)
		}
	}
	if got := k.sequences(dlq.Filter{}); len(got) != 1 {
		t.Errorf("letters %v, want the one that was refused", got)
	}
}

func TestReplay_elsewhere(t *testing.T) {
	k := newKit(t, nil)
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	k.put(1, 2, nil)
	r, err := k.open().Replay(t.Context(), k.get(1), "jobs.repaired")
	if err != nil || r.Stream != "JOBS" || k.jobs()[0].Subject != "jobs.repaired" {
		t.Errorf("%+v, %v", r, err)
	}
	var refusal *dlq.Refusal
	if _, err := k.open().Replay(t.Context(), k.get(2), "nobody.takes.this"); !errors.As(err, &refusal) {
		t.Errorf("got %v, want a refusal", err)
	}
}

// TestReplay_whatTheStreamRefusesStays.
func TestReplay_whatTheStreamRefusesStays(t *testing.T) {
	k := newKit(t, nil)
	_, err := k.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs.>"}, MaxMsgs: 1, Discard: jetstream.DiscardNew})
	if err != nil {
		t.Fatal(err)
	}
	k.put(1, 2, nil)
	b := k.open()
	if _, err := b.Replay(t.Context(), k.get(1), ""); err != nil {
		t.Fatal(err)
	}
	var refusal *dlq.Refusal
	if _, err := b.Replay(t.Context(), k.get(2), ""); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "maximum messages exceeded") {
		t.Errorf("got %v", err)
	}
	if got := k.sequences(dlq.Filter{}); !slices.Equal(got, []uint64{2}) {
		t.Errorf("letters %v are left", got)
	}
	k.broker.Stop()
	if _, err := b.Replay(t.Context(), k.letter(), ""); err == nil || errors.As(err, &refusal) {
		t.Errorf("without a broker: %v, which is no fault of the letter", err)
	}
}

// letter is one nobody has stored.
func (k *kit) letter() *dlq.Letter {
	return &dlq.Letter{Sequence: 1, JobStream: "JOBS", JobSubject: "jobs.a"}
}

// TestReplay_theTargetSeesTheSameKey: it may have done the work after all.
func TestReplay_theTargetSeesTheSameKey(t *testing.T) {
	k := newKit(t, nil)
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	var keys []string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { keys = append(keys, r.Header.Get("Idempotency-Key")) }))
	defer s.Close()
	target, err := httptarget.New(httptarget.Config{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	call := func(sequence uint64, h nats.Header) {
		target.Call(t.Context(), targets.Request{Job: &job.Job{Stream: "JOBS", Sequence: sequence, Header: job.Header(h)}, Attempt: 1, Try: 1})
	}
	k.put(42, 1, nil)
	call(42, nil)
	if _, err := k.open().Replay(t.Context(), k.get(1), ""); err != nil {
		t.Fatal(err)
	}
	call(1, k.jobs()[0].Header)
	if len(keys) != 2 || keys[0] == "" || keys[0] != keys[1] {
		t.Errorf("the target was called with the keys %q", keys)
	}
}
