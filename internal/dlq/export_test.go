package dlq_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/job"
)

// export returns the line of each letter.
func (k *kit) export() (lines []string) {
	k.t.Helper()
	for l, err := range k.open().Letters(k.t.Context(), dlq.Filter{}) {
		if err != nil {
			k.t.Fatal(err)
		}
		line, err := dlq.Export(l)
		if err != nil {
			k.t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	return lines
}

// importAll returns how many letters were added.
func (k *kit) importAll(lines []string) (added int) {
	k.t.Helper()
	b := k.open()
	for _, line := range lines {
		l, err := dlq.Parse([]byte(line))
		if err != nil {
			k.t.Fatal(err)
		}
		ok, err := b.Import(k.t.Context(), l)
		if err != nil {
			k.t.Fatal(err)
		}
		if ok {
			added++
		}
	}
	return added
}

func TestImport_bringsBackWhatWasExported(t *testing.T) {
	k := newKit(t, nil)
	k.put(1, 5, func(j *job.Job, _ *job.Outcome) {
		j.Payload = []byte{0, 255, byte(j.Sequence)}
		j.Header["Latin"] = []string{"\xe9t\xe9", "ü"}
		j.Header["nats-rollup"] = []string{"all"}
	})
	before := k.letters()
	lines := k.export()
	for round := range 3 { // all of it within the duplicate window
		if err := k.open().Purge(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if added := k.importAll(lines); added != 5 {
			t.Fatalf("round %d: %d added, want 5", round, added)
		}
		if added := k.importAll(lines); added != 0 {
			t.Errorf("round %d: %d added once more", round, added)
		}
	}
	var after []*jetstream.RawStreamMsg
	b := k.open()
	for _, seq := range k.sequences(dlq.Filter{}) {
		l, err := b.Get(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		after = append(after, &jetstream.RawStreamMsg{Subject: l.Subject, Header: l.Header, Data: l.Payload})
	}
	if len(after) != 5 {
		t.Fatalf("%d letters, want 5", len(after))
	}
	for i, m := range after {
		want := maps.Clone(before[i].Header)
		want["Nats-Msg-Id"] = m.Header["Nats-Msg-Id"] // it has come and gone
		if m.Subject != before[i].Subject || string(m.Data) != string(before[i].Data) || !maps.EqualFunc(m.Header, want, slices.Equal) {
			t.Errorf("letter %d is\n%v %q, was\n%v %q", i, m.Header, m.Data, before[i].Header, before[i].Data)
		}
	}
}

// TestImport_doesNotTrustTheFile.
func TestImport_doesNotTrustTheFile(t *testing.T) {
	k := newKit(t, nil)
	_, err := k.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: k.cfg.Stream, Subjects: []string{"workerd.dlq.>"}, AllowRollup: true, AllowMsgTTL: true})
	if err != nil {
		t.Fatal(err)
	}
	k.put(1, 3, nil)
	n := 3
	for name, h := range hostile() {
		if len(h["Nats-Msg-Id"]) > 0 {
			continue
		}
		l := &dlq.Letter{Subject: "workerd.dlq.email", Header: h, Payload: []byte(name)}
		n++
		if added, err := k.open().Import(t.Context(), l); !added || err != nil {
			t.Errorf("%s: %v, %v", name, added, err)
		}
	}
	if got := k.sequences(dlq.Filter{}); len(got) != n {
		t.Errorf("%d letters, want %d", len(got), n)
	}
	for _, subject := range []string{"jobs.a", "$JS.API.STREAM.DELETE.WORKERD_DLQ", "workerd.dlq.>", "workerd.dlq", "workerd.dlq.a b"} {
		var refusal *dlq.Refusal
		if _, err := k.open().Import(t.Context(), &dlq.Letter{Subject: subject}); !errors.As(err, &refusal) {
			t.Errorf("%s: %v, want a refusal", subject, err)
		}
	}
}

func TestParse_saysWhatIsWrong(t *testing.T) {
	for line, want := range map[string]string{
		``:                                "the JSON ends too early",
		`{"subject":"a"`:                  "the JSON ends too early",
		`{"subject":"a","payload":"!"}`:   "illegal base64 data at input byte 0",
		`{"subject":7}`:                   `"subject" is a number`,
		`{"payload":""}`:                  `"subject" is missing`,
		`{"subject":"a"}`:                 `"payload" is missing`,
		`{"subject":"a","paylaod":""}`:    `unknown field "paylaod"`,
		`{"subject":"a","payload":""} {}`: "there is something behind the letter",
		`[]`:                              "array",
		`hello`:                           "invalid character 'h'",
	} {
		if _, err := dlq.Parse([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
}

// FuzzExport: a letter of any content survives, and reading it does not panic.
func FuzzExport(f *testing.F) {
	f.Add("X", "v", "Workerd-Dlq-Sequence", "-1", "workerd.dlq.a", []byte("x"))
	f.Add("\xff", "\xfe", "", "\x00\u2028<", "\xff.a", []byte(nil))
	f.Add("Workerd-Dlq-At", "9999-99-99", "workerd-dlq-attempts", "1e9", "a", []byte{0xff})
	f.Add("nats-msg-id", "\"", "Workerd-Orig-Nats-Msg-Id", strings.Repeat("a", 200), "", []byte{})
	f.Fuzz(func(t *testing.T, key, value, key2, value2, subject string, payload []byte) {
		h := nats.Header{key: {value, value2}}
		h[key2] = append(h[key2], value2)
		l := &dlq.Letter{Sequence: 7, Subject: strings.ToValidUTF8(subject, "?"), Stored: time.Unix(1, 2).UTC(), Header: h, Payload: payload}
		line, err := dlq.Export(l)
		if err != nil || strings.ContainsAny(string(line), "\r\n") {
			t.Fatalf("%v: %q", err, line)
		}
		got, err := dlq.Parse(line)
		if l.Subject == "" {
			if err == nil {
				t.Error("a letter without subject is read")
			}
			return
		}
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if got.Subject != l.Subject || got.Sequence != 7 || !got.Stored.Equal(l.Stored) || string(got.Payload) != string(payload) || !maps.EqualFunc(got.Header, h, slices.Equal) {
			t.Errorf("%+v\nbecame\n%+v", l, got)
		}
		if got.Attempts < 0 || got.Pool == "" && !strings.HasSuffix(l.Subject, ".") || !dlq.IsFingerprint(got.Fingerprint) || len(got.ID) > 1<<16 {
			t.Errorf("it says %+v", got)
		}
		shown := dlq.Printable(value, true)
		if strings.ContainsFunc(shown, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r == 0x9b || r == 0x202e }) {
			t.Errorf("%q is shown as %q", value, shown)
		}
	})
}
