package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// maxDuration bounds every duration, so that sums of some do not overflow.
const maxDuration = 10 * 365 * 24 * time.Hour

var (
	errNoUnit   = errors.New("has no unit")
	errNegative = errors.New("is negative")
	errTooLarge = errors.New("is too large")
	errMeans    = errors.New("cannot be read")
)

// ParseDuration reads "1m30s" as Go does, and days: "14d", "1d12h". A number
// without unit is errNoUnit.
func ParseDuration(s string) (time.Duration, error) {
	switch {
	case strings.HasPrefix(s, "-"):
		return 0, errNegative
	case s != "" && strings.Trim(s, "0123456789.") == "":
		return 0, errNoUnit
	}
	var days float64
	rest := s
	if n, after, ok := strings.Cut(s, "d"); ok {
		var err error
		if days, err = decimal(n); err != nil {
			return 0, errMeans
		}
		rest = after
	}
	var d time.Duration
	if rest != "" || s == "" {
		var err error
		if d, err = time.ParseDuration(rest); err != nil || d < 0 {
			return 0, errMeans
		}
	}
	if days > maxDuration.Hours()/24 || d > maxDuration {
		return 0, errTooLarge
	}
	if d += time.Duration(days * float64(24*time.Hour)); d > maxDuration {
		return 0, errTooLarge
	}
	return d, nil
}

// decimal reads digits with at most one point: no sign, exponent or word.
func decimal(s string) (float64, error) {
	if strings.Trim(s, "0123456789.") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(s, 64)
}

// formatDuration writes what ParseDuration reads, without zero parts: "10m",
// "1h30m", from two days on "14d".
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

type sizeUnit struct {
	name  string
	bytes int64
}

// sizeUnits from large to small, binary before decimal.
func sizeUnits() []sizeUnit {
	return []sizeUnit{
		{"TiB", 1 << 40},
		{"GiB", 1 << 30},
		{"MiB", 1 << 20},
		{"KiB", 1 << 10},
		{"TB", 1e12},
		{"GB", 1e9},
		{"MB", 1e6},
		{"KB", 1e3},
		{"B", 1},
	}
}

// parseSize reads "8MiB", "1.5KB", or plain bytes. On an error, hint is what
// was probably meant.
func parseSize(s string) (size int64, hint string, err error) {
	if strings.HasPrefix(s, "-") {
		return 0, "", errNegative
	}
	digits := strings.TrimRight(s, "BKMGTibkmgt")
	unit := sizeUnit{"", 1}
	if name := s[len(digits):]; name != "" {
		var ok bool
		if unit, ok = findUnit(name); !ok {
			return 0, sizeHint(digits, name), errMeans
		}
	}
	n, err := decimal(strings.TrimSpace(digits))
	if err != nil {
		return 0, "", errMeans
	}
	if unit.bytes == 1 && strings.Contains(digits, ".") {
		return 0, "", errMeans
	}
	// Whole numbers stay exact beyond 2^53.
	if whole, err := strconv.ParseInt(digits, 10, 64); err == nil && whole <= math.MaxInt64/unit.bytes {
		return whole * unit.bytes, "", nil
	}
	if n *= float64(unit.bytes); n >= math.MaxInt64 {
		return 0, "", errTooLarge
	}
	return int64(n), "", nil
}

func findUnit(name string) (sizeUnit, bool) {
	for _, u := range sizeUnits() {
		if u.name == name {
			return u, true
		}
	}
	return sizeUnit{}, false
}

// sizeHint turns Mi, M and mib into what they are called here.
func sizeHint(digits, name string) string {
	for _, u := range sizeUnits() {
		if strings.EqualFold(u.name, name) || strings.EqualFold(strings.TrimSuffix(u.name, "B"), name) {
			return "write " + digits + u.name
		}
	}
	return ""
}

// formatSize writes what parseSize reads, in the largest unit that is exact.
func formatSize(n int64) string {
	for _, u := range sizeUnits() {
		if u.bytes > 1 && n >= u.bytes && n%u.bytes == 0 {
			return fmt.Sprintf("%d%s", n/u.bytes, u.name)
		}
	}
	return strconv.FormatInt(n, 10)
}
