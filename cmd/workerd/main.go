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
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/config"
)

// Exit codes, those of sysexits.h where it has one.
const (
	exitOK          = 0
	exitFailure     = 1  // the operation failed
	exitLint        = 3  // warnings only, with --strict
	exitUsage       = 64 // wrong flag, unknown command
	exitUnavailable = 69 // NATS or the admin listener cannot be reached
	exitTempFail    = 75 // the drain handed jobs back that it had interrupted
	exitConfig      = 78 // the configuration is invalid
)

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
	app := newApp(stdin, stdout, stderr)
	return report(app.Run(reorder(app, args)), stderr)
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
		Usage:           "pulls jobs from NATS JetStream and calls a downstream service for each",
		HideHelpCommand: true,
		HideVersion:     true,
		UsageText:       "workerd COMMAND [OPTIONS] [ARGUMENTS]",
		Reader:          stdin,
		Writer:          stdout,
		ErrWriter:       stderr,
		// main alone decides how the process ends.
		ExitErrHandler:            func(*cli.Context, error) {},
		UseShortOptionHandling:    true,
		DisableSliceFlagSeparator: true,
		OnUsageError:              usageError,
		Action:                    root,
		// The library adds it only if there is no command of that name.
		Flags: []cli.Flag{cli.HelpFlag},
		Commands: []*cli.Command{
			runCommand(), devCommand(), checkCommand(), showCommand(), publishCommand(), healthcheckCommand(), versionCommand(),
		},
	}
	for _, c := range app.Commands {
		c.HideHelpCommand = true
		c.OnUsageError = usageError
	}
	app.Commands = append(app.Commands, &cli.Command{
		Name: "help", Usage: "Show help for a command", ArgsUsage: "[COMMAND]", HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				if c.App.Command(name) == nil {
					return unknownCommand(c, name)
				}
				return cli.ShowCommandHelp(c, name)
			}
			return cli.ShowAppHelp(c)
		},
	})
	return app
}

// root is reached if no command matched.
func root(c *cli.Context) error {
	if name := c.Args().First(); name != "" {
		return unknownCommand(c, name)
	}
	return cli.ShowAppHelp(c)
}

func unknownCommand(c *cli.Context, name string) error {
	var names []string
	for _, command := range c.App.Commands {
		names = append(names, command.Names()...)
	}
	hint := "`workerd help` lists the commands"
	if s := config.Nearest(name, names); s != "" {
		hint = fmt.Sprintf("did you mean `workerd %s`?", s)
	}
	return fail(exitUsage, hint, "unknown command %q", name)
}

func usageError(c *cli.Context, err error, _ bool) error {
	hint := "see `workerd help`"
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != "workerd" {
		hint = "see `workerd " + c.Command.Name + " --help`"
	}
	flag, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: ")
	if !unknown {
		return fail(exitUsage, hint, "%w", err)
	}
	flag = strings.TrimLeft(flag, "-")
	if s := config.Nearest(flag, flagNames(c)); s != "" {
		hint = fmt.Sprintf("did you mean --%s?", s)
	}
	return fail(exitUsage, hint, "unknown flag --%s", flag)
}

// flagNames are the long names of a command's flags.
func flagNames(c *cli.Context) []string {
	names := []string{"help"}
	if c.Command != nil {
		for _, f := range c.Command.Flags {
			names = append(names, f.Names()[0])
		}
	}
	return names
}

// reorder moves flags in front of arguments: the library takes a flag that
// follows an argument for another argument, silently.
func reorder(app *cli.App, args []string) []string {
	if len(args) < 3 {
		return args
	}
	command := app.Command(args[1])
	if command == nil {
		return args
	}
	head, flags, rest := args[:2:2], []string{}, []string{}
	for i := 2; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			rest = append(rest, args[i:]...)
			i = len(args)
		case len(a) > 1 && a[0] == '-':
			flags = append(flags, a)
			if takesValue(command, a) && i+1 < len(args) {
				i++
				flags = append(flags, args[i])
			}
		default:
			rest = append(rest, a)
		}
	}
	return slices.Concat(head, flags, rest)
}

// takesValue tells whether the next argument belongs to the flag.
func takesValue(command *cli.Command, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range command.Flags {
		if slices.Contains(f.Names(), name) {
			_, isBool := f.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false
}
