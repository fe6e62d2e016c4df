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
	fmt.Fprintf(&s, "  %d jobs: %d done, %d dead, %d left, %d lost, %d forgotten by the broker; %d duplicates, %d of them explained (%d jobs may be repeated); %d unknown; %s\n",
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
	return s.String()
}

// sums over all scenarios.
func (r *report) sums() (v verdict, faults, skipped int) {
	for _, one := range r.Results {
		v.Jobs += one.Verdict.Jobs
		v.Done += one.Verdict.Done
		v.Dead += one.Verdict.Dead
		v.Left += one.Verdict.Left
		v.Lost += one.Verdict.Lost
		v.Forgotten += one.Verdict.Forgotten
		v.Duplicates += one.Verdict.Duplicates
		v.Explained += one.Verdict.Explained
		for _, n := range one.Faults {
			faults += n
		}
		if one.Skipped != "" {
			skipped++
		}
	}
	return v, faults, skipped
}

// page is the report for people.
func (r *report) page() string {
	var s strings.Builder
	v, faults, skipped := r.sums()
	fmt.Fprintf(&s, "# Chaos, seed %d, %s\n\n", r.Seed, r.Began.Format("2006-01-02 15:04"))
	fmt.Fprintf(&s, "%d jobs, %d faults, %d lost (and %d forgotten by a broker), %d duplicates (%d explained), %d dead letters; %d scenarios, %d skipped; %s.\n\n",
		v.Jobs, faults, v.Lost, v.Forgotten, v.Duplicates, v.Explained, v.Dead, len(r.Results), skipped, r.Took.Round(time.Second))
	s.WriteString("| scenario | jobs | faults | lost | duplicates | explained | may repeat | verdict |\n|---|---|---|---|---|---|---|---|\n")
	for _, one := range r.Results {
		n, verdict := 0, "ok"
		for _, f := range one.Faults {
			n += f
		}
		if one.failed() {
			verdict = "FAILED"
		}
		if one.Skipped != "" {
			verdict = "skipped: " + one.Skipped
		}
		x := one.Verdict
		fmt.Fprintf(&s, "| %s | %d | %d | %d | %d | %d | %d | %s |\n", one.Name, x.Jobs, n, x.Lost, x.Duplicates, x.Explained, x.Allowed, verdict)
	}
	for _, one := range r.Results {
		fmt.Fprintf(&s, "\n## %s\n\n%s", one.Name, strings.ReplaceAll(one.lines(), "  ", "- "))
	}
	return s.String()
}

// verdict is an error that says how to do it again.
func (r *report) verdict() error {
	var bad []string
	for _, one := range r.Results {
		if one.failed() {
			bad = append(bad, one.Name)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return errors.New("failed: " + strings.Join(bad, ", ") + fmt.Sprintf("; again: go run ./test/chaos -seed %d -only %s; books and logs: %s", r.Seed, strings.Join(bad, ","), r.Out))
}
