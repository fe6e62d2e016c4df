package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/dlq"
)

func dlqRmCommand() *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "Remove dead letters, one by one", ArgsUsage: "[ID|SEQ...]",
		Description: "If one of them is not there, none is removed.\n\nExample: workerd dlq rm 42 43",
		Flags:       slices.Concat([]cli.Flag{dryRunFlag()}, boxFlags()),
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return fail(exitUsage, "`workerd dlq purge` removes many", "dlq rm needs sequences of dead letters, or ids of their jobs")
			}
			return inBox(c, func(ctx context.Context, box *dlq.Box) error { return dlqRm(ctx, c, box) })
		},
	}
}

func dlqRm(ctx context.Context, c *cli.Context, box *dlq.Box) error {
	letters, err := chosen(ctx, c, box)
	if err != nil {
		return err
	}
	for _, l := range letters {
		said := "removed"
		if c.Bool("dry-run") {
			said = "would remove"
		} else if err := box.Remove(ctx, l.Sequence); err != nil {
			return err
		}
		fmt.Fprintf(c.App.Writer, "%s dead letter %d: %s\n", said, l.Sequence, dlq.Printable(why(l.Reason, l.Error), false))
	}
	return nil
}

func dlqPurgeCommand() *cli.Command {
	return &cli.Command{
		Name: "purge", Usage: "Remove all dead letters, or those that the flags choose",
		Description: "It asks before it does so; where it cannot ask it needs --force. `workerd dlq\n" +
			"export` keeps a copy.\n\n" +
			"Example: workerd dlq purge --pool email --before 7d",
		Flags: slices.Concat(filterFlags("the oldest `N` of them", "all"), []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "do not ask", DisableDefaultText: true},
			dryRunFlag(),
		}, boxFlags()),
		Action: func(c *cli.Context) error {
			f, err := wholeFilter(c)
			if err == nil && !c.Bool("force") && !c.Bool("dry-run") && !canAsk(c) {
				err = fail(exitUsage, "say --force, or look first with --dry-run", "dlq purge removes dead letters for good, and there is no terminal to ask")
			}
			if err != nil {
				return err
			}
			return inBox(c, func(ctx context.Context, box *dlq.Box) error { return dlqPurge(ctx, c, box, f) })
		},
	}
}

func dlqPurge(ctx context.Context, c *cli.Context, box *dlq.Box, f dlq.Filter) error {
	n, err := box.Count(ctx, f)
	if err != nil || n == 0 {
		return sayNone(c, f, err)
	}
	what := strings.Replace(plural(n, "dead letter"), fmt.Sprint(n), thousands(n), 1) + " of stream " + box.Stream()
	if c.Bool("dry-run") {
		_, err = fmt.Fprintf(c.App.Writer, "would remove %s\n", what)
		return err
	}
	if !c.Bool("force") && !agrees(ctx, c, "remove "+what+" for good?") {
		return fail(exitFailure, "", "nothing was removed")
	}
	if !box.PurgesAtOnce(f) {
		return newTally(c.App.ErrWriter, "removing", n).purgeEach(ctx, c, box, f)
	}
	if err := box.Purge(ctx, f.Pool); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "removed %s\n", what)
	return err
}

// purgeEach removes letter by letter what the stream cannot purge at once.
func (t *tally) purgeEach(ctx context.Context, c *cli.Context, box *dlq.Box, f dlq.Filter) error {
	err := t.remove(ctx, box, f)
	t.end()
	_, _ = fmt.Fprintf(c.App.Writer, "removed %s in %s\n", thousands(t.done), took(t.start))
	return t.result(err, ctx.Err() != nil, "the same command goes on")
}

func (t *tally) remove(ctx context.Context, box *dlq.Box, f dlq.Filter) error {
	for l, err := range box.Heads(ctx, f) {
		if err == nil {
			err = box.Remove(context.WithoutCancel(ctx), l.Sequence)
		}
		switch {
		case errors.Is(err, dlq.ErrNoLetter): // somebody else did
		case err != nil:
			return err
		default:
			t.done++
		}
		t.tell()
	}
	return nil
}

// canAsk tells whether somebody sits there.
func canAsk(c *cli.Context) bool {
	in, ok := c.App.Reader.(*os.File)
	return ok && isTerminal(in) && isTerminal(c.App.ErrWriter)
}

// agrees asks. Ctrl-C is a no.
func agrees(ctx context.Context, c *cli.Context, question string) bool {
	fmt.Fprintf(c.App.ErrWriter, "%s [y/N] ", question)
	line := make(chan string, 1)
	var reading sync.WaitGroup
	reading.Go(func() { // nobody waits: after Ctrl-C it ends with the process
		text, _ := bufio.NewReader(c.App.Reader).ReadString('\n')
		line <- text
	})
	select {
	case text := <-line:
		return slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(text)))
	case <-ctx.Done():
		fmt.Fprintln(c.App.ErrWriter)
		return false
	}
}
