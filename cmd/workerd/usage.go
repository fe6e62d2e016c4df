package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/config"
)

// unknownCommand says which command of a group may have been meant; parent is
// what stands before it.
func unknownCommand(group []*cli.Command, parent, name string) error {
	var names []string
	for _, command := range group {
		names = append(names, command.Names()...)
	}
	hint := "`workerd help` lists the commands"
	if parent != "workerd" {
		hint = fmt.Sprintf("`%s --help` lists the commands", parent)
	}
	if s := config.Nearest(name, names); s != "" {
		hint = fmt.Sprintf("did you mean `%s %s`?", parent, s)
	}
	return fail(exitUsage, hint, "unknown command %q", strings.TrimPrefix(parent+" "+name, "workerd "))
}

// commandAt follows words down to a command, and tells how many of them it took.
// Nil if the first is no command.
func commandAt(app *cli.App, words []string) (command *cli.Command, depth int) {
	group := app.Commands
	for _, word := range words {
		i := slices.IndexFunc(group, func(c *cli.Command) bool { return c.HasName(word) })
		if i < 0 {
			break
		}
		command, group = group[i], group[i].Subcommands
		depth++
	}
	return command, depth
}

// What package flag says of a flag.
const (
	unknownFlag  = "flag provided but not defined: "
	missingValue = "flag needs an argument: "
	wrongValue   = `^invalid (?:boolean )?value (".*") for (?:flag )?-(\S+): `
)

// usageError says in one line what is wrong with a flag, and in another what
// to do; the library would print the whole help.
func usageError(c *cli.Context, err error, _ bool) error {
	hint := helpHint(c)
	if flag, ok := strings.CutPrefix(err.Error(), unknownFlag); ok {
		flag = strings.TrimLeft(flag, "-")
		if s := config.Nearest(flag, flagNames(c)); s != "" {
			hint = fmt.Sprintf("did you mean --%s?", s)
		}
		return fail(exitUsage, hint, "unknown flag --%s", flag)
	}
	if flag, ok := strings.CutPrefix(err.Error(), missingValue); ok {
		return fail(exitUsage, hint, "--%s needs a value", strings.TrimLeft(flag, "-"))
	}
	if m := regexp.MustCompile(wrongValue).FindStringSubmatch(err.Error()); m != nil {
		f := flagNamed(flagsOf(c), m[2])
		return fail(exitUsage, hint, "--%s: %s is not %s", f.Names()[0], m[1], kind(f))
	}
	return fail(exitUsage, hint, "%w", err)
}

func helpHint(c *cli.Context) string {
	if command := commandOf(c); command != nil {
		return "see `" + command.HelpName + " --help`"
	}
	return "see `workerd help`"
}

// commandOf is the command that runs, nil for the program itself.
func commandOf(c *cli.Context) *cli.Command {
	if c.Command == nil || !strings.Contains(c.Command.HelpName, " ") {
		return nil
	}
	return c.Command
}

// flagNames are the long names of a command's flags.
func flagNames(c *cli.Context) []string {
	names := []string{"help"}
	for _, f := range flagsOf(c) {
		names = append(names, f.Names()[0])
	}
	return names
}

func flagsOf(c *cli.Context) []cli.Flag {
	if command := commandOf(c); command != nil {
		return command.Flags
	}
	return c.App.Flags
}

// kind says what the value of a flag may be.
func kind(f cli.Flag) string {
	switch f := f.(type) {
	case *cli.DurationFlag:
		return "a duration, write 30s or 5m"
	case *cli.IntFlag, *cli.UintFlag:
		return "a whole number"
	case *cli.Float64Flag:
		return "a number"
	case *cli.BoolFlag:
		return "true or false"
	case *cli.GenericFlag:
		if v, ok := f.Value.(interface{ kind() string }); ok {
			return v.kind()
		}
	}
	return "allowed"
}

func flagNamed(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// mostArguments is how many arguments a command takes, -1 for any number. More
// are a mistake that must not be passed over.
func mostArguments(command *cli.Command) int {
	if strings.HasSuffix(command.ArgsUsage, "...]") {
		return -1
	}
	return len(strings.Fields(command.ArgsUsage))
}

// checkArguments runs before every command.
func checkArguments(c *cli.Context) error {
	most := mostArguments(c.Command)
	if most < 0 || c.NArg() <= most {
		return nil
	}
	takes := "takes no argument"
	if most > 0 {
		takes = "takes " + c.Command.ArgsUsage
	}
	return fail(exitUsage, helpHint(c), "%s %s: %q is too much", strings.TrimPrefix(c.Command.HelpName, "workerd "), takes, c.Args().Get(most))
}

// notNegative refuses a negative duration, which no flag has a use for.
func notNegative(c *cli.Context, names ...string) error {
	for _, name := range names {
		if d := c.Duration(name); d < 0 || d == 0 && c.IsSet(name) {
			return fail(exitUsage, helpHint(c), "--%s: %s is not allowed, use 1ms or more", name, d.Round(time.Nanosecond))
		}
	}
	return nil
}

// reorder moves flags in front of arguments: the library takes a flag that
// follows an argument for another argument, silently.
func reorder(app *cli.App, args []string) []string {
	if len(args) < 3 || args[len(args)-1] == completionFlag {
		return args
	}
	command, depth := commandAt(app, args[1:])
	if command == nil {
		return args
	}
	first := 1 + depth
	head, flags, rest := args[:first:first], []string{}, []string{}
	for i := first; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			rest = append(rest, args[i:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			continue
		}
		if i+1 < len(args) && mayTakeValue(command, a, args[i+1]) {
			i++
			a += "=" + args[i]
		}
		flags = append(flags, a)
		if !takesValue(command, a) {
			continue
		}
		if i++; i == len(args) {
			return slices.Concat(head, flags) // or an argument would become its value
		}
		flags = append(flags, args[i])
	}
	return slices.Concat(head, flags, rest)
}

// takesValue tells whether the next argument belongs to the flag.
func takesValue(command *cli.Command, arg string) bool {
	f := flagNamed(command.Flags, strings.TrimLeft(arg, "-"))
	_, isBool := f.(*cli.BoolFlag)
	_, isOptional := optional(f)
	return f != nil && !isBool && !isOptional
}

// mayTakeValue tells whether the flag is one that need not have a value, and
// next is one.
func mayTakeValue(command *cli.Command, arg, next string) bool {
	v, ok := optional(flagNamed(command.Flags, strings.TrimLeft(arg, "-")))
	return ok && v.mayBe(next)
}

// optional returns the value of a flag that may stand without one.
func optional(f cli.Flag) (optionalValue, bool) {
	generic, ok := f.(*cli.GenericFlag)
	if !ok {
		return nil, false
	}
	v, ok := generic.Value.(optionalValue)
	return v, ok
}

type optionalValue interface{ mayBe(next string) bool }
