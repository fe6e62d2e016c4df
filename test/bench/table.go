package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// result is a line of the table: a ratio in all rounds.
type result struct {
	name   string
	ratios []float64
	// reach is the goal, 0 for none; more is better, or less if atMost is set.
	reach  float64
	atMost bool
	// must: a miss fails the run.
	must bool
	note string
}

// values picks one figure of each measurement.
func values(ms []measurement, of func(measurement) float64) []float64 {
	list := make([]float64, len(ms))
	for i, m := range ms {
		list[i] = of(m)
	}
	return list
}

// ratios divides round by round, so that what slowed a round down slows both.
func ratios(ours, theirs []measurement, of func(measurement) float64) []float64 {
	list := make([]float64, len(ours))
	for i := range ours {
		list[i] = of(ours[i]) / of(theirs[i])
	}
	return list
}

// median of a list that is not empty.
func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// met tells whether the median is where it should be. What is not a number is
// not: a broken measurement passes nothing.
func (r result) met() bool {
	if r.atMost {
		return median(r.ratios) <= r.reach
	}
	return median(r.ratios) >= r.reach
}

func (r result) goal() (goal, verdict string) {
	if r.reach == 0 {
		return "", ""
	}
	sign := "≥"
	if r.atMost {
		sign = "≤"
	}
	verdict = "met"
	if !r.met() {
		verdict = "missed"
	}
	return fmt.Sprintf("%s %.2f", sign, r.reach), verdict
}

// table of all results, for people.
func table(results []result) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tgoal\tmedian\tmin–max\t\tremark")
	for _, r := range results {
		goal, verdict := r.goal()
		fmt.Fprintf(w, "%s\t%s\t%.3f\t%.3f–%.3f\t%s\t%s\n", r.name, goal, median(r.ratios), slices.Min(r.ratios), slices.Max(r.ratios), verdict, r.note)
	}
	_ = w.Flush() // into memory
	return b.String()
}

// verdict is an error if something that must hold does not.
func verdict(results []result) error {
	var errs []error
	for _, r := range results {
		if r.must && !r.met() {
			goal, _ := r.goal()
			errs = append(errs, fmt.Errorf("%s is %.3f, must be %s", r.name, median(r.ratios), goal))
		}
	}
	return errors.Join(errs...)
}
