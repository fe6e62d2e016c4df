package queue

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/job"
)

func metadata() *nats.MsgMetadata {
	return &nats.MsgMetadata{
		Sequence: nats.SequencePair{Stream: 42, Consumer: 7}, NumDelivered: 3,
		Timestamp: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), Stream: "JOBS", Consumer: "p-normal",
	}
}

func TestDecode_takesOverWhatThePublisherSaid(t *testing.T) {
	at := metadata().Timestamp
	for _, c := range []struct {
		name     string
		header   nats.Header
		id       string
		deadline time.Time
	}{
		{"nothing", nil, "JOBS:42", time.Time{}},
		{"id", nats.Header{"Nats-Msg-Id": {"order-1"}}, "order-1", time.Time{}},
		{"id with a line break", nats.Header{"Nats-Msg-Id": {"a\r\nb"}}, "JOBS:42", time.Time{}},
		{"id beyond ASCII", nats.Header{"Nats-Msg-Id": {"ä"}}, "JOBS:42", time.Time{}},
		{"id that is too long", nats.Header{"Nats-Msg-Id": {strings.Repeat("x", 129)}}, "JOBS:42", time.Time{}},
		{"deadline", nats.Header{"Workerd-Deadline": {"2026-01-01T13:00:00Z"}}, "JOBS:42", at.Add(time.Hour)},
		{"ttl, in any case", nats.Header{"workerd-ttl": {"90s"}}, "JOBS:42", at.Add(90 * time.Second)},
		{"the earlier of both", nats.Header{"Workerd-TTL": {"2h"}, "Workerd-Deadline": {"2026-01-01T13:00:00Z"}}, "JOBS:42", at.Add(time.Hour)},
	} {
		j := decode(&nats.Msg{Subject: "jobs.a", Header: c.header, Data: []byte("x")}, metadata(), SourceConfig{MaxMessage: 1, Priority: job.Low})
		if j.Invalid != nil || j.ID != c.id || !j.Deadline.Equal(c.deadline) {
			t.Errorf("%s: id %q, deadline %v, invalid %v; want %q, %v", c.name, j.ID, j.Deadline, j.Invalid, c.id, c.deadline)
		}
		if j.Key() != "JOBS:42" || j.Deliveries != 3 || j.Priority != job.Low || !j.Enqueued.Equal(at) || j.Subject != "jobs.a" || string(j.Payload) != "x" {
			t.Errorf("%s: got %+v", c.name, j)
		}
	}
}

func TestDecode_aWishForAPriorityIsTakenOverIfItCanBeRead(t *testing.T) {
	for wish, want := range map[string]job.Priority{"": job.Normal, "low": job.Low, "critical": job.Critical, "urgent": job.Normal, "LOW": job.Normal, "low;": job.Normal} {
		j := decode(&nats.Msg{Header: nats.Header{"workerd-priority": {wish}}}, metadata(), SourceConfig{MaxMessage: 1, Priority: job.Normal})
		if j.Invalid != nil || j.Priority != want {
			t.Errorf("%q: priority %s, invalid %v, want %s", wish, j.Priority, j.Invalid, want)
		}
	}
}

func TestDecode_saysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		header  nats.Header
		payload string
		want    string
	}{
		{nil, "too long", "payload of 8 bytes is larger than max_message (4)"},
		{nats.Header{"X": {strings.Repeat("x", 64<<10)}}, "", "headers of 65537 bytes are larger than allowed (65536)"},
		{nats.Header{"Workerd-Deadline": {"tomorrow"}}, "", `header Workerd-Deadline: "tomorrow" is not a time like 2026-01-31T12:00:00Z`},
		{nats.Header{"Workerd-TTL": {"90"}}, "", `header Workerd-TTL: "90" is not a duration like 90s`},
		{nats.Header{"Workerd-TTL": {"-1s"}}, "", `header Workerd-TTL: "-1s" is not a duration like 90s`},
		{nats.Header{"Workerd-TTL": {"9999999999h"}}, "", `header Workerd-TTL: "9999999999h" is not a duration like 90s`},
		{nats.Header{"Workerd-TTL": {"1s\r\nX: y\x1b"}}, "", `header Workerd-TTL: "1s\r\nX: y\x1b" is not a duration like 90s`},
		{nats.Header{"Workerd-Deadline": {"99999-01-01T00:00:00Z"}}, "", `header Workerd-Deadline: "99999-01-01T00:00:00Z" is not a time like 2026-01-31T12:00:00Z`},
	} {
		j := decode(&nats.Msg{Header: c.header, Data: []byte(c.payload)}, metadata(), SourceConfig{MaxMessage: 4})
		if j.Invalid == nil || j.Invalid.Error() != c.want {
			t.Errorf("got %v, want %s", j.Invalid, c.want)
		}
	}
}

// FuzzDecode: whatever a publisher sends becomes a job that can be named,
// logged and settled; what it cannot mean is said in one line.
func FuzzDecode(f *testing.F) {
	f.Add("Nats-Msg-Id", "order-1", "Workerd-TTL", "90s", []byte("{}"))
	f.Add("workerd-deadline", "2026-01-01T13:00:00Z", "Nats-Msg-Id", "a\r\nb", []byte(nil))
	f.Add("Workerd-TTL", "9999999999h", "Workerd-Deadline", "\x00", []byte("x"))
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2 string, payload []byte) {
		h := nats.Header{key1: {value1}}
		h[key2] = append(h[key2], value2)
		j := decode(&nats.Msg{Subject: "jobs.a", Header: h, Data: payload}, metadata(), SourceConfig{MaxMessage: 16})
		if j.ID == "" || len(j.ID) > job.MaxID || strings.ContainsFunc(j.ID, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
			t.Errorf("id %q cannot be printed", j.ID)
		}
		if len(payload) > 16 && j.Invalid == nil {
			t.Error("an oversized payload was let through")
		}
		if j.Invalid != nil && (strings.ContainsAny(j.Invalid.Error(), "\r\n") || len(j.Invalid.Error()) > 400) {
			t.Errorf("the problem is not one short line: %q", j.Invalid)
		}
	})
}

// FuzzOrigin: a message is a delivery only if its reply subject is one of our
// consumer, in either form the server writes; no reply is published to blindly.
func FuzzOrigin(f *testing.F) {
	for _, reply := range []string{
		"$JS.ACK.JOBS.p-normal.1.2.3.4.5", "$JS.ACK._.hash.JOBS.p-normal.1.2.3.4.5.token", "$JS.ACK.hub.hash.JOBS.p-normal.1.2.3.4.5",
		"$JS.ACK.OTHER.p-normal.1.2.3.4.5", "$JS.ACK.JOBS.p-normal.>.2.3.4.5", "$JS.ACK.JOBS.p-normal.x.y.z.4.5", "", "jobs.a",
		"$JS.ACK.JOBS.p-normal.99999999999999999999999.2.3.4.5", "$JS.ACK........", "$JS.ACK.JOBS.p-normal.1.2.3.4. 5",
	} {
		f.Add("jobs.a", reply)
		f.Add("_INBOX.abc.1", reply)
	}
	cfg := SourceConfig{Stream: "JOBS", Consumer: "p-normal"}
	f.Fuzz(func(t *testing.T, subject, reply string) {
		sub := &nats.Subscription{Subject: "_INBOX.abc.*"}
		meta, err := origin(&nats.Msg{Subject: subject, Reply: reply, Sub: sub}, "_INBOX.abc.", cfg)
		if err != nil {
			if len(err.Error()) > 300 {
				t.Errorf("the problem is not short: %q", err)
			}
			return
		}
		if strings.HasPrefix(subject, "_INBOX.abc.") || !strings.HasPrefix(reply, "$JS.ACK.") || strings.ContainsAny(reply, "*> \t\r\n") {
			t.Errorf("%q, answered to %q, passes for a delivery", subject, reply)
		}
		if !strings.Contains(reply, ".JOBS.p-normal.") || meta.Sequence.Stream == 0 || meta.NumDelivered == 0 {
			t.Errorf("%q passes for a delivery of ours: %+v", reply, meta)
		}
	})
}
