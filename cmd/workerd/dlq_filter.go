package main

import (
	"errors"
	"regexp"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/job"
)

// filterFlags choose dead letters; all that are given must hold.
func filterFlags(limit, unlimited string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "pool", Usage: "those of the pool `NAME`"},
		&cli.StringFlag{Name: "reason", Usage: "those given up for this `REASON` (max_attempts, expired, poison …)"},
		&cli.GenericFlag{Name: "group", Aliases: []string{"fingerprint"}, Usage: "those of the cause with this `FINGERPRINT`", Value: &group{}},
		&cli.GenericFlag{Name: "since", Usage: "those stored since `TIME`, as 2h, 3d or 2026-01-31T12:00:00Z", Value: &instant{}},
		&cli.GenericFlag{Name: "before", Usage: "those stored before `TIME`", Value: &instant{}},
		&cli.StringFlag{Name: "match", Usage: "those with this `REGEXP` in error, id, subject or a header \"Key: value\""},
		&cli.UintFlag{Name: "limit", Usage: limit, DefaultText: unlimited},
	}
}

// group is a flag whose value may be left out where that means something else.
type group struct {
	set         bool
	fingerprint string
}

// Set implements [flag.Value].
func (g *group) Set(s string) error {
	switch {
	case s == "true": // no value
		g.set = true
	case dlq.IsFingerprint(s):
		g.fingerprint = s
	default:
		return errors.New("want six hexadecimal digits")
	}
	return nil
}

// String implements [flag.Value]. There is no default to show.
func (g *group) String() string { return "" }

// IsBoolFlag lets package flag take it without a value.
func (g *group) IsBoolFlag() bool { return true }

// mayBe tells whether the next argument is meant as the value: all but ls need
// one, and then the mistake shall be seen.
func (g *group) mayBe(next string) bool { return dlq.IsFingerprint(next) }

func (g *group) kind() string { return "a fingerprint; `workerd dlq ls --group` shows them" }

// instant is a flag for a time, absolute or ago.
type instant struct{ at time.Time }

// Set implements [flag.Value].
func (i *instant) Set(s string) (err error) {
	if i.at, err = time.Parse(time.RFC3339Nano, s); err == nil {
		return nil
	}
	ago, err := config.ParseDuration(s)
	if err != nil {
		return err
	}
	i.at = time.Now().Add(-ago)
	return nil
}

// String implements [flag.Value]. There is no default to show.
func (i *instant) String() string { return "" }

func (i *instant) kind() string { return "a time, write 2h, 3d or 2026-01-31T12:00:00Z" }

// filter reads the flags. bare tells that --group stood alone.
func filter(c *cli.Context) (f dlq.Filter, bare bool, err error) {
	g, _ := c.Generic("group").(*group)
	f = dlq.Filter{
		Pool: c.String("pool"), Reason: c.String("reason"), Fingerprint: g.fingerprint, Limit: int(min(c.Uint("limit"), 1<<31)),
		Since: c.Generic("since").(*instant).at, Before: c.Generic("before").(*instant).at,
	}
	reasons := make([]string, 0, len(job.Reasons()))
	for _, r := range job.Reasons() {
		reasons = append(reasons, string(r))
	}
	if f.Reason != "" && !slices.Contains(reasons, f.Reason) {
		hint := "`workerd dlq ls -o json` shows those there are"
		if s := config.Nearest(f.Reason, reasons); s != "" {
			hint = "did you mean " + s + "?"
		}
		return f, false, fail(exitUsage, hint, "--reason: %q is no reason for which workerd gives up", f.Reason)
	}
	if f.Pool != "" && !regexp.MustCompile(`^[^\s.*>]+$`).MatchString(f.Pool) {
		return f, false, fail(exitUsage, helpHint(c), "--pool: %q is no name of a pool", f.Pool)
	}
	if text := c.String("match"); text != "" {
		if f.Match, err = regexp.Compile(text); err != nil { // then it is looked for as it stands
			f.Match = regexp.MustCompile(regexp.QuoteMeta(text))
		}
	}
	return f, g.set, nil
}

// wholeFilter is filter for commands to which --group alone says nothing.
func wholeFilter(c *cli.Context) (dlq.Filter, error) {
	f, bare, err := filter(c)
	if err == nil && bare {
		err = fail(exitUsage, "`workerd dlq ls --group` shows them", "--group needs a fingerprint")
	}
	return f, err
}
