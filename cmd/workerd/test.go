package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"regexp"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/whatif"
)

// bubbleCommand is this program as the process of a single test. No command of
// that name is listed or offered anywhere.
const bubbleCommand = "test-bubble"

func testCommand() *cli.Command {
	return &cli.Command{
		Name: "test", Usage: "Run config tests: try a configuration out in virtual time", ArgsUsage: "[FILE...]",
		Description: "Runs jobs through a whole workerd, with a broker of its own, while its targets\n" +
			"behave by script. Nothing is dialled, and an outage of hours takes seconds.\n\n" +
			"Example: workerd test workerd.test.yaml\n\n" +
			"Exit codes: 0 all tests pass, 1 a test fails, 78 invalid test file or configuration.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "run", Aliases: []string{"r"}, Usage: "only tests whose name matches `REGEX`"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "tell what happened, of every test", DisableDefaultText: true},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "text, json (one object a line) or junit", Value: "text"},
			&cli.DurationFlag{Name: "timeout", Usage: "real `TIME` that one test may take", Value: time.Minute},
		},
		Action: test,
	}
}

// tester is one run of the command.
type tester struct {
	c       *cli.Context
	match   *regexp.Regexp
	failed  bool
	matched int
}

func test(c *cli.Context) error {
	t := &tester{c: c}
	var err error
	if t.match, err = regexp.Compile(c.String("run")); err != nil {
		return fail(exitUsage, helpHint(c), "--run: %w", err)
	}
	if o := c.String("output"); o != "text" && o != "json" && o != "junit" {
		return fail(exitUsage, helpHint(c), "--output %q is not allowed, use text, json or junit", o)
	}
	if err := notNegative(c, "timeout"); err != nil {
		return err
	}
	if c.NArg() == 0 {
		return fail(exitUsage, helpHint(c), "test needs a file of tests")
	}
	suites, err := t.load(c.Args().Slice())
	if err != nil {
		return err
	}
	for _, s := range suites {
		if err := t.file(s); err != nil {
			return err
		}
	}
	switch {
	case t.matched == 0:
		return fail(exitFailure, "", "no test matches --run %q", c.String("run"))
	case t.failed:
		return &coded{code: exitFailure, err: errReported}
	}
	return nil
}

// load reads all files before any test runs.
func (t *tester) load(names []string) (suites []*whatif.Suite, err error) {
	for _, name := range names {
		text, err := readFile(t.c, name)
		if err != nil {
			return nil, fail(exitConfig, "", "cannot read the tests: %w", err)
		}
		s, problems, err := whatif.Load(name, text, os.LookupEnv, func(name string) ([]byte, error) { return readFile(t.c, name) })
		if err != nil {
			return nil, fail(exitConfig, "", "%s: cannot read the configuration: %w", name, err)
		}
		printProblems(t.c, problems)
		if s != nil {
			suites = append(suites, s)
		}
	}
	if len(suites) < len(names) {
		return nil, &coded{code: exitConfig, err: errReported}
	}
	return suites, nil
}

// file runs the tests of a file.
func (t *tester) file(s *whatif.Suite) error {
	var results []whatif.Result
	for i, test := range s.Tests {
		if !t.match.MatchString(test.Name) {
			continue
		}
		t.matched++
		r, err := whatif.Run(t.c.Context, s, i, whatif.Options{Command: bubble, Limit: t.c.Duration("timeout")})
		if err != nil {
			return fail(exitSoftware, "", "%s: %w", s.Source.Name, err)
		}
		t.failed = t.failed || !r.OK
		results = append(results, r)
		if err := t.print(r); err != nil {
			return err
		}
	}
	if t.c.String("output") == "junit" {
		return whatif.JUnit(t.c.App.Writer, s.Source.Name, results)
	}
	return nil
}

func (t *tester) print(r whatif.Result) error {
	switch t.c.String("output") {
	case "json":
		return json.NewEncoder(t.c.App.Writer).Encode(r)
	case "junit":
		return nil // all at once, at the end
	}
	return r.Text(t.c.App.Writer, t.c.Bool("verbose"))
}

// bubble starts this program again, under the name it was called by.
func bubble(ctx context.Context) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	cmd := exec.CommandContext(ctx, self, bubbleCommand)
	cmd.Args[0] = os.Args[0]
	return cmd
}

// isBubble tells whether this is the process of a single test.
func isBubble(args []string) bool { return len(args) == 2 && args[1] == bubbleCommand }

// serveBubble runs a single test. It ends the process if all is well.
func serveBubble(stdin io.Reader) error {
	err := whatif.Serve(stdin, os.NewFile(3, "result"), os.LookupEnv)
	return fail(exitUsage, "", "%s is not for people, see `workerd test`: %w", bubbleCommand, err)
}
