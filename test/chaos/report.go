package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// report of a run.
type report struct {
	Began   time.Time     `json:"began"`
	Took    time.Duration `json:"took"`
	Seed    uint64        `json:"seed"`
	Full    bool          `json:"full"`
	All     bool          `json:"all"` // scenarios that belong to such a run
	Out     string        `json:"out"`
	Results []result      `json:"results"`
}

// save keeps the books of a scenario, to do the sums again.
func save(dir string, b *books) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "books.json"), text, 0o600)
}

// recheck does the sums of a finished run again.
func recheck(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*", "books.json"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no books below %s", dir)
	}
	bad := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var b books
		if err := json.Unmarshal(text, &b); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		r := result{Name: b.Scenario, Verdict: b.check(), Unknown: len(b.Unknown)}
		fmt.Print(r.Name, "\n", r.lines())
		bad += len(r.Verdict.Problems)
	}
	if bad > 0 {
		return fmt.Errorf("%d problems", bad)
	}
	return nil
}

func (r *report) write() error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.Out, "report.json"), text, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.Out, "report.md"), []byte(r.page()), 0o600)
}

// lines say how a scenario ended.
func (r *result) lines() string {
	if r.Skipped != "" {
		return "  SKIPPED: " + r.Skipped + "\n"
	}
	v := r.Verdict
	var s strings.Builder
	fmt.Fprintf(&s, "  %d jobs: %d done, %d dead, %d left, %d lost, %d forgotten by the broker; %d duplicates, %d of them explained (%d runs may be repeated); %d unknown; %s\n",
		v.Jobs, v.Done, v.Dead, v.Left, v.Lost, v.Forgotten, v.Duplicates, v.Explained, v.Allowed, r.Unknown, r.Took.Round(time.Second/10))
	for _, kind := range slices.Sorted(maps.Keys(r.Faults)) {
		fmt.Fprintf(&s, "  %d × %s\n", r.Faults[kind], kind)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Figures)) {
		fmt.Fprintf(&s, "  %s: %.3f\n", name, r.Figures[name])
	}
	for _, p := range append(slices.Clone(r.Problems), v.Problems...) {
		fmt.Fprintf(&s, "  PROBLEM: %s\n", p)
	}
	for _, n := range append(slices.Clone(r.Notes), v.Notes...) {
		fmt.Fprintf(&s, "  NOTE: %s\n", n)
	}
	for _, p := range r.Late {
		fmt.Fprintf(&s, "  TOO LATE: %s\n", p)
	}
	if r.Again {
		s.WriteString("  PLAYED AGAIN, as the machine did not run the harness in time either; the bounds of the second time count\n")
	}
	return s.String()
}

// enough is how many faults of processes a run of all scenarios must have done
// to say anything.
const enough = 200

// sums of a run.
type sums struct {
	verdict
	faults, processes int // of the faults, those done to processes
	skipped           int
}

func (r *report) sums() (v sums) {
	for _, one := range r.Results {
		v.Jobs += one.Verdict.Jobs
		v.Done += one.Verdict.Done
		v.Dead += one.Verdict.Dead
		v.Left += one.Verdict.Left
		v.Lost += one.Verdict.Lost
		v.Forgotten += one.Verdict.Forgotten
		v.Duplicates += one.Verdict.Duplicates
		v.Explained += one.Verdict.Explained
		for kind, n := range one.Faults {
			v.faults += n
			if ofProcess(kind) {
				v.processes += n
			}
		}
		if one.Skipped != "" {
			v.skipped++
		}
	}
	return v
}

// ofProcess tells whether a fault was done to a process, rather than to a
// connection.
func ofProcess(kind string) bool {
	return strings.HasPrefix(kind, "workerd ") || strings.HasPrefix(kind, "broker ")
}

// page is the report for people.
func (r *report) page() string {
	var s strings.Builder
	v := r.sums()
	fmt.Fprintf(&s, "# Chaos, seed %d, %s\n\n", r.Seed, r.Began.Format("2006-01-02 15:04"))
	fmt.Fprintf(&s, "%d jobs, %d faults (%d of processes), %d lost (and %d forgotten by a broker), %d duplicates (%d explained), %d dead letters; %d scenarios, %d skipped; %s.\n\n",
		v.Jobs, v.faults, v.processes, v.Lost, v.Forgotten, v.Duplicates, v.Explained, v.Dead, len(r.Results), v.skipped, r.Took.Round(time.Second))
	s.WriteString("| scenario | jobs | faults | lost | duplicates | explained | may repeat | verdict |\n|---|---|---|---|---|---|---|---|\n")
	for _, one := range r.Results {
		n := 0
		for _, f := range one.Faults {
			n += f
		}
		x := one.Verdict
		fmt.Fprintf(&s, "| %s | %d | %d | %d | %d | %d | %d | %s |\n", one.Name, x.Jobs, n, x.Lost, x.Duplicates, x.Explained, x.Allowed, one.word())
	}
	for _, one := range r.Results {
		fmt.Fprintf(&s, "\n## %s\n\n%s", one.Name, strings.ReplaceAll(one.lines(), "  ", "- "))
	}
	return s.String()
}

// word says how a scenario ended in the table.
func (r *result) word() string {
	switch {
	case r.Skipped != "":
		return "SKIPPED: " + r.Skipped
	case r.failed():
		return "FAILED"
	case r.Again:
		return "too late, played again"
	}
	return "ok"
}

// verdict is an error that says how to do it again. A run of all scenarios
// with few faults has shown nothing.
func (r *report) verdict() error {
	var bad []string
	for _, one := range r.Results {
		if one.failed() {
			bad = append(bad, one.Name)
		}
	}
	v := r.sums()
	switch {
	case len(bad) > 0:
		return errors.New("failed: " + strings.Join(bad, ", ") + fmt.Sprintf("; again: go run ./test/chaos -seed %d -only %s; books and logs: %s", r.Seed, strings.Join(slices.Compact(bad), ","), r.Out))
	case v.Lost > 0 || v.Duplicates > v.Explained: // each is a problem of its scenario, too
		return fmt.Errorf("%d lost, %d of %d duplicates explained", v.Lost, v.Explained, v.Duplicates)
	case r.All && v.processes < enough:
		return fmt.Errorf("%d faults of processes, at least %d are expected", v.processes, enough)
	}
	return nil
}
