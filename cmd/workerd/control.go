package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/admin"
)

// controlTimeout bounds the request; what it asks for is done at once.
const controlTimeout = 5 * time.Second

func poolCommand() *cli.Command {
	return verbsOf("pool", "Pause a pool, or let it go on",
		"A pool that is paused pulls nothing; what runs may finish, and its jobs stay in the\n"+
			"stream. Resuming also opens its dead-letter valve.\n\n"+
			"Example: workerd pool pause email --for 10m --reason 'the mailer is being moved'\n"+
			"         workerd pool resume email",
		control("pools", admin.PausePool, "Start no more jobs of a pool"),
		control("pools", admin.ResumePool, "Let it go on, and open its dead-letter valve"),
	)
}

func breakerCommand() *cli.Command {
	return verbsOf("breaker", "Open or close the breaker of a target by hand",
		"What is set by hand ends after --for, an hour unless said otherwise.\n\n"+
			"Example: workerd breaker open mailer --for 30m --reason 'maintenance'\n"+
			"         workerd breaker auto mailer",
		control("targets", admin.OpenBreaker, "Make no calls to a target"),
		control("targets", admin.CloseBreaker, "Make calls whatever comes of them"),
		control("targets", admin.AutoBreaker, "Leave it to the breaker again"),
	)
}

func degradeCommand() *cli.Command {
	return verbsOf("degrade", "Lead the jobs of a target straight to its fallback",
		"The target is not called until it is restored, or --for is over. With --at that begins\n"+
			"later. It is this process that knows of it: it ends, or never begins, with a restart.\n"+
			"off also ends what began by itself (degrade_when), until there is reason for it again.\n\n"+
			"Example: workerd degrade on mailer --for 1h --reason 'until the deploy is through'\n"+
			"         workerd degrade on mailer --at 02:00 --for 30m --reason 'maintenance'\n"+
			"         workerd degrade off mailer",
		switched("on", planned(control("targets", admin.Degrade, "Use the fallback only"))),
		switched("off", control("targets", admin.Restore, "Call the target again")),
	)
}

func verbsOf(name, usage, description string, commands ...*cli.Command) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "[COMMAND...]", UsageText: "workerd " + name + " COMMAND [OPTIONS] [ARGUMENTS]",
		Description: description, Subcommands: commands,
		Action: func(c *cli.Context) error {
			if wrong := c.Args().First(); wrong != "" {
				return unknownCommand(c.Command.Subcommands, "workerd "+name, wrong)
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

// switched is a control under the name that degrade has for it.
func switched(name string, c *cli.Command) *cli.Command {
	c.Name, c.Description = name, "Example: workerd degrade "+name+" mailer --for 1h"
	return c
}

// planned is a control that may begin later.
func planned(c *cli.Command) *cli.Command {
	c.Flags = append(c.Flags, &cli.StringFlag{Name: "at", Usage: "`TIME` to begin, like 02:00 (the next one) or 2026-01-31T02:00:00Z", DefaultText: "now"})
	return c
}

// parseAt reads a time of day, which is the next one here, or a whole time.
func parseAt(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	clock, err := time.Parse("15:04", text)
	if err != nil {
		return time.Time{}, fail(exitUsage, "use a time of day like 02:00, or one like 2026-01-31T02:00:00Z", "--at: %q is not a time", text)
	}
	on := func(day int) time.Time {
		return time.Date(now.Year(), now.Month(), day, clock.Hour(), clock.Minute(), 0, 0, now.Location())
	}
	if at := on(now.Day()); at.After(now) {
		return at, nil
	}
	return on(now.Day() + 1), nil
}

// control is a command that asks a running workerd to do something.
func control(kind string, verb admin.Verb, usage string) *cli.Command {
	what := map[string]string{"pools": "POOL", "targets": "TARGET"}[kind]
	return &cli.Command{
		Name: string(verb), Usage: usage, ArgsUsage: what,
		Description: "Example: workerd " + map[string]string{"pools": "pool", "targets": "breaker"}[kind] + " " + string(verb) + " NAME --for 10m --reason 'maintenance'",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "for", Usage: "how long it lasts", DefaultText: "until the opposite, a breaker 1h"},
			&cli.StringFlag{Name: "reason", Usage: "`WHY`, shown as long as it lasts"},
			&cli.StringFlag{Name: "admin", Usage: "admin.listen of workerd, host:port or unix:/path", EnvVars: []string{"WORKERD_ADMIN"}, Value: admin.DefaultListen},
			&cli.StringFlag{Name: "token", Usage: "admin.token of workerd", EnvVars: []string{"WORKERD_ADMIN_TOKEN"}},
		},
		Action: func(c *cli.Context) error {
			if c.Args().First() == "" {
				return fail(exitUsage, helpHint(c), "%s needs the name of a %s", c.Command.HelpName, map[string]string{"pools": "pool", "targets": "target"}[kind])
			}
			if err := notNegative(c, "for"); err != nil {
				return err
			}
			return askFor(c, fmt.Sprintf("/api/v1/%s/%s/%s", kind, url.PathEscape(c.Args().First()), verb))
		},
	}
}

// askFor posts a control and says how it went.
func askFor(c *cli.Context, path string) error {
	body := map[string]string{"reason": c.String("reason")}
	if d := c.Duration("for"); d > 0 {
		body["for"] = d.String()
	}
	if text := c.String("at"); text != "" {
		at, err := parseAt(text, time.Now())
		if err != nil {
			return err
		}
		body["at"] = at.Format(time.RFC3339)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, controlTimeout)
	defer cancel()
	status, answer, err := askAdmin(ctx, c.String("admin"), adminRequest{http.MethodPost, path, string(text), c.String("token")})
	if err != nil {
		return fail(exitFailure, "is workerd running? set --admin or WORKERD_ADMIN to its admin.listen", "cannot reach workerd at %s: %w", c.String("admin"), err)
	}
	if status != http.StatusOK {
		return fail(exitFailure, "", "%s", refusalOf(status, answer))
	}
	fmt.Fprintln(c.App.Writer, "done")
	return nil
}

// refusalOf is what the problem document says, or the status.
func refusalOf(status int, answer string) string {
	var problem struct{ Detail string }
	if json.Unmarshal([]byte(answer), &problem) == nil && problem.Detail != "" {
		return problem.Detail
	}
	return fmt.Sprintf("workerd answers %d %s", status, http.StatusText(status))
}
