package dlq

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFingerprint_isThatOfTheCauseNotOfTheJob(t *testing.T) {
	for _, c := range []struct {
		name string
		text []string // of one cause
	}{
		{"status", []string{`failed 3 times (max_attempts): HTTP 503 from mailer:8080: ""`, `failed 12 times (max_attempts): HTTP 503 from mailer:9999: ""`}},
		{"another status", []string{`failed 3 times (max_attempts): HTTP 500 from mailer:8080: ""`}},
		{"answer", []string{`HTTP 422 from mailer: "unknown template 'welcome' of user 42"`, `HTTP 422 from mailer: "unknown template 'good bye' of user 17"`, `HTTP 422 from mailer: "Unknown template: 'x' of user a1b2"`}},
		{"another answer", []string{`HTTP 422 from mailer: "bad address bob@example.org"`, `HTTP 422 from mailer: "bad address eve+x@example.com"`}},
		{"answer in JSON", []string{`HTTP 422 from mailer: "{"error":"unknown template","id":"xkcd"}"`, `HTTP 422 from mailer: "{"error":"unknown template","id":"tiny"}"`}},
		{"another answer in JSON", []string{`HTTP 422 from mailer: "{"error":"no such account","id":"xkcd"}"`}},
		{"time-out", []string{"call mailer: call timed out after 30s", "call mailer: call timed out after 1m30s"}},
		{"address", []string{"call m: dial tcp 127.0.0.1:38211: connect: connection refused", "call m: dial tcp [::1]:80: connect: connection refused"}},
		{"hex", []string{"no object deadbeef", "no object 0xff", "no object 7c9e6679-7425-40de-944b-e07fc1f90ae7", "no object FEEDFACECAFE"}},
		{"quoted", []string{`user "John Smith" is unknown`, `user "Eve" is unknown`, "user `x` is unknown", "user 'a b' is unknown"}},
		{"apostrophe", []string{"user can't be found, isn't there"}},
		{"time", []string{"older than max_age (24h): published 2026-01-01T12:00:00Z", "older than max_age (1h30m): published 2026-11-26T01:02:03.5Z"}},
		{"id", []string{"order-17 is paid", "order-18 is paid"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, text := range c.text {
				if got, want := normalise(text), normalise(c.text[0]); got != want {
					t.Errorf("%s\n is %q, want %q", text, got, want)
				}
			}
		})
	}
}

func TestFingerprint_ofDifferentCausesDiffers(t *testing.T) {
	seen := map[string]string{}
	for _, text := range []string{
		`HTTP 503 from mailer: ""`, `HTTP 500 from mailer: ""`, `HTTP 503 from pdf: ""`, `HTTP 422 from mailer: "unknown template"`,
		`HTTP 422 from mailer: "{"error":"unknown template"}"`, `HTTP 422 from mailer: "{"error":"no such account"}"`,
		"call mailer: call timed out", "user can't be found", "user isn't there", "",
	} {
		fp := Fingerprint("max_attempts", text)
		if other, ok := seen[fp]; ok {
			t.Errorf("%q and %q are both %s", text, other, fp)
		}
		seen[fp] = text
	}
}

// TestFingerprint_staysTheSame: it is written into letters and into people's
// commands, so a change makes groups fall apart.
func TestFingerprint_staysTheSame(t *testing.T) {
	for text, want := range map[string]string{
		`failed 5 times (max_attempts): HTTP 422 from mailer: "unknown template 'x'"`: "ca783c",
		"": "144f62",
	} {
		if got := Fingerprint("max_attempts", text); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

// FuzzFingerprint: any text has one, always the same, of bounded work, and what
// is left of a text has nothing more to take away.
func FuzzFingerprint(f *testing.F) {
	f.Add("max_attempts", `failed 3 times: HTTP 503 from mailer: "x`)
	f.Add("", "'\"`\\")
	f.Add("expired", "HTTP ")
	f.Add("expired", "\xff\x00HTTP 200: \"{\"a\":\"b c")
	f.Add("x", strings.Repeat("é", 3000))
	f.Fuzz(func(t *testing.T, reason, text string) {
		fp := Fingerprint(reason, text)
		if !IsFingerprint(fp) || fp != Fingerprint(reason, text) {
			t.Errorf("%q has %q", text, fp)
		}
		cause := normalise(text)
		if len(cause) > 4*maxCause || !utf8.ValidString(cause) || strings.ContainsAny(cause, "\n\r\"") {
			t.Errorf("%q is %q", text, cause)
		}
		if again := normalise(cause); !strings.Contains(cause, "http") && again != cause {
			t.Errorf("%q is %q, and that is %q", text, cause, again)
		}
	})
}
