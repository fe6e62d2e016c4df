package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/time/rate"

	"github.com/workerd/workerd/internal/dlq"
)

const (
	toldFailures  = 10 // letters that failed and are named
	replaysAtOnce = 16
)

func dlqReplayCommand() *cli.Command {
	return &cli.Command{
		Name: "replay", Usage: "Send jobs back to their stream and remove their dead letters", ArgsUsage: "[ID|SEQ...]",
		Description: "Without arguments: all that the flags choose, the oldest first. A letter goes\n" +
			"when the stream has its job again. Stopped at any point, the same command\n" +
			"goes on from there; within the stream's duplicate window no job is sent twice.\n\n" +
			"Example: workerd dlq replay --group 7c01f2 --rate 50",
		Flags: slices.Concat(filterFlags("the oldest `N` of them", "all"), []cli.Flag{
			&cli.Float64Flag{Name: "rate", Usage: "at most `N` a second", DefaultText: "as fast as the broker takes them"},
			&cli.StringFlag{Name: "to", Usage: "to this `SUBJECT` instead of their own"},
			dryRunFlag(),
		}, boxFlags()),
		Action: dlqReplay,
	}
}

func dryRunFlag() cli.Flag {
	return &cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "change nothing, say what would be done", DisableDefaultText: true}
}

func dlqReplay(c *cli.Context) error {
	f, err := wholeFilter(c)
	if err != nil {
		return err
	}
	r := c.Float64("rate")
	switch {
	case c.NArg() > 0 && !f.IsZero():
		return fail(exitUsage, helpHint(c), "letters are chosen by arguments or by flags, not by both")
	case r < 0 || r != r || c.IsSet("rate") && r == 0:
		return fail(exitUsage, helpHint(c), "--rate: %v is not allowed, use a number above 0", r)
	case strings.ContainsAny(c.String("to"), " \t\r\n*>"):
		return fail(exitUsage, helpHint(c), "--to: subject %q is not allowed: no spaces, no * and >", c.String("to"))
	}
	return inBox(c, func(ctx context.Context, box *dlq.Box) error {
		letters, total, err := selected(ctx, c, box, f)
		if err != nil || total == 0 {
			return sayNone(c, f, err)
		}
		if c.Bool("dry-run") {
			return dryReplay(ctx, c, box, letters)
		}
		run := &replay{c: c, box: box, tally: newTally(c.App.ErrWriter, "replaying", total), limit: rate.NewLimiter(rate.Inf, 1)}
		if r > 0 {
			run.limit.SetLimit(rate.Limit(r))
		}
		return run.all(ctx, letters)
	})
}

// letterSeq is letters as they are read.
type letterSeq = iter.Seq2[*dlq.Letter, error]

// selected are the letters of the arguments, or those that flags choose.
func selected(ctx context.Context, c *cli.Context, box *dlq.Box, f dlq.Filter) (letterSeq, int, error) {
	if c.NArg() == 0 {
		n, err := box.Count(ctx, f)
		return box.Letters(ctx, f), n, err
	}
	letters, err := chosen(ctx, c, box)
	return func(yield func(*dlq.Letter, error) bool) {
		for _, l := range letters {
			if ctx.Err() != nil || !yield(l, nil) {
				return
			}
		}
	}, len(letters), err
}

func sayNone(c *cli.Context, f dlq.Filter, err error) error {
	if err == nil {
		_, err = fmt.Fprintln(c.App.Writer, none(f))
	}
	return err
}

func dryReplay(ctx context.Context, c *cli.Context, box *dlq.Box, letters letterSeq) error {
	t := newTally(c.App.ErrWriter, "looking at", 0)
	for l, err := range letters {
		if err != nil {
			return err
		}
		if _, err = box.Destination(ctx, l, c.String("to")); err != nil {
			if err = t.failure(l, err); err != nil {
				return err
			}
			continue
		}
		t.done++
	}
	t.end()
	if t.failed > 0 {
		fmt.Fprintf(c.App.Writer, "would replay %s, %s cannot be\n", thousands(t.done), thousands(t.failed))
		return &coded{code: exitFailure, err: errReported}
	}
	fmt.Fprintf(c.App.Writer, "would replay %s\n", thousands(t.done))
	return nil
}

// replay is one run of the command.
type replay struct {
	c     *cli.Context
	box   *dlq.Box
	limit *rate.Limiter

	mu    sync.Mutex // guards tally
	tally *tally
}

func (r *replay) all(ctx context.Context, letters letterSeq) error {
	err := r.each(ctx, letters)
	r.tally.end()
	t := r.tally
	_, _ = fmt.Fprintf(r.c.App.Writer, "replayed %s, skipped %s (already replayed), failed %s in %s\n",
		thousands(t.done), thousands(t.skipped), thousands(t.failed), took(t.start))
	return t.result(err, ctx.Err() != nil, "what is not replayed yet is where it was: the same command goes on")
}

// each replays several letters at once, as most of the time is spent waiting for
// the broker. When it returns none is under way.
func (r *replay) each(ctx context.Context, letters letterSeq) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	defer running.Wait()
	seats := make(chan struct{}, replaysAtOnce)
	for l, err := range letters {
		if err == nil {
			err = r.limit.Wait(ctx)
		}
		if err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		seats <- struct{}{}
		running.Go(func() {
			defer func() { <-seats }()
			if err := r.one(ctx, l); err != nil {
				stop(err)
			}
		})
		if ctx.Err() != nil {
			break
		}
	}
	running.Wait()
	return context.Cause(ctx)
}

// one brings a letter to its end, even if the others are to stop.
func (r *replay) one(ctx context.Context, l *dlq.Letter) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*clientTimeout)
	defer cancel()
	got, err := r.box.Replay(ctx, l, r.c.String("to"))
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.tally.tell()
	switch {
	case err != nil:
		return r.tally.failure(l, err)
	case got.Duplicate:
		r.tally.skipped++
	default:
		r.tally.done++
	}
	return nil
}

// tally counts what became of letters, and tells.
type tally struct {
	*progress
	done, skipped, failed int
}

func newTally(w io.Writer, verb string, total int) *tally {
	return &tally{progress: newProgress(w, verb, total)}
}

func (t *tally) tell() { t.at(t.done + t.skipped + t.failed) }

// failure notes that a letter has failed. Other errors than refusals would meet
// the others, too, and are returned.
func (t *tally) failure(l *dlq.Letter, err error) error {
	if _, ok := errors.AsType[*dlq.Refusal](err); !ok {
		return err
	}
	name := fmt.Sprintf("dead letter %d", l.Sequence)
	if l.ID != "" {
		name += " (" + dlq.Printable(l.ID, false) + ")"
	}
	t.refused(name, err)
	return nil
}

// refused says of the first few why, so that the screen is not filled.
func (t *tally) refused(name string, err error) {
	switch t.failed++; {
	case t.failed <= toldFailures:
		t.end()
		fmt.Fprintf(t.w, "workerd: %s: %s\n", name, dlq.Printable(err.Error(), false))
	case t.failed == toldFailures+1:
		t.end()
		fmt.Fprintln(t.w, "workerd: further failures are only counted")
	}
}

// result is the error a run ends with.
func (t *tally) result(err error, stopped bool, resume string) error {
	switch {
	case stopped:
		return fail(exitFailure, resume, "stopped")
	case err != nil:
		var c *coded
		if !errors.As(explainBox(err), &c) {
			return err
		}
		return fail(c.code, resume, "stopped: %w", err)
	case t.failed > 0:
		return &coded{code: exitFailure, err: errReported}
	}
	return nil
}
