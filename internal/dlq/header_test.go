package dlq

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/workerd/workerd/internal/job"
)

// FuzzSanitise: nothing in a job's header commands the broker or passes for
// one of ours, nothing of it is lost, and every key can be written.
func FuzzSanitise(f *testing.F) {
	f.Add("Nats-Rollup", "all", "other", "x")
	f.Add("nats-ttl", "1s", "Nats-TTL", "2s")
	f.Add("NATS-Schedule", "@every 1s", "Workerd-Orig-NATS-Schedule", "forged")
	f.Add("Workerd-Dlq-Reason", "x", "workerd-dlq-at", "y")
	f.Add("two words", "\r\n", "two%20words", "\x00\xff")
	f.Add(" nats-ttl", "1s", "Größe", "*.>")
	f.Fuzz(func(t *testing.T, key, value, key2, value2 string) {
		from := job.Header{key: {value}}
		from[key2] = append(from[key2], value2)
		want := 0
		for k, values := range from {
			if !strings.HasPrefix(strings.ToLower(k), "workerd-dlq-") {
				want += len(values)
			}
		}
		got := 0
		for k, values := range sanitise(from) {
			got += len(values)
			if lower := strings.ToLower(k); strings.HasPrefix(lower, "nats-") || strings.HasPrefix(lower, "workerd-dlq-") {
				t.Errorf("%q is let through", k)
			}
			if strings.ContainsFunc(k, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
				t.Errorf("%q cannot be written", k)
			}
		}
		if got != want {
			t.Errorf("%d values of %q, want %d", got, from, want)
		}
	})
}

// FuzzPrintable: a text becomes one bounded line.
func FuzzPrintable(f *testing.F) {
	f.Add("line\r\nWorkerd-Dlq-Reason: forged")
	f.Add(strings.Repeat("ü", 2000))
	f.Add("\x00\xff")
	f.Add(" ")
	f.Fuzz(func(t *testing.T, text string) {
		if got := printable(text); strings.ContainsAny(got, "\r\n\x00") || len(got) > maxError+len("…") || !utf8.ValidString(got) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
