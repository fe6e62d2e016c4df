package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/oneline"
)

// maxLogText bounds each text in a line of the log, in bytes. Texts that a job
// controls are shorter where they are logged.
const maxLogText = 2 << 10

// newLogger writes what the configuration wants to w: JSON for machines, lines
// for people if w is a terminal, and text with full times otherwise. Whatever
// is logged, one record is one line, of visible characters, of bounded texts.
func newLogger(cfg config.LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // validated before
	switch {
	case logsJSON(cfg, w):
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: forMachines}))
	case isTerminal(w):
		return slog.New(newConsole(w, level))
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: visible}))
}

func logsJSON(cfg config.LogConfig, w io.Writer) bool {
	return cfg.Format == "json" || cfg.Format == "auto" && !isTerminal(w)
}

// forMachines is how JSON has it.
func forMachines(groups []string, a slog.Attr) slog.Attr {
	return inSeconds(groups, visible(groups, a))
}

// visible makes texts fit for a line. Escaping by the handlers is not enough:
// JSON leaves marks that turn the direction of text as they are, and a viewer
// undoes the rest. Errors and what prints itself are texts, too.
func visible(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case string:
		return text(a, v)
	case error:
		return text(a, v.Error())
	case fmt.Stringer: // durations, times and levels have kinds and handlers of their own
		if a.Value.Kind() == slog.KindAny && a.Key != slog.LevelKey {
			return text(a, v.String())
		}
	}
	return a
}

func text(a slog.Attr, s string) slog.Attr { return slog.String(a.Key, oneline.Of(s, maxLogText)) }

// inSeconds writes durations as everywhere in JSON: a number of seconds, and a
// name that says so. The library would write nanoseconds.
func inSeconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindDuration {
		return a
	}
	return slog.Float64(a.Key+"_seconds", a.Value.Duration().Seconds())
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colored tells whether w shows colours and the user wants them.
func colored(w io.Writer) bool { return isTerminal(w) && os.Getenv("NO_COLOR") == "" }

// console is a [slog.Handler] for terminals: time of day, level, message and
// then key=value. It leaves the pairs to the handler of package slog.
type console struct {
	level slog.Level
	out   *lockedWriter
	pairs slog.Handler
	text  *bytes.Buffer // what pairs has written; guarded by out
}

// lockedWriter is shared by a console and its children.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func newConsole(w io.Writer, level slog.Level) *console {
	text := new(bytes.Buffer)
	pairs := slog.NewTextHandler(text, &slog.HandlerOptions{Level: level, ReplaceAttr: dropHead})
	return &console{level: level, out: &lockedWriter{w: w}, pairs: pairs, text: text}
}

// dropHead removes what console writes in its own way.
func dropHead(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && slices.Contains([]string{slog.TimeKey, slog.LevelKey, slog.MessageKey}, a.Key) {
		return slog.Attr{}
	}
	return visible(groups, a)
}

// Enabled implements [slog.Handler].
func (h *console) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// Handle implements [slog.Handler].
func (h *console) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.text.Reset()
	if err := h.pairs.Handle(ctx, r); err != nil {
		return err
	}
	pairs := bytes.TrimRight(h.text.Bytes(), "\n")
	if len(pairs) > 0 {
		pairs = append([]byte("  "), pairs...)
	}
	_, err := fmt.Fprintf(h.out.w, "%s %-5s %s%s\n", r.Time.Format(time.TimeOnly), r.Level, oneline.Of(r.Message, maxLogText), pairs)
	return err
}

// WithAttrs implements [slog.Handler].
func (h *console) WithAttrs(attrs []slog.Attr) slog.Handler {
	child := *h
	child.pairs = h.pairs.WithAttrs(attrs)
	return &child
}

// WithGroup implements [slog.Handler].
func (h *console) WithGroup(name string) slog.Handler {
	child := *h
	child.pairs = h.pairs.WithGroup(name)
	return &child
}
