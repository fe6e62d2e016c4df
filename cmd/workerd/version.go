package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "Print version and build",
		Description: "Example: workerd version -o json",
		Flags:       []cli.Flag{&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "text or json", Value: "text"}},
		Action:      func(c *cli.Context) error { return printVersion(c.App.Writer, c.String("output")) },
	}
}

func printVersion(w io.Writer, format string) error {
	b := version()
	switch format {
	case "json":
		return json.NewEncoder(w).Encode(b)
	case "text":
		_, err := fmt.Fprintln(w, strings.Join(slices.DeleteFunc([]string{"workerd", b.Version, b.Revision, b.Go}, isEmpty), " "))
		return err
	}
	return fail(exitUsage, "see `workerd version --help`", "--output %q is not allowed, use text or json", format)
}

// build describes the binary.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

// version reads what the Go toolchain has written into the binary.
func version() build {
	b := build{Version: "devel"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Go = info.GoVersion
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}

func isEmpty(s string) bool { return s == "" }
