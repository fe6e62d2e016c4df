package httptarget

import (
	"net/http"
	"strings"
	"time"
)

// retryAfter reads a Retry-After header (RFC 9110 section 10.2.3): seconds or
// a date. The wait is never negative and never above limit; ok is false if the
// value is missing or neither of the two.
func retryAfter(value string, now time.Time, limit time.Duration) (wait time.Duration, ok bool) {
	if value == "" {
		return 0, false
	}
	value = strings.Trim(value, " \t")
	if wait, ok = parseSeconds(value, limit); ok {
		return wait, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), limit), true
}

// parseSeconds stops counting at limit, before any multiplication: seconds as
// a Duration overflow from 9223372037 on, and others have slept a negative
// time for that.
func parseSeconds(digits string, limit time.Duration) (time.Duration, bool) {
	var wait time.Duration
	for i := range len(digits) {
		d := digits[i]
		if d < '0' || d > '9' {
			return 0, false
		}
		if wait > limit/10 {
			wait = limit
			continue
		}
		wait = min(wait*10+time.Duration(d-'0')*time.Second, limit)
	}
	return wait, digits != ""
}
