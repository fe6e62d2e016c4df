// Command workerd pulls jobs from NATS JetStream into isolated pools and calls
// a downstream service for each. See `workerd help`.
//
// This package is the command line: flags, signals, output and exit codes. What
// happens to jobs is decided in internal/app and below.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Exit codes, those of sysexits.h where it has one.
const (
	exitOK          = 0
	exitFailure     = 1  // the operation failed
	exitLint        = 3  // warnings only, with --strict
	exitUsage       = 64 // wrong flag, unknown command
	exitUnavailable = 69 // NATS cannot be reached by a client command
	exitSoftware    = 70 // a mistake in workerd itself
	exitTempFail    = 75 // the drain handed jobs back that it had interrupted
	exitConfig      = 78 // the configuration is invalid
)

// exitCodes is how `workerd help` explains them.
const exitCodes = `Exit codes:
  0   done; after a drain: nothing was interrupted
  1   failed
  3   only warnings, with check --strict
  64  wrong use of the command line
  69  NATS cannot be reached (publish, dlq; the daemon keeps trying instead)
  70  a mistake in workerd itself
  75  the drain's time was over: jobs were interrupted and handed back
  78  the configuration is invalid`

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

// coded is an error with the exit code that goes with it.
type coded struct {
	code int
	err  error
	hint string // what to do about it; may be empty
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }

// errReported: the command has already said what there is to say.
var errReported = errors.New("reported")

func fail(code int, hint, format string, args ...any) error {
	return &coded{code, fmt.Errorf(format, args...), hint}
}

// run is the whole program but for the process around it.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return guarded(stderr, func() error {
		if isBubble(args) {
			return serveBubble(stdin)
		}
		app := newApp(stdin, stdout, stderr)
		return app.Run(reorder(app, args))
	})
}

// guarded reports what a command returns, and a panic, too: a mistake in
// workerd is told from a failure by its exit code.
func guarded(stderr io.Writer, command func() error) (code int) {
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(stderr, "workerd: this is a mistake in workerd, please report it with what follows: %v\n%s", v, debug.Stack())
			code = exitSoftware
		}
	}()
	return report(command(), stderr)
}

// report prints an error for people and returns its exit code.
func report(err error, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitFailure, ""
	if c, ok := errors.AsType[*coded](err); ok {
		code, hint = c.code, c.hint
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintf(stderr, "workerd: %v\n", err)
	}
	if hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
	return code
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:            "workerd",
		Usage:           "pulls jobs from NATS JetStream and calls a service for each",
		HideHelpCommand: true,
		HideVersion:     true,
		UsageText:       "workerd COMMAND [OPTIONS] [ARGUMENTS]",
		Description: "Begin with `workerd dev`, which needs nothing but this binary. Then write a\n" +
			"workerd.yaml, `workerd check` it, and `workerd run` it.\n\n" + exitCodes,
		Reader:    stdin,
		Writer:    stdout,
		ErrWriter: stderr,
		// main alone decides how the process ends.
		ExitErrHandler:            func(*cli.Context, error) {},
		UseShortOptionHandling:    true,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true,
		OnUsageError:              usageError,
		Action:                    root,
		// The library adds help only if there is no command of that name.
		Flags: []cli.Flag{cli.HelpFlag, &cli.BoolFlag{Name: "version", Usage: "print version and build", DisableDefaultText: true}},
		Commands: []*cli.Command{
			runCommand(), devCommand(), checkCommand(), testCommand(), routeCommand(), showCommand(), permissionsCommand(), publishCommand(),
			dlqCommand(), poolCommand(), breakerCommand(), degradeCommand(), healthcheckCommand(), versionCommand(), completionCommand(), helpCommand(),
		},
	}
	equip(app.Commands)
	return app
}

// equip gives all commands what they have in common.
func equip(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true
		c.OnUsageError = usageError
		c.Before = checkArguments
		equip(c.Subcommands)
	}
}

// root is reached if no command matched.
func root(c *cli.Context) error {
	if name := c.Args().First(); name != "" {
		return unknownCommand(c.App.Commands, c.App.Name, name)
	}
	if c.Bool("version") {
		return printVersion(c.App.Writer, "text")
	}
	return cli.ShowAppHelp(c)
}

func helpCommand() *cli.Command {
	return &cli.Command{
		Name: "help", Usage: "Show help for a command", ArgsUsage: "[COMMAND...]",
		Description: "Example: workerd help run",
		Action: func(c *cli.Context) error {
			words := c.Args().Slice()
			if len(words) == 0 {
				return cli.ShowAppHelp(c)
			}
			command, depth := commandAt(c.App, words)
			switch {
			case command == nil:
				return unknownCommand(c.App.Commands, c.App.Name, words[0])
			case depth < len(words) && len(command.Subcommands) > 0:
				return unknownCommand(command.Subcommands, "workerd "+strings.Join(words[:depth], " "), words[depth])
			case depth == 1 && len(command.Subcommands) == 0:
				return cli.ShowCommandHelp(c, words[0])
			}
			return c.App.Run(slices.Concat([]string{c.App.Name}, words[:depth], []string{"--help"}))
		},
	}
}

// plural is "1 job" or "2 jobs".
func plural[N int | uint64](n N, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, strings.TrimSuffix(word, "s"))
}
