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
	return defaultConfig()
}

// defaultConfig is the configuration if no argument names one: environment,
// current directory, /etc.
func defaultConfig() string {
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

// maxConfig bounds what is read, be it endless; config itself refuses less.
const maxConfig = 2 << 20

// readConfig returns the text of a configuration, "-" being standard input.
func readConfig(c *cli.Context, name string) ([]byte, error) {
	if name == "" {
		return nil, fail(exitConfig, "give one: `workerd "+c.Command.Name+" workerd.yaml`; or try `workerd dev`, which needs none",
			"no configuration: neither an argument nor WORKERD_CONFIG, ./workerd.yaml or /etc/workerd/workerd.yaml")
	}
	text, err := readFile(c, name)
	if err != nil {
		return nil, fail(exitConfig, "", "cannot read the configuration: %w", err)
	}
	return text, nil
}

func readFile(c *cli.Context, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(c.App.Reader, maxConfig))
	}
	f, err := os.Open(filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConfig))
}

// parseConfig reads a configuration and prints its problems to stderr if there
// are errors among them, which the error says. What it returns otherwise are
// warnings.
func parseConfig(c *cli.Context, name string) (*config.File, config.Problems, error) {
	text, err := readConfig(c, name)
	if err != nil {
		return nil, nil, err
	}
	file, problems := config.Load(name, text, os.LookupEnv)
	if len(problems.Errors()) > 0 {
		printProblems(c, problems)
		return nil, nil, &coded{code: exitConfig, err: errReported}
	}
	return file, problems, nil
}

// loadConfig is parseConfig for commands that print the warnings, too.
func loadConfig(c *cli.Context, name string) (*config.File, config.Problems, error) {
	file, warnings, err := parseConfig(c, name)
	printProblems(c, warnings)
	return file, warnings, err
}

func printProblems(c *cli.Context, problems config.Problems) {
	_ = problems.Format(c.App.ErrWriter, colored(c.App.ErrWriter)) // there is nobody else to tell
}

func checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Aliases: []string{"validate", "lint"}, Usage: "Validate configurations without touching the network",
		ArgsUsage: "[FILE...]",
		Description: "Prints every problem at once, with its place and what to write instead.\n\n" +
			"Example: workerd check --strict workerd.yaml\n\nExit codes: 0 valid, 3 only warnings with --strict, 78 errors.",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "strict", Usage: "treat warnings as a failure (exit code 3)", DisableDefaultText: true}},
		Action: check,
	}
}

func check(c *cli.Context) error {
	names := c.Args().Slice()
	if len(names) == 0 {
		names = []string{configFile(c)}
	}
	failed, warned := false, false
	for _, name := range names {
		file, list, err := loadConfig(c, name)
		if err != nil {
			report(err, c.App.ErrWriter)
			failed = true
			continue
		}
		warnings := len(list)
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

func showCommand() *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "Print the configuration in effect, secrets hidden",
		ArgsUsage:   "[FILE]",
		Description: "Defaults are filled in. What it prints is a configuration, too.\n\nExample: workerd show workerd.yaml --changed",
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
