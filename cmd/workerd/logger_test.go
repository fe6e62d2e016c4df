package main

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

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
