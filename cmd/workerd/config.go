package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/config"
)

// configFile is the configuration a command works on: argument, environment,
// current directory, /etc.
func configFile(c *cli.Context) string {
	if name := c.Args().First(); name != "" {
		return name
	}
	if name := os.Getenv("WORKERD_CONFIG"); name != "" {
		return name
	}
	for _, name := range []string{"workerd.yaml", "/etc/workerd/workerd.yaml"} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	return ""
}

// maxConfig bounds what is read; config itself refuses less.
const maxConfig = 2 << 20

// readConfig returns the text of a configuration, "-" being standard input.
func readConfig(c *cli.Context, name string) ([]byte, error) {
	if name == "" {
		return nil, fail(exitConfig, "give one: `workerd "+c.Command.Name+" workerd.yaml`, or try `workerd dev`, which needs none",
			"no configuration: neither an argument nor WORKERD_CONFIG, ./workerd.yaml or /etc/workerd/workerd.yaml")
	}
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(io.LimitReader(c.App.Reader, maxConfig))
	} else {
		text, err = os.ReadFile(filepath.Clean(name))
	}
	if err != nil {
		return nil, fail(exitConfig, "", "read the configuration: %w", err)
	}
	return text, nil
}

// loadConfig reads a configuration and prints its problems to stderr. The
// error says that there were errors among them.
func loadConfig(c *cli.Context, name string) (*config.File, config.Problems, error) {
	text, err := readConfig(c, name)
	if err != nil {
		return nil, nil, err
	}
	file, problems := config.Load(name, text, os.LookupEnv)
	if err := problems.Format(c.App.ErrWriter, isTerminal(c.App.ErrWriter)); err != nil {
		return nil, nil, fmt.Errorf("print problems: %w", err)
	}
	if len(problems.Errors()) > 0 {
		return nil, problems, &coded{code: exitConfig, err: errReported}
	}
	return file, problems, nil
}

func checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Aliases: []string{"validate", "lint"}, Usage: "Validate configurations without touching the network",
		ArgsUsage:   "[FILE...]",
		Description: "Prints every problem with its place. Example: workerd check workerd.yaml\nExit codes: 0 valid, 3 warnings with --strict, 78 errors.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "strict", Usage: "treat warnings as a failure (exit code 3)", DisableDefaultText: true}},
		Action:      check,
	}
}

func check(c *cli.Context) error {
	names := c.Args().Slice()
	if len(names) == 0 {
		names = []string{configFile(c)}
	}
	failed, warned := false, false
	for _, name := range names {
		file, problems, err := loadConfig(c, name)
		if err != nil {
			report(err, c.App.ErrWriter)
			failed = true
			continue
		}
		warnings := len(problems.Warnings())
		warned = warned || warnings > 0
		fmt.Fprintf(c.App.Writer, "%s: ok%s · %s · %s\n", name, counted(", %d warning", warnings), plural(len(file.Pools), "pool"), plural(len(file.Targets), "target"))
	}
	switch {
	case failed:
		return &coded{code: exitConfig, err: errReported}
	case warned && c.Bool("strict"):
		return &coded{code: exitLint, err: errReported}
	}
	return nil
}

func counted(format string, n int) string {
	if n == 0 {
		return ""
	}
	s := fmt.Sprintf(format, n)
	if n > 1 {
		s += "s"
	}
	return s
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func showCommand() *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "Print the effective configuration: defaults filled in, secrets hidden",
		ArgsUsage:   "[FILE]",
		Description: "Example: workerd show workerd.yaml --changed",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "changed", Usage: "only what differs from the defaults", DisableDefaultText: true}},
		Action: func(c *cli.Context) error {
			file, _, err := loadConfig(c, configFile(c))
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.App.Writer, config.Show(file, c.Bool("changed")))
			return err
		},
	}
}
