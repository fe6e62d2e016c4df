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
