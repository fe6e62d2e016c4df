package admin

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestFormat_isShortAndReadable(t *testing.T) {
	half, tiny, many, below := 0.5, 0.01, 12345.6, -1.0
	for _, c := range []struct{ got, want string }{
		{span(-time.Second), "0ms"},
		{span(350 * time.Microsecond), "0ms"},
		{span(999 * time.Millisecond), "999ms"},
		{span(time.Second), "1s"},
		{span(6149 * time.Millisecond), "6.1s"},
		{span(9999 * time.Millisecond), "9.9s"},
		{span(59999 * time.Millisecond), "59s"},
		{span(time.Minute), "1m"},
		{span(12*time.Minute + 4*time.Second), "12m4s"},
		{span(3*time.Hour + 12*time.Minute), "3h12m"},
		{span(53 * time.Hour), "2d5h"},
		{span(seconds(math.Inf(1))), "36500d"},
		{span(seconds(math.NaN())), "0ms"},
		{number(0), "0"},
		{number(-7), "0"},
		{number(999), "999"},
		{number(1000), "1,000"},
		{number(uint64(math.MaxUint64)), "18,446,744,073,709,551,615"},
		{rate(nil), "–"},
		{rate(&below), "0"},
		{rate(&tiny), "<0.1"},
		{rate(&half), "0.5"},
		{rate(&many), "12,345"},
		{percent(0, 0), "–"},
		{percent(0, 5), "0 %"},
		{percent(1, 5000), "<0.1 %"},
		{percent(1, 3), "33.3 %"},
		{clean("a\nb\tc\u202e\x00"), "a b c\ufffd\ufffd"},
		{clean(strings.Repeat("ä", 301)), strings.Repeat("ä", 300) + "…"},
		{clean(strings.Repeat("ä", 300)), strings.Repeat("ä", 300)},
		{words("max_attempts"), "max attempts"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
