// Command trouble shows what workerd does when its target, or the load, is in
// trouble, with real processes: workerd (built from this tree) and a broker of
// its own; the target is this program.
//
//	go run ./test/trouble              all cases, some minutes
//	go run ./test/trouble -only hang   those whose name contains a word
//	go run ./test/trouble -dead 10m    how long the dead target stays dead
//	go run ./test/trouble -plot FILE   the adaptive limit as an SVG
//
// The cases, and what they are held against (docs/overload.md):
//
//   - an outage of 15 s at 500 jobs/s, in which the target answers 503 or not at
//     all: calls wasted, dead letters, how fast the backlog is worked off once
//     the breaker has closed, calls per job;
//   - four replicas and one outage: calls that each makes at once when the target
//     is back, against its ramp;
//   - three and ten times the load that a pool can do, a fifth of its capacity
//     in high priority: how many of these in time, their 99th percentile by that
//     of a calm time before, goodput by capacity, what low priority still gets;
//   - a target that is dead for long: CPU, and calls but for the probes;
//   - a target whose capacity falls to a fifth and comes back: the limit that
//     workerd finds, second by second.
//
// Every case checks its books: a job that is lost, or done twice, ends the run
// with exit code 1. Missed goals do not: machines differ.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "trouble:", err)
		os.Exit(1)
	}
}

// figure is a line of the table.
type figure struct {
	what, goal string
	value      string
	met        bool
}

// trial is one case.
type trial struct {
	name string
	run  func(ctx context.Context, s *stage) ([]figure, error)
}

func run(ctx context.Context) error {
	only := flag.String("only", "", "run the cases whose name contains this")
	dead := flag.Duration("dead", time.Minute, "how long the dead target stays dead")
	plot := flag.String("plot", "", "write the adaptive limit as an SVG to this file")
	flag.Parse()
	trials := []trial{
		{"outage, 503", func(ctx context.Context, s *stage) ([]figure, error) { return outage(ctx, s, false) }},
		{"outage, hang", func(ctx context.Context, s *stage) ([]figure, error) { return outage(ctx, s, true) }},
		{"four replicas, one outage", stampede},
		{"overload × 3", func(ctx context.Context, s *stage) ([]figure, error) { return overload(ctx, s, 3) }},
		{"overload × 10", func(ctx context.Context, s *stage) ([]figure, error) { return overload(ctx, s, 10) }},
		{"dead target", func(ctx context.Context, s *stage) ([]figure, error) { return deadTarget(ctx, s, *dead) }},
		{"capacity 100, 20, 100", func(ctx context.Context, s *stage) ([]figure, error) { return capacity(ctx, s, *plot) }},
	}
	dir, err := os.MkdirTemp("", "workerd-trouble-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "workerd")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/workerd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build workerd (run this from the top of the tree): %w\n%s", err, out)
	}
	var errs []error
	for _, c := range trials {
		if !strings.Contains(c.name, *only) {
			continue
		}
		figures, err := onStage(ctx, dir, binary, c.run)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
		show(c.name, figures)
	}
	return errors.Join(errs...)
}

func show(name string, figures []figure) {
	fmt.Println(name)
	for _, f := range figures {
		verdict := ""
		if f.goal != "" {
			verdict = "met"
			if !f.met {
				verdict = "MISSED"
			}
		}
		fmt.Printf("  %-44s %14s  %-12s %s\n", f.what, f.value, f.goal, verdict)
	}
}
