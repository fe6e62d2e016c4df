package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/app"
	"github.com/workerd/workerd/internal/queue"
)

func permissionsCommand() *cli.Command {
	return &cli.Command{
		Name: "nats-permissions", Usage: "Print what the NATS user of a configuration must be permitted",
		ArgsUsage: "[FILE]",
		Description: "Prints the least a workerd of this configuration needs, and what for, to be pasted\n" +
			"into the user's entry in the configuration of nats-server. It does not touch the network.\n" +
			"workerd checks the same list when it starts.\n\nExample: workerd nats-permissions --bind workerd.yaml",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "bind", Usage: "streams, consumers and the bucket exist already: leave out what creates them", DisableDefaultText: true},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "nats", Usage: "`FORMAT`: nats or json"},
		},
		Action: printPermissions,
	}
}

func printPermissions(c *cli.Context) error {
	format := c.String("output")
	if format != "nats" && format != "json" {
		return fail(exitUsage, helpHint(c), "--output: %q is not allowed, use nats or json", format)
	}
	file, _, err := loadConfig(c, configFile(c))
	if err != nil {
		return err
	}
	var publish, subscribe []queue.Permission
	for _, p := range app.Permissions(file) {
		switch {
		case p.Need == queue.Creates && c.Bool("bind"):
		case p.Verb == queue.Publish:
			publish = append(publish, p)
		default:
			subscribe = append(subscribe, p)
		}
	}
	if format == "json" {
		e := json.NewEncoder(c.App.Writer)
		e.SetEscapeHTML(false)
		return e.Encode(map[queue.Verb][]string{queue.Publish: subjects(publish), queue.Subscribe: subjects(subscribe)})
	}
	fmt.Fprintln(c.App.Writer, "permissions: {")
	printSubjects(c.App.Writer, queue.Publish, publish)
	printSubjects(c.App.Writer, queue.Subscribe, subscribe)
	fmt.Fprintln(c.App.Writer, "}")
	return nil
}

// printSubjects writes a list as the configuration of nats-server has it.
func printSubjects(w io.Writer, verb queue.Verb, all []queue.Permission) {
	fmt.Fprintf(w, "  %s: [\n", verb)
	for _, p := range all {
		fmt.Fprintf(w, "    %q # to %s\n", p.Subject, p.For)
	}
	fmt.Fprintln(w, "  ]")
}

func subjects(all []queue.Permission) []string {
	list := []string{}
	for _, p := range all {
		list = append(list, p.Subject)
	}
	return list
}
