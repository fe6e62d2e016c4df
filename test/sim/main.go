// Command sim simulates about a million jobs and some thousand faults: it builds
// the tests of internal/sim, runs them in as many processes as asked for, each
// from a seed of its own on, and adds up what they have seen.
//
//	go run ./test/sim                 two processes, a million jobs
//	go run ./test/sim -jobs 2000000   as many with the model, a twentieth of it with a real nats-server
//
// The last line has the totals. It exits with 1 if a job was lost, a repetition
// is not explained, any other checker complains, something that must happen
// sometimes did not, or there were fewer jobs or faults than asked for.
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
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	jobs := flag.Int("jobs", 965_000, "simulated jobs with the model, of all processes; a twentieth of it comes with the real broker")
	processes := flag.Int("processes", 2, "how many run at once")
	first := flag.Int("first", 1, "seed of the first scenario")
	flag.Parse()
	dir, err := os.MkdirTemp("", "workerd-sim-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "sim.test")
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./internal/sim").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	began := time.Now()
	outputs, errs := make([]string, *processes), make([]error, *processes)
	var all sync.WaitGroup
	for n := range *processes {
		all.Go(func() {
			cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.run", "TestSim_", "-test.timeout", "3h")
			cmd.Dir = filepath.Join("internal", "sim")
			cmd.Env = append(os.Environ(), fmt.Sprintf("SIM_FIRST=%d", *first+n*1_000_000), fmt.Sprintf("SIM_JOBS=%d", *jobs / *processes))
			out, err := cmd.CombinedOutput()
			outputs[n], errs[n] = string(out), err
		})
	}
	all.Wait()
	for n, out := range outputs {
		if errs[n] == nil {
			continue
		}
		fmt.Println(complaints(out))
		history := filepath.Join(os.TempDir(), fmt.Sprintf("workerd-sim-%d.log", n))
		if err := os.WriteFile(history, []byte(out), 0o600); err == nil {
			fmt.Println("all it said is in", history)
		}
	}
	sum, err := add(outputs), errors.Join(errs...)
	if want := *jobs + *jobs/20; sum["jobs"] < want || sum["faults"] < want*3/1000 {
		err = errors.Join(err, fmt.Errorf("too little has happened: want %d jobs and %d faults at least", want, want*3/1000))
	}
	lost := "0 lost"
	if err != nil {
		lost = "NOT all well"
	}
	fmt.Printf("%d jobs, %d faults, %s, %d done twice and explained, sometimes %s in each process, %s (first seed %d, %d processes)\n",
		sum["jobs"], sum["faults"], lost, sum["twice"], happened(outputs), time.Since(began).Round(time.Second), *first, *processes)
	return err
}

// add sums up the tallies.
func add(outputs []string) map[string]int {
	sum := map[string]int{}
	word := regexp.MustCompile(`(\w+)=(\d+)`)
	for _, out := range outputs {
		for line := range strings.Lines(out) {
			if _, tally, ok := strings.Cut(line, "TALLY "); ok {
				for _, m := range word.FindAllStringSubmatch(tally, -1) {
					n, _ := strconv.Atoi(m[2]) // digits
					sum[m[1]] += n
				}
			}
		}
	}
	return sum
}

// happened is how much of what must happen sometimes did.
func happened(outputs []string) string {
	for _, out := range outputs {
		if _, after, ok := strings.Cut(out, "SOMETIMES "); ok {
			hit, _, _ := strings.Cut(after, "\n")
			return hit
		}
	}
	return "not asked for"
}

// complaints of a run, the first of them.
func complaints(out string) string {
	const most = 30
	var lines []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "SIM_SEED=") || strings.Contains(line, "did not happen") || strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			lines = append(lines, strings.TrimSpace(line[:min(len(line), 500)]))
		}
	}
	if len(lines) == 0 {
		return out[max(0, len(out)-4000):]
	}
	return strings.Join(lines[:min(len(lines), most)], "\n")
}
