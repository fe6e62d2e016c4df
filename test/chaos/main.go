// Command chaos runs workerd and its brokers as real processes, does to them
// what happens to processes, and compares what the stream has accepted with
// what the downstream saw.
//
//	go run ./test/chaos                 what CI runs, about five minutes
//	go run ./test/chaos -full           all of it, longer, and what needs root:
//	                                    partitions, starvation, a full disk
//	go run ./test/chaos -only a,b       some scenarios
//	go run ./test/chaos -list           what there is
//	go run ./test/chaos check DIR       do the sums of a finished run again
//
// A scenario is a load, faults meanwhile, healing, and waiting until the
// stream is empty. Then the books are closed: what the publisher knows the
// stream has taken, what the downstream was asked and answered, the dead
// letters, what is left in the stream. None of them is workerd's word.
//
//   - acked ⊆ done ∪ dead ∪ left: nothing is lost;
//   - done ∪ dead ⊆ acked ∪ unknown, payloads byte for byte: nothing is made up;
//   - a call after a complete answer needs a fault that hit the replica which
//     had the job, while it had it, and another fault for each further run: see
//     books.repeated. It is computed from the times of calls and faults;
//   - never more calls of a replica in flight than its concurrency.
//
// One scenario has jobs among its load that mean harm: forged, endless and
// unreadable headers, nothing or a MiB to carry. They are in the same books.
//
// A fault counts when it was really done: a signal delivered, a connection
// cut, a limit hit. A run of all scenarios with fewer than 200 faults of
// processes has shown nothing and fails, as does one with a job lost, a
// duplicate that no fault explains, a bound that was not kept, or one that was
// not measured. Bounds are longer by as much as the machine ran the harness late
// at worst. One missed even so, while that was more than 200 ms, is reported and
// measured once more, and that counts. What cannot be done on a machine is
// skipped, and the report says so and why. Everything random follows from -seed. What depends on the
// scheduler of the machine does not, so a seed finds a class of trouble again,
// not each interleaving.
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
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// run is the harness, or one of the processes it starts.
func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == roleBroker:
		return serveBroker(args[1])
	case len(args) == 2 && args[0] == roleFront:
		return serveFront(args[1])
	case len(args) == 2 && args[0] == roleHog:
		return hog(args[1])
	case len(args) == 2 && args[0] == "check":
		return recheck(args[1])
	}
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	seed := flags.Uint64("seed", 1, "of everything random")
	only := flags.String("only", "", "scenarios to run, separated by commas")
	full := flags.Bool("full", false, "all scenarios, longer")
	out := flags.String("out", "", "directory for books, events, logs and the report; default: a new one under the system's for temporary files")
	binary := flags.String("workerd", "", "a workerd to run instead of the one in this tree")
	unbound := flags.Bool("no-bounds", false, "measure latencies without judging them: for a machine that others use, too")
	judge := flags.String("judge", "", "scenarios whose latencies are judged, separated by commas; default: all")
	list := flags.Bool("list", false, "list the scenarios")
	if err := flags.Parse(args); err != nil {
		return err
	}
	plan := scenarios(*full)
	if *list {
		fmt.Println(names(plan))
		return nil
	}
	plan, err := choose(plan, *only, *full)
	if err != nil {
		return err
	}
	judged, err := choose(scenarios(*full), *judge, true)
	if err != nil {
		return err
	}
	for i, s := range plan {
		plan[i].unjudged = *unbound || !slices.ContainsFunc(judged, func(j scenario) bool { return j.name == s.name })
	}
	h := &harness{seed: *seed, out: *out, binary: *binary, full: *full, all: *only == ""}
	return h.run(ctx, plan)
}

// choose picks scenarios by name, those of a run in CI, or all.
func choose(plan []scenario, only string, full bool) ([]scenario, error) {
	if only == "" {
		return slices.DeleteFunc(plan, func(s scenario) bool { return s.fullOnly && !full }), nil
	}
	var chosen []scenario
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(plan, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scenario %q; there are\n%s", name, names(plan))
		}
		chosen = append(chosen, plan[i])
	}
	return chosen, nil
}

// harness is one run.
type harness struct {
	seed        uint64
	out, binary string
	full, all   bool
}

func (h *harness) run(ctx context.Context, plan []scenario) (err error) {
	if h.out == "" {
		if h.out, err = os.MkdirTemp("", "workerd-chaos-"); err != nil {
			return err
		}
	}
	if h.out, err = filepath.Abs(h.out); err != nil {
		return err
	}
	if err := os.MkdirAll(h.out, 0o750); err != nil {
		return err
	}
	if h.binary == "" {
		h.binary = filepath.Join(h.out, "workerd")
		if err := build(ctx, h.binary); err != nil {
			return err
		}
	}
	r := report{Began: time.Now().UTC(), Seed: h.seed, Full: h.full, All: h.all, Out: h.out}
	for _, s := range plan {
		one := h.play(ctx, s, s.name)
		if one.again() && ctx.Err() == nil {
			one.Again = true
			r.Results = append(r.Results, one)
			fmt.Fprintln(os.Stderr, "  too late on a machine that was late itself: once more")
			one = h.play(ctx, s, s.name+"-again")
		}
		r.Results = append(r.Results, one)
		if ctx.Err() != nil {
			break
		}
	}
	r.Took = time.Since(r.Began)
	if err := r.write(); err != nil {
		return err
	}
	fmt.Println(r.page())
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return r.verdict()
}

// play runs one scenario in a directory of its own.
func (h *harness) play(ctx context.Context, s scenario, dir string) result {
	fmt.Fprintf(os.Stderr, "%-12s %s\n", s.name, s.about)
	one := play(ctx, s, h.seed, [2]string{filepath.Join(h.out, dir), h.binary})
	fmt.Fprint(os.Stderr, one.lines())
	return one
}

// build makes the workerd of this tree.
func build(ctx context.Context, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./cmd/workerd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build workerd (run this from the top of the tree): %w\n%s", err, out)
	}
	return nil
}
