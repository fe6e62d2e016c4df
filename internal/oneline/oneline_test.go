package oneline_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/workerd/workerd/internal/oneline"
)

func TestOf_showsOneVisibleLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		"plain text, ä and 日本":          "plain text, ä and 日本",
		"a\r\nb\tc":                     "a  b c",
		"\x1b[31mred\x1b[0m":            "[31mred[0m",
		"\u009b31mred":                  "31mred",
		"user\u202etxt.exe\u2066\ufeff": "usertxt.exe",
		"a\u2028b\u2029c\u0085d":        "a b c d",
		"nul\x00 del\x7f bell\a":        "nul del bell",
		"bad \xff\xc3 utf8":             "bad  utf8",
		strings.Repeat("x", 32):         strings.Repeat("x", 32),
		strings.Repeat("x", 33):         strings.Repeat("x", 29) + "…",
		strings.Repeat("ä", 17):         strings.Repeat("ä", 14) + "…",
		strings.Repeat("\x00", 99):      "",
	} {
		if got := oneline.Of(in, 32); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func FuzzOf(f *testing.F) {
	f.Add("a\r\n\x1b]0;title\a\u202e", uint8(8))
	f.Add("日本日本", uint8(3))
	f.Add("\xff\ufffd", uint8(0))
	f.Fuzz(func(t *testing.T, s string, n uint8) {
		limit := int(n) + 3
		got := oneline.Of(s, limit)
		if len(got) > limit || !utf8.ValidString(got) {
			t.Errorf("%q at most %d bytes becomes %q", s, limit, got)
		}
		if strings.ContainsFunc(got, func(r rune) bool {
			return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r != ' ' && unicode.IsSpace(r)
		}) {
			t.Errorf("%q becomes %q, which holds what cannot be seen", s, got)
		}
		if oneline.Of(got, limit) != got {
			t.Errorf("%q is not stable: %q", got, oneline.Of(got, limit))
		}
	})
}
