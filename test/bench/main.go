// Command bench compares workerd with a hand-written loop of nats.go and
// net/http that does the least one can do: pull, call, ack.
//
//	go run ./test/bench          about four minutes
//	go run ./test/bench -quick   under one, for a first look
//
// Everything is real and in a process of its own: a nats-server with its
// streams on disk, an HTTP downstream, workerd (built from this tree, `workerd
// run` with a file) and the loop. The two sides take turns, the figures are
// medians of the rounds, and what counts are their ratios: the machine may be
// slow or busy, both sides suffer alike.
//
// The downstream keeps the books. Time runs from the first call it sees to the
// last answer it gives, so starting up does not count; a job that is missing or
// done twice fails the run. CPU time is that of the whole process, from start
// to exit.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the bench, or one of the processes it starts.
func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case roleBroker:
			return serveBroker(ctx, args[1])
		case roleDownstream:
			return serveDownstream(ctx)
		case roleLoop:
			return runLoop(ctx, args[1:])
		}
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "fewer jobs and rounds")
	binary := flags.String("workerd", "", "a workerd to measure instead of the one in this tree")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "workerd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if *binary == "" {
		*binary = filepath.Join(dir, "workerd")
		if out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", *binary, "./cmd/workerd").CombinedOutput(); err != nil {
			return fmt.Errorf("build workerd (run this from the top of the tree): %w\n%s", err, out)
		}
	}
	b, err := newBench(ctx, dir, *binary)
	if err != nil {
		return err
	}
	defer b.close()
	size := full()
	if *quick {
		size = small()
	}
	results, err := b.all(ctx, size)
	if err != nil {
		return err
	}
	fmt.Print(table(results))
	return verdict(results)
}
