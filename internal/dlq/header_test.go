package dlq

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/workerd/workerd/internal/job"
)

// FuzzSanitise: nothing in a job's header commands the broker or passes for
// one of ours, and an error text is one bounded line.
func FuzzSanitise(f *testing.F) {
	f.Add("Nats-Rollup", "all", "text")
	f.Add("nats-ttl", "1s", "\r\n")
	f.Add("NATS-Schedule", "@every 1s", strings.Repeat("ü", 2000))
	f.Add("Workerd-Dlq-Reason", "x", "\x00\xff")
	f.Fuzz(func(t *testing.T, key, value, text string) {
		for k := range sanitise(job.Header{key: {value}}) {
			if lower := strings.ToLower(k); strings.HasPrefix(lower, "nats-") || strings.HasPrefix(lower, "workerd-dlq-") {
				t.Errorf("%q is let through", k)
			}
		}
		if got := printable(text); strings.ContainsAny(got, "\r\n\x00") || len(got) > maxError+len("…") || !utf8.ValidString(got) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
