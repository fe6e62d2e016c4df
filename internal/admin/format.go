package admin

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxText bounds a text of a job or a target on the page, in characters.
const maxText = 300

// none stands where there is no value.
const none = "–"

// span writes a duration with two units at most: 350ms, 6.1s, 12m4s, 3h12m, 2d5h.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	d = max(0, d)
	switch {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Truncate(100*time.Millisecond).Seconds(), 'f', -1, 64) + "s"
	case d < time.Minute:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	case d < time.Hour:
		return units(d, unit{time.Minute, "m"}, unit{time.Second, "s"})
	case d < day:
		return units(d, unit{time.Hour, "h"}, unit{time.Minute, "m"})
	}
	return units(d, unit{day, "d"}, unit{time.Hour, "h"})
}

type unit struct {
	size time.Duration
	name string
}

// units writes a duration as so many of a big unit and the rest in a small one.
func units(d time.Duration, big, small unit) string {
	s := strconv.FormatInt(int64(d/big.size), 10) + big.name
	if rest := int64(d % big.size / small.size); rest > 0 {
		s += strconv.FormatInt(rest, 10) + small.name
	}
	return s
}

func seconds(s float64) time.Duration {
	const most = float64(100 * 365 * 24 * time.Hour) // what comes from outside may be anything
	return time.Duration(max(0, min(s*float64(time.Second), most)))
}

// number writes 1234567 as 1,234,567.
func number[T int | uint64](n T) string {
	s := strconv.FormatUint(uint64(max(0, n)), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// rate writes events per second with as many digits as mean something.
func rate(perSecond *float64) string {
	switch {
	case perSecond == nil:
		return none
	case *perSecond <= 0:
		return "0"
	case *perSecond < 0.1:
		return "<0.1"
	case *perSecond < 100:
		return strconv.FormatFloat(*perSecond, 'f', 1, 64)
	}
	return number(uint64(*perSecond))
}

// percent writes a part of a whole; without a whole there is nothing to say.
func percent(part, whole uint64) string {
	switch {
	case whole == 0:
		return none
	case part == 0:
		return "0 %"
	}
	p := 100 * float64(part) / float64(whole)
	if p < 0.1 {
		return "<0.1 %"
	}
	return fmt.Sprintf("%.1f %%", p)
}

// clean makes a text of a job or a target fit to be seen: bounded, on one
// line, without controls that could reorder or hide what stands around it.
func clean(s string) string { return cleanTo(s, maxText) }

// short is clean for what should be one word.
func short(s string) string { return cleanTo(s, 24) }

func cleanTo(s string, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > most {
			return b.String() + "…"
		}
		switch {
		case unicode.IsSpace(r):
			r = ' '
		case !unicode.IsPrint(r):
			r = unicode.ReplacementChar
		}
		b.WriteRune(r)
	}
	return b.String()
}
