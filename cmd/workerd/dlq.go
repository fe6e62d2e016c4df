package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/queue"
)

func dlqCommand() *cli.Command {
	return &cli.Command{
		Name: "dlq", Usage: "Look at dead letters, replay or remove them", ArgsUsage: "[COMMAND...]",
		UsageText: "workerd dlq COMMAND [OPTIONS] [ARGUMENTS]",
		Description: "Dead letters are jobs that will not be tried again. Look at what ails them,\n" +
			"put it right, and replay them.\n\n" +
			"Example: workerd dlq ls --group\n" +
			"         workerd dlq replay --group 7c01f2 --rate 50",
		Subcommands: []*cli.Command{
			dlqLsCommand(), dlqShowCommand(), dlqReplayCommand(), dlqRmCommand(), dlqPurgeCommand(), dlqExportCommand(), dlqImportCommand(),
		},
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return unknownCommand(c.Command.Subcommands, "workerd dlq", name)
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

// boxFlags say where the dead letters are.
func boxFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "take nats: and dlq: of this configuration `FILE` instead of the flags below"},
		&cli.StringFlag{Name: "stream", Usage: "`NAME` of the stream of dead letters", DefaultText: "dlq.stream, or WORKERD_DLQ"},
	}, natsFlags()...)
}

// inBox opens the dead letters for what a command does with them. The context
// ends with the first Ctrl-C; a second one ends the process.
func inBox(c *cli.Context, run func(context.Context, *dlq.Box) error) error {
	cfg, stream, err := boxConfig(c)
	if err != nil {
		return err
	}
	nc, err := dialNATS(c, cfg)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if cfg.JetstreamDomain != "" {
		js, err = jetstream.NewWithDomain(nc, cfg.JetstreamDomain)
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	box, err := dlq.Open(ctx, js, stream)
	if err == nil {
		err = run(ctx, box)
	}
	return explainBox(err)
}

// boxConfig is how to reach the broker, and the name of the stream.
func boxConfig(c *cli.Context) (cfg queue.Config, stream string, err error) {
	cfg, stream = flagConfig(c), dlq.Config{}.WithDefaults().Stream
	if name := c.String("config"); name != "" {
		file, _, err := parseConfig(c, name)
		if err != nil {
			return cfg, "", err
		}
		cfg, stream = file.NATS, file.DLQ.Stream
	}
	if name := c.String("stream"); name != "" {
		stream = name
	}
	return cfg, stream, nil
}

// explainBox adds to an error what can be done about it.
func explainBox(err error) error {
	if _, ok := errors.AsType[*coded](err); ok || err == nil {
		return err
	}
	code, hint := exitFailure, ""
	switch {
	case errors.Is(err, dlq.ErrNoStream):
		hint = "workerd makes it with the first dead letter; has it another name? use --stream, or --config FILE"
	case errors.Is(err, dlq.ErrNotLetters):
		hint = "reading it would take messages out of it; use --stream, or --config FILE"
	case errors.Is(err, dlq.ErrNoLetter):
		hint = "`workerd dlq ls` lists the dead letters"
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		hint = "this NATS server, or this account, has no JetStream"
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrNoResponders):
		code, hint = exitUnavailable, "is the server well, and may this user use JetStream's API?"
	}
	return fail(code, hint, "%w", err)
}

// chosen are the letters of the arguments, each a sequence or a job's id. It is
// all of them or an error.
func chosen(ctx context.Context, c *cli.Context, box *dlq.Box) (letters []*dlq.Letter, err error) {
	ids := map[string][]uint64{}
	for _, arg := range c.Args().Slice() {
		if _, err := strconv.ParseUint(arg, 10, 64); err != nil {
			ids[arg] = nil
		}
	}
	if len(ids) > 0 {
		if err := findIDs(ctx, box, ids); err != nil {
			return nil, err
		}
	}
	for _, arg := range c.Args().Slice() {
		sequence, notNumber := strconv.ParseUint(arg, 10, 64)
		if notNumber != nil {
			if sequence, err = only(arg, ids[arg]); err != nil {
				return nil, err
			}
		}
		l, err := box.Get(ctx, sequence)
		if err != nil {
			return nil, err
		}
		letters = append(letters, l)
	}
	return letters, nil
}

func findIDs(ctx context.Context, box *dlq.Box, ids map[string][]uint64) error {
	for l, err := range box.Heads(ctx, dlq.Filter{}) {
		if err != nil {
			return err
		}
		for _, id := range []string{l.ID, l.Key()} {
			if found, ok := ids[id]; ok && (len(found) == 0 || found[len(found)-1] != l.Sequence) {
				ids[id] = append(found, l.Sequence)
			}
		}
	}
	return nil
}

// only is the one letter a job has.
func only(id string, found []uint64) (uint64, error) {
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("%s: %w", id, dlq.ErrNoLetter)
	case 1:
		return found[0], nil
	}
	const most = 10
	more := ""
	if n := len(found) - most; n > 0 {
		found, more = found[n:], fmt.Sprintf(" and %d older ones", n)
	}
	list := strings.Trim(fmt.Sprint(found), "[]")
	return 0, fail(exitUsage, "name one by its sequence", "%s is the job of several dead letters: %s%s", id, list, more)
}
