package config

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"0s": 0, "250ms": 250 * time.Millisecond, "1m30s": 90 * time.Second, "1d": day, "14d": 14 * day, "1d12h": 36 * time.Hour,
		"0.5d": 12 * time.Hour, "1.5h": 90 * time.Minute, "1us": time.Microsecond, "3650d": maxDuration,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %s, %v; want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]error{
		"": errMeans, "5": errNoUnit, "1.5": errNoUnit, "0": errNoUnit, "-5s": errNegative, "1w": errMeans, "d": errMeans, "1d-5h": errMeans,
		"5 s": errMeans, "1d2d": errMeans, "inf": errMeans, "1e3d": errMeans, "9999999d": errTooLarge, "3650d1s": errTooLarge, "99999999h": errMeans,
	} {
		if got, err := ParseDuration(in); !errors.Is(err, want) {
			t.Errorf("ParseDuration(%q) = %s, %v; want error %v", in, got, err, want)
		}
	}
}

func TestFormatDuration_isShortAndReadsBack(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 10 * time.Minute: "10m", 24 * time.Hour: "24h", 48 * time.Hour: "2d", 90 * time.Minute: "1h30m", 30 * time.Second: "30s",
		time.Hour + time.Second: "1h0m1s", 1500 * time.Millisecond: "1.5s", 100 * time.Minute: "1h40m",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("formatDuration(%d) = %q, want %q", d, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(maxDuration)).Draw(t, "d"))
		if got, err := ParseDuration(formatDuration(d)); err != nil || got != d {
			t.Fatalf("%q reads back as %d, %v", formatDuration(d), got, err)
		}
	})
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1500": 1500, "64KiB": 64 << 10, "8MiB": 8 << 20, "1.5GiB": 3 << 29, "1MB": 1e6, "7B": 7, "2TiB": 2 << 40,
		"9223372036854775807": 1<<63 - 1,
	} {
		if got, _, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for in, want := range map[string]error{
		"": errMeans, "-1": errNegative, "1.5": errMeans, "1.5B": errMeans, "8Mi": errMeans, "MiB": errMeans, "1e3": errMeans, "0x10": errMeans, "1_000": errMeans,
		"99999999999TiB": errTooLarge, "9223372036854775808": errTooLarge,
	} {
		if got, _, err := parseSize(in); !errors.Is(err, want) {
			t.Errorf("parseSize(%q) = %d, %v; want error %v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{"8Mi": "write 8MiB", "8mb": "write 8MB", "8M": "write 8MB", "8mib": "write 8MiB", "8x": ""} {
		if _, got, _ := parseSize(in); got != want {
			t.Errorf("parseSize(%q): hint %q, want %q", in, got, want)
		}
	}
}

func TestFormatSize_isExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<62).Draw(t, "n") >> rapid.IntRange(0, 62).Draw(t, "shift") << rapid.IntRange(0, 10).Draw(t, "back")
		n = max(0, n)
		if got, _, err := parseSize(formatSize(n)); err != nil || got != n {
			t.Fatalf("%q reads back as %d, %v; want %d", formatSize(n), got, err, n)
		}
	})
}
