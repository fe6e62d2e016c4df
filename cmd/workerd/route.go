package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/whatif"
)

func routeCommand() *cli.Command {
	return &cli.Command{
		Name: "route", Usage: "Say which pool and target take a job, and what an answer would mean", ArgsUsage: "SUBJECT [FILE]",
		Description: "With --status it says what becomes of a job whose target always answers so: who\n" +
			"pays, when it is tried again, and where that ends. The breaker, the retry budget\n" +
			"and a fallback are left aside; see `workerd test` for all of it together.\n\n" +
			"Example: workerd route jobs.email.normal --status 503",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "status", Usage: "HTTP status `N` the target answers", DefaultText: "none"},
			&cli.GenericFlag{Name: "header", Aliases: []string{"H"}, Usage: "header of its answer as `KEY:VALUE`, may be repeated", Value: &headers{}},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "text or json", Value: "text"},
		},
		Action: route,
	}
}

func route(c *cli.Context) error {
	subject := c.Args().First()
	if subject == "" {
		return fail(exitUsage, helpHint(c), "route needs a subject")
	}
	if err := queue.CheckSubject(subject); err != nil || strings.ContainsAny(subject, "*>") {
		return fail(exitUsage, helpHint(c), "subject %q is not allowed: no spaces, no empty parts, and no * and > in a job's own subject", subject)
	}
	if o := c.String("output"); o != "text" && o != "json" {
		return fail(exitUsage, helpHint(c), "--output %q is not allowed, use text or json", o)
	}
	answer, err := answerOf(c)
	if err != nil {
		return err
	}
	name := c.Args().Get(1)
	if name == "" {
		name = defaultConfig()
	}
	cfg, _, err := loadConfig(c, name)
	if err != nil {
		return err
	}
	routes, err := foretold(cfg, subject, answer)
	if err != nil {
		return err
	}
	return printRoutes(c, routes)
}

// answerOf is what the flags say that the target answers, nil for nothing.
func answerOf(c *cli.Context) (*whatif.Answer, error) {
	h, _ := c.Generic("header").(*headers)
	if !c.IsSet("status") {
		if h.h != nil {
			return nil, fail(exitUsage, helpHint(c), "--header belongs to --status")
		}
		return nil, nil
	}
	a := &whatif.Answer{Status: c.Int("status"), Header: http.Header{}}
	if a.Status < 200 || a.Status > 599 {
		return nil, fail(exitUsage, helpHint(c), "--status: %d is not allowed, use 200 to 599", a.Status)
	}
	for key, values := range h.h {
		for _, v := range values {
			a.Header.Add(key, v)
		}
	}
	return a, nil
}

func foretold(cfg *config.File, subject string, answer *whatif.Answer) ([]whatif.Route, error) {
	routes := whatif.Routes(cfg, subject)
	if len(routes) == 0 {
		return nil, fail(exitFailure, "", "no pool takes jobs on %q", subject)
	}
	for i, r := range routes {
		if answer == nil {
			continue
		}
		fate, err := whatif.Foretell(cfg, r, *answer)
		if err != nil {
			return nil, err
		}
		routes[i].Fate = &fate
	}
	return routes, nil
}

func printRoutes(c *cli.Context, routes []whatif.Route) error {
	if c.String("output") == "json" {
		return json.NewEncoder(c.App.Writer).Encode(routes)
	}
	for i, r := range routes {
		if i > 0 {
			fmt.Fprintln(c.App.Writer)
		}
		if err := r.Text(c.App.Writer); err != nil {
			return err
		}
	}
	return nil
}
