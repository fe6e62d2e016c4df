// Command mutants asks whether the simulation has teeth: it plants faults of
// one line in a copy of the source, one after the other, and runs internal/sim
// against each. A fault that the simulation does not notice has survived, and
// shows a promise that nobody checks. If all are run, so is the source as it is: a
// simulation that complains of that proves nothing.
//
//	go run ./test/mutants              all of them, some minutes
//	go run ./test/mutants -only settle those whose name matches
//
// It prints a line for each and "killed N/N", and exits with 1 if one survived.
// The source itself is not touched.
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
	"regexp"
	"strings"
	"sync"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	only := flag.String("only", "", "run those whose name this regular expression matches")
	jobs := flag.Int("jobs", 150_000, "simulated jobs for each with the model, at most, and a twentieth of it with the real broker")
	patience := flag.Duration("patience", time.Minute, "how long the simulation may take to notice one; more on a machine with other things to do")
	flag.Parse()
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	var chosen []mutant
	for _, m := range mutants() {
		if wanted.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	queue := make(chan mutant, len(chosen))
	for _, m := range chosen {
		queue <- m
	}
	close(queue)
	var mu sync.Mutex
	var errs []error
	killed, control := 0, *only == ""
	var labs sync.WaitGroup
	for n := range 2 {
		labs.Go(func() {
			l, err := newLab(*jobs, *patience)
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
				return
			}
			defer os.RemoveAll(l.dir)
			if n == 0 && control {
				if how, err := l.simulate(ctx); !errors.Is(err, errSurvived) {
					mu.Lock()
					errs = append(errs, errors.Join(fmt.Errorf("control, with no fault planted: %s", how), err))
					mu.Unlock()
				}
			}
			for m := range queue {
				began := time.Now()
				how, err := l.try(ctx, m)
				mu.Lock()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
				} else {
					killed++
				}
				fmt.Printf("%-45s %4.0f s  %s\n", m.name, time.Since(began).Seconds(), how)
				mu.Unlock()
			}
		})
	}
	labs.Wait()
	fmt.Printf("killed %d/%d\n", killed, len(chosen))
	return errors.Join(errs...)
}

// lab is a copy of the source in which mutants are planted.
type lab struct {
	dir      string
	jobs     int
	patience time.Duration
}

func newLab(jobs int, patience time.Duration) (*lab, error) {
	dir, err := os.MkdirTemp("", "workerd-mutants-")
	if err != nil {
		return nil, err
	}
	l := &lab{dir, jobs, patience}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			return nil, fmt.Errorf("run this from the top of the tree: %w", err)
		}
	}
	return l, os.CopyFS(filepath.Join(dir, "internal"), os.DirFS("internal"))
}

var errSurvived = errors.New("survived")

// try plants a mutant, lets the simulation look at it and removes it again.
func (l *lab) try(ctx context.Context, m mutant) (how string, err error) {
	file := filepath.Join(l.dir, m.file)
	text, err := os.ReadFile(file)
	if err != nil {
		return "BROKEN", err
	}
	if strings.Count(string(text), m.old) != 1 {
		return "BROKEN", fmt.Errorf("%q is %d times in %s, want once", m.old, strings.Count(string(text), m.old), m.file)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
		return "BROKEN", err
	}
	defer func() { _ = os.WriteFile(file, text, 0o600) }() // the next one would not find its line
	return l.simulate(ctx)
}

// simulate runs the simulation on what is in the lab.
func (l *lab) simulate(ctx context.Context) (how string, err error) {
	binary := filepath.Join(l.dir, "sim.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-o", binary, "./internal/sim")
	build.Dir = l.dir
	if out, err := build.CombinedOutput(); err != nil {
		return "BROKEN", fmt.Errorf("does not compile: %s", out)
	}
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	sim := exec.CommandContext(ctx, binary, "-test.run", "TestSim_", "-test.failfast")
	sim.Dir = filepath.Join(l.dir, "internal", "sim")
	sim.Env = append(os.Environ(), fmt.Sprintf("SIM_JOBS=%d", l.jobs), "SIM_PATIENCE=25")
	out, err := sim.CombinedOutput()
	switch {
	case err == nil:
		return "SURVIVED", errSurvived
	case ctx.Err() != nil:
		return "SURVIVED: not noticed in time", errSurvived
	}
	return "killed: " + first(string(out)), nil
}

// first complaint of the simulation, in short.
func first(out string) string {
	for line := range strings.SplitSeq(out, "\n") {
		if _, what, ok := strings.Cut(line, "SIM_SEED="); ok {
			return what[:min(len(what), 80)]
		}
		if strings.Contains(line, "did not happen") {
			return strings.TrimSpace(line)
		}
		if name, ok := strings.CutPrefix(line, "--- FAIL: "); ok && !strings.Contains(line, "nothingIsLost") {
			return name[:min(len(name), 80)]
		}
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			return line[:min(len(line), 80)]
		}
	}
	return "failed"
}
