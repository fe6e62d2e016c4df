package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/dlq"
)

// How much of a payload is shown, in bytes.
const (
	shownText   = 64 << 10
	shownBinary = 1 << 10
)

func dlqShowCommand() *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "Show everything about one dead letter", ArgsUsage: "ID|SEQ",
		Description: "It is named by its sequence, as in `workerd dlq ls`, or by the id of its job.\n\n" +
			"Example: workerd dlq show 42",
		Flags: slices.Concat([]cli.Flag{
			&cli.BoolFlag{Name: "raw", Usage: "write the payload, byte for byte, and nothing else", DisableDefaultText: true},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "text or json", Value: "text"},
		}, boxFlags()),
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return fail(exitUsage, helpHint(c), "dlq show needs the sequence of a dead letter, or the id of its job")
			}
			if err := validOutput(c); err != nil {
				return err
			}
			return inBox(c, func(ctx context.Context, box *dlq.Box) error { return dlqShow(ctx, c, box) })
		},
	}
}

func dlqShow(ctx context.Context, c *cli.Context, box *dlq.Box) error {
	letters, err := chosen(ctx, c, box)
	if err != nil {
		return err
	}
	l := letters[0]
	switch {
	case c.Bool("raw"):
		_, err = c.App.Writer.Write(l.Payload)
		return err
	case c.String("output") == "json":
		line := asJSON(l)
		line.Headers, line.Payload = l.Header, &l.Payload
		return printLines(c.App.Writer, []letterJSON{line}, func(l letterJSON) any { return l })
	}
	_, err = io.WriteString(c.App.Writer, describe(l, box.Stream()))
	return err
}

// letterJSON is a dead letter for programs.
type letterJSON struct {
	Sequence       uint64              `json:"sequence"`
	ID             string              `json:"id"`
	Pool           string              `json:"pool"`
	Target         string              `json:"target,omitempty"`
	Reason         string              `json:"reason"`
	Error          string              `json:"error"`
	Fingerprint    string              `json:"fingerprint"`
	Subject        string              `json:"subject"`
	Stream         string              `json:"stream"`
	StreamSequence uint64              `json:"stream_sequence"`
	Attempts       int                 `json:"attempts"`
	Deliveries     int                 `json:"deliveries"`
	LastStatus     int                 `json:"last_status,omitempty"`
	Enqueued       time.Time           `json:"enqueued_at,omitzero"`
	At             time.Time           `json:"at"`
	Stored         time.Time           `json:"stored"`
	Size           int                 `json:"size"`
	History        []string            `json:"history,omitempty"`
	Headers        map[string][]string `json:"headers,omitempty"`
	Payload        *[]byte             `json:"payload,omitempty"` // in base64
}

func asJSON(l *dlq.Letter) letterJSON {
	return letterJSON{
		Sequence: l.Sequence, ID: l.ID, Pool: l.Pool, Target: l.Target, Reason: l.Reason, Error: l.Error, Fingerprint: l.Fingerprint,
		Subject: l.JobSubject, Stream: l.JobStream, StreamSequence: l.JobSequence, Attempts: l.Attempts, Deliveries: l.Deliveries,
		LastStatus: l.LastStatus, Enqueued: l.Enqueued, At: l.At, Stored: l.Stored, Size: l.Size, History: l.History,
	}
}

// describe is a letter for people. Nothing of it can act on their terminal.
func describe(l *dlq.Letter, stream string) string {
	var b strings.Builder
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-11s %s\n", key, dlq.Printable(value, false))
		}
	}
	fmt.Fprintf(&b, "dead letter %d of stream %s\n", l.Sequence, stream)
	line("job", l.ID)
	if l.ID != l.Key() {
		line("place", l.Key())
	}
	line("subject", l.JobSubject)
	line("pool", l.Pool)
	line("target", l.Target)
	line("reason", l.Reason)
	line("error", l.Error)
	line("fingerprint", l.Fingerprint)
	if l.Deliveries > 0 {
		line("attempts", strconv.Itoa(l.Attempts))
		line("deliveries", strconv.Itoa(l.Deliveries))
	}
	if l.LastStatus != 0 {
		line("last status", strconv.Itoa(l.LastStatus))
	}
	line("published", moment(l.Enqueued))
	line("given up", moment(l.At))
	for i, text := range l.History {
		line([]string{"before", ""}[min(i, 1)], text)
	}
	b.WriteString("\nheader\n")
	for _, key := range slices.Sorted(maps.Keys(l.Header)) {
		for _, value := range l.Header[key] {
			fmt.Fprintf(&b, "  %s: %s\n", dlq.Printable(key, false), dlq.Printable(value, false))
		}
	}
	fmt.Fprintf(&b, "\npayload, %s\n%s", plural(len(l.Payload), "byte"), shown(l.Payload))
	return b.String()
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339) + " (" + ago(t) + ")"
}

// shown is a payload as text if it is text, and as a hex dump otherwise, with
// its end left out if it is long.
func shown(payload []byte) string {
	if len(payload) == 0 {
		return ""
	}
	most, isText := shownText, utf8.Valid(payload)
	if !isText {
		most = shownBinary
	}
	head := payload[:min(len(payload), most)]
	out := hex.Dump(head)
	if isText {
		out = strings.TrimSuffix(dlq.Printable(string(head), true), "\n") + "\n"
	}
	if n := len(payload) - len(head); n > 0 {
		out += fmt.Sprintf("… and %s more, --raw has them all\n", plural(n, "byte"))
	}
	return out
}
