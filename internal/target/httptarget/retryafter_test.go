package httptarget

import (
	"strings"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 5e8, time.UTC)
	const limit = 5 * time.Minute
	for value, want := range map[string]time.Duration{
		"0": 0, "7": 7 * time.Second, " 7\t": 7 * time.Second, "007": 7 * time.Second, "300": limit, "301": limit, "9223372037": limit,
		"18446744073709551616": limit, strings.Repeat("9", 1000): limit, strings.Repeat("0", 1000) + "5": 5 * time.Second,
		"Fri, 20 Nov 2026 12:00:10 GMT": 9500 * time.Millisecond, "Fri, 20 Nov 2026 11:00:00 GMT": 0, "Fri, 20 Nov 2099 11:00:00 GMT": limit,
		"Friday, 20-Nov-26 12:00:10 GMT": 9500 * time.Millisecond, "Fri Nov 20 12:00:10 2026": 9500 * time.Millisecond,
		"Mon, 01 Jan 0001 00:00:00 GMT": 0, "Fri, 31 Dec 9999 23:59:59 GMT": limit,
	} {
		if got, ok := retryAfter(value, now, limit); !ok || got != want {
			t.Errorf("%q is %s, %t, want %s", value, got, ok, want)
		}
	}
	for _, value := range []string{"", " ", "-1", "+1", "1.5", "1e3", "0x10", "7s", "soon", "1,2", "１", "9999999999999x", "Fri, 20 Nov 2026 12:00:10 CET", "2026-11-20T12:00:10Z"} {
		if got, ok := retryAfter(value, now, limit); ok || got != 0 {
			t.Errorf("%q is %s, %t, want nothing", value, got, ok)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{"7", "-1", "9223372037", "Fri, 20 Nov 2026 12:00:10 GMT", "x"} {
		f.Add(value, int64(1e18), int64(time.Minute))
	}
	f.Fuzz(func(t *testing.T, value string, now, limit int64) {
		limit = max(limit, 0)
		got, ok := retryAfter(value, time.Unix(0, now), time.Duration(limit))
		if got < 0 || got > time.Duration(limit) || !ok && got != 0 {
			t.Errorf("%q is %s, %t, limit %s", value, got, ok, time.Duration(limit))
		}
		if twice, _ := retryAfter(" "+value+" ", time.Unix(0, now), time.Duration(limit)); ok && twice != got {
			t.Errorf("%q is %s with spaces around, %s without", value, twice, got)
		}
	})
}
