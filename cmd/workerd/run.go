package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

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
		Description: "Runs until SIGTERM or SIGINT, then drains: a second signal hurries, a third ends at once.\n" +
			"Example: workerd run workerd.yaml\nExit codes: 0 clean, 75 jobs were interrupted and handed back, 78 invalid configuration.",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "drain-timeout", Usage: "overrides drain.timeout", DefaultText: "that of the file"},
			&cli.StringFlag{Name: "log-level", Usage: "overrides log.level (debug, info, warn, error)"},
			&cli.StringFlag{Name: "log-format", Usage: "overrides log.format (auto, text, json)"},
		},
		Action: func(c *cli.Context) error {
			file, _, err := loadConfig(c, configFile(c))
			if err != nil {
				return err
			}
			if file, err = override(c, file); err != nil {
				return err
			}
			return daemon(c, file, daemonOptions{})
		},
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
		return nil, fail(exitUsage, "", "%w", errors.Join(problems...))
	}
	return &changed, nil
}

// daemonOptions are what `dev` does differently.
type daemonOptions struct {
	// beside runs next to the daemon until its context ends.
	beside func(ctx context.Context, a *app.App) error
	// log replaces the logger of the configuration.
	log *slog.Logger
	// limit drains after this time. 0: only on a signal.
	limit time.Duration
}

// daemon runs a workerd until it is told to stop.
func daemon(c *cli.Context, file *config.File, opts daemonOptions) error {
	log := opts.log
	if log == nil {
		log = newLogger(file.Log, c.App.ErrWriter)
	}
	// Outside a container there is no limit to find, which is no error.
	if _, err := memlimit.Set(memlimit.WithRatio(memoryShare)); err != nil {
		log.Debug("no memory limit taken from the container", "err", err)
	}
	// Libraries that write with package log are to write here, too.
	slog.SetDefault(log)
	// From here on a signal means drain, even while things are being set up.
	ends := context.Background()
	if opts.limit > 0 {
		var cancel context.CancelFunc
		ends, cancel = context.WithTimeoutCause(ends, opts.limit, errors.New("the time given with --for is over"))
		defer cancel()
	}
	drain, hurry, stop := shutdown.Signals(ends)
	defer stop()
	a, err := app.New(file, app.Options{Log: log, Version: version().Version})
	if errors.Is(err, syscall.EADDRINUSE) {
		return fail(exitFailure, "is another workerd running? change admin.listen, or the port in nats.url if the broker is embedded", "%w", err)
	}
	if err != nil {
		return err
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
	if err == nil {
		err = besideErr
	}
	if errors.Is(err, app.ErrIncomplete) {
		return &coded{code: exitTempFail, err: err}
	}
	return err
}

func newLogger(cfg config.LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // validated before
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" || cfg.Format == "auto" && !isTerminal(w) {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.String(slog.TimeKey, a.Value.Time().Format(time.TimeOnly+".000"))
		}
		return a
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
}
