// Command bench compares workerd with a hand-written loop of nats.go and
// net/http that does the least one can do: pull, call, ack.
//
//	go run ./test/bench          under four minutes
//	go run ./test/bench -quick   under 45 seconds, for a first look
//
// Everything is real and in a process of its own, on loopback and free ports:
// a nats-server with its streams on disk, an HTTP downstream, workerd (built
// from this tree, `workerd run` with a file) and the loop. The sides take
// turns on the same broker and downstream, each turn with a fresh stream that
// was filled before. The figures are ratios of the turns of a round, and of
// those the median: the machine may be slow or busy, both sides suffer alike.
//
// What is measured:
//   - throughput: from the first call that the downstream sees to its last
//     answer, so that starting up does not count;
//   - CPU per job: user and system time of the whole process, from start to
//     exit, by its rusage. What starting and stopping costs is a line of its
//     own. Beside it the broker's CPU per job during the turn;
//   - peak memory: the high-water mark that Linux keeps of the process. Not
//     the rusage's, which begins with the size of the process that forked;
//   - efficiency: throughput of a slow downstream by what that many slots
//     allow, over the whole run and over its middle eight tenths, in which
//     nobody starts or runs out of work;
//   - isolation: throughput of a pool beside one whose target never answers,
//     by the same pool's alone.
//
// What is verified in each turn, or the bench fails: the stream was filled;
// each job was called for exactly once, with its whole body, seen over the life
// of the process; the process ended as it should; no job is left in the stream,
// so each ack has arrived; the neighbor that is to hang did hang, in all slots.
//
// A side that answers nothing for a second is reported on stderr, as a median
// hides a stall in one of the rounds.
//
// The exit code is 1 if isolation is below its goal, too. The other goals are
// for information: tests never assert speed.
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
	"time"
)

func main() {
	// SIGPIPE, too: nobody may be left behind when the output goes into `head`.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
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
	size := full()
	if *quick {
		size = small()
	}
	return compare(ctx, *binary, size)
}

// compare runs every case in a directory of its own and prints the table.
func compare(ctx context.Context, binary string, size sizes) error {
	dir, err := os.MkdirTemp("", "workerd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if binary == "" {
		binary = filepath.Join(dir, "workerd")
		if err := build(ctx, binary); err != nil {
			return err
		}
	}
	// Building is not counted, it depends on the cache.
	ctx, cancel := context.WithTimeoutCause(ctx, 2*size.limit, fmt.Errorf("not done within %s", 2*size.limit))
	defer cancel()
	began := time.Now()
	b, err := newBench(ctx, dir, binary)
	if err != nil {
		return err
	}
	defer b.close()
	results, err := b.all(ctx, size)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	fmt.Print(table(results))
	fmt.Fprintf(os.Stderr, "took %s\n", time.Since(began).Round(time.Second))
	return verdict(results)
}

// build makes the workerd of this tree as `make build` does.
func build(ctx context.Context, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./cmd/workerd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build workerd (run this from the top of the tree): %w\n%s", err, out)
	}
	return nil
}
