package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/app"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/shutdown"
)

// memoryShare is the part of the container's memory limit that the Go heap may
// use before it collects more often.
const memoryShare = 0.9

func runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "Run the daemon", ArgsUsage: "[FILE]",
		Description: "FILE is a configuration, - for standard input; without one it is\n" +
			"$WORKERD_CONFIG, ./workerd.yaml or /etc/workerd/workerd.yaml. NATS need not\n" +
			"be there yet. Runs until SIGTERM or SIGINT, then drains: a second signal\n" +
			"hurries, a third ends at once.\n\n" +
			"Example: workerd run workerd.yaml\n\n" +
			"Exit codes: 0 clean, 1 an address or directory cannot be used, 75 jobs were\n" +
			"interrupted and handed back, 78 invalid configuration.",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "drain-timeout", Usage: "overrides drain.timeout", DefaultText: "that of the file"},
			&cli.StringFlag{Name: "log-level", Usage: "overrides log.level (debug, info, warn, error)"},
			&cli.StringFlag{Name: "log-format", Usage: "overrides log.format (auto, text, json)"},
		},
		Action: runDaemon,
	}
}

func runDaemon(c *cli.Context) error {
	file, warnings, err := parseConfig(c, configFile(c))
	if err != nil {
		return err
	}
	if file, err = override(c, file); err != nil {
		return err
	}
	// Whoever reads the log may restart; that is no reason to die with jobs in hand.
	signal.Ignore(syscall.SIGPIPE)
	log := newLogger(file.Log, c.App.ErrWriter)
	if logsJSON(file.Log, c.App.ErrWriter) {
		logWarnings(log, warnings)
	} else {
		printProblems(c, warnings)
	}
	return daemon(c, file, daemonOptions{log: log, places: places{"admin.listen, or nats.url of an embedded broker", "nats.store_dir"}})
}

// logWarnings keeps the output readable for machines.
func logWarnings(log *slog.Logger, warnings config.Problems) {
	for _, p := range warnings {
		log.Warn("configuration", "file", p.File, "line", p.Line, "column", p.Col, "path", p.Path, "code", string(p.Code), "problem", p.Message, "hint", p.Hint)
	}
}

// override applies flags, which win over the file.
func override(c *cli.Context, file *config.File) (*config.File, error) {
	changed := *file
	if c.IsSet("drain-timeout") {
		changed.Drain.Timeout = c.Duration("drain-timeout")
		changed.Drain.FlushTimeout = min(changed.Drain.FlushTimeout, changed.Drain.Timeout/4)
	}
	if c.IsSet("log-level") {
		changed.Log.Level = c.String("log-level")
	}
	if c.IsSet("log-format") {
		changed.Log.Format = c.String("log-format")
	}
	var problems []error
	note := func(field, message string) { problems = append(problems, fmt.Errorf("--%s: %s", field, message)) }
	changed.Drain.Validate(func(_, message string) { note("drain-timeout", message) })
	changed.Log.Validate(func(field, message string) { note("log-"+field, message) })
	if len(problems) > 0 {
		return nil, fail(exitUsage, helpHint(c), "%w", errors.Join(problems...))
	}
	return &changed, nil
}

// daemonOptions are what `dev` does differently.
type daemonOptions struct {
	// beside runs next to the daemon until its context ends.
	beside func(ctx context.Context, a *app.App) error
	log    *slog.Logger
	// limit drains after this time. 0: only on a signal.
	limit time.Duration
	// places say where addresses and store are set.
	places places
}

// places name settings, for hints.
type places struct{ address, store string }

// daemon runs a workerd until it is told to stop.
func daemon(c *cli.Context, file *config.File, opts daemonOptions) error {
	log := opts.log
	// Outside a container there is no limit to find, which is no error.
	if _, err := memlimit.Set(memlimit.WithRatio(memoryShare)); err != nil {
		log.Debug("no memory limit taken from the container", "err", err)
	}
	// Libraries that write with package log are to write here, too.
	slog.SetDefault(log)
	// From here on a signal means drain, even while things are being set up.
	ends := c.Context
	if opts.limit > 0 {
		var cancel context.CancelFunc
		ends, cancel = context.WithTimeoutCause(ends, opts.limit, errors.New("the time given with --for is over"))
		defer cancel()
	}
	drain, hurry, stop := shutdown.Signals(ends)
	defer stop()
	a, err := app.New(file, app.Options{Log: log, Version: version().Version})
	if err != nil {
		return opts.places.explain(err, file.NATS.StoreDir)
	}
	ctx, cancel := context.WithCancel(drain)
	defer cancel()
	var beside sync.WaitGroup
	var besideErr error
	if opts.beside != nil {
		beside.Go(func() { besideErr = opts.beside(ctx, a) })
	}
	err = a.Run(drain, hurry)
	cancel()
	beside.Wait()
	if errors.Is(err, app.ErrIncomplete) {
		return &coded{code: exitTempFail, err: err}
	}
	return cmp.Or(err, besideErr)
}

// explain adds to what kept a workerd from starting what to do about it.
func (p places) explain(err error, store string) error {
	hint := ""
	listen, isNet := errors.AsType[*net.OpError](err)
	file, isFile := errors.AsType[*fs.PathError](err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "is another workerd running? stop it, or choose another address: " + p.address
	case isNet && listen.Op == "listen":
		hint = "this must be a free address of this machine: " + p.address
	case isFile && within(file.Path, store):
		hint = "the broker needs a directory it may write to: " + p.store
	}
	return fail(exitFailure, hint, "%w", err)
}

// within tells whether a path is the directory, above it or in it.
func within(path, dir string) bool {
	path, dir = filepath.Clean(path), filepath.Clean(dir)
	return strings.HasPrefix(path, dir) || strings.HasPrefix(dir, path)
}
