package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/workerd/workerd/internal/config"
)

func TestConsole_writesTimeLevelMessageAndThenPairs(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(newConsole(&out, slog.LevelInfo))
	log.Debug("not wanted")
	log.Info("ready")
	log.With("pool", "email").WithGroup("nats").Warn("cannot reach NATS", "err", errors.New("connection refused"), "tries", 3)
	log.Error("again")
	want := `^\d\d:\d\d:\d\d INFO  ready
\d\d:\d\d:\d\d WARN  cannot reach NATS  pool=email nats.err="connection refused" nats.tries=3
\d\d:\d\d:\d\d ERROR again
$`
	if !regexp.MustCompile(want).MatchString(out.String()) {
		t.Errorf("%s does not look like %s", out.String(), want)
	}
}

func TestLogger_writesForMachinesUnlessOnATerminal(t *testing.T) {
	for format, want := range map[string]string{
		"auto": `"level":"WARN","msg":"hello","took_seconds":1.5}`, "json": `"level":"WARN","msg":"hello","took_seconds":1.5}`,
		"text": "level=WARN msg=hello took=1.5s",
	} {
		var out bytes.Buffer
		log := newLogger(config.LogConfig{Format: format, Level: "warn"}, &out)
		log.Info("not wanted")
		log.Warn("hello", "took", 1500*time.Millisecond)
		if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "not wanted") {
			t.Errorf("%s: %s", format, out.String())
		}
		if !regexp.MustCompile(`20\d\d-\d\d-\d\dT`).MatchString(out.String()) {
			t.Errorf("%s: no date in %s", format, out.String())
		}
	}
}

// everyLogger writes the same record in each format and returns the lines.
func everyLogger(write func(*slog.Logger)) map[string]string {
	said := map[string]string{}
	for _, format := range []string{"json", "text", "console"} {
		var out bytes.Buffer
		log := newLogger(config.LogConfig{Format: format, Level: "info"}, &out)
		if format == "console" {
			log = slog.New(newConsole(&out, slog.LevelInfo))
		}
		write(log)
		said[format] = out.String()
	}
	return said
}

// FuzzLogger_oneRecordIsOneLine of visible characters, whatever is in it.
func FuzzLogger_oneRecordIsOneLine(f *testing.F) {
	f.Add("plain", "id")
	f.Add("a\r\nlevel=ERROR msg=forged", "\x1b[2J\x1b]0;title\a")
	f.Add("{\"level\":\"ERROR\"}\n", "user\u202etxt.exe\u2066")
	f.Add("\u2028\u0085\u009b31m", strings.Repeat("\xff\x00", 5000))
	f.Fuzz(func(t *testing.T, message, value string) {
		for format, said := range everyLogger(func(log *slog.Logger) {
			log.With("with", value).Warn(message, "subject", value, "err", errors.New(value), slog.Group("g", "in", value)) //nolint:sloglint // any message is the point
		}) {
			if strings.Count(said, "\n") != 1 || !strings.HasSuffix(said, "\n") || len(said) > 12*maxLogText {
				t.Errorf("%s: %d bytes, not one line: %.300q", format, len(said), said)
			}
			if strings.ContainsFunc(strings.TrimSuffix(said, "\n"), func(r rune) bool { return !unicode.IsGraphic(r) || r == utf8.RuneError }) {
				t.Errorf("%s: %q holds what cannot be seen", format, said)
			}
			if format == "json" {
				var fields map[string]any
				if err := json.Unmarshal([]byte(said), &fields); err != nil || fields["level"] != "WARN" {
					t.Errorf("%s: %v in %q", format, err, said)
				}
			}
		}
	})
}

func TestLogger_textsKeepTheirMeaning(t *testing.T) {
	for format, said := range everyLogger(func(log *slog.Logger) {
		log.Warn("hello", "err", errors.New("no\nsuch \x1b[31mfield"), "list", []string{"a", "b"}, "long", strings.Repeat("x", 3<<10))
	}) {
		for _, want := range []string{"no such [31mfield", "WARN", "hello", strings.Repeat("x", 2<<10-3) + "…"} {
			if !strings.Contains(said, want) {
				t.Errorf("%s: no %.40q in %s", format, want, said)
			}
		}
	}
}
