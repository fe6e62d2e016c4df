package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

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

// met tells whether the median is where it should be.
func (r result) met() bool {
	if r.atMost {
		return median(r.ratios) <= r.reach
	}
	return median(r.ratios) >= r.reach
}

func (r result) goal() (goal, mark string) {
	if r.reach == 0 {
		return "", ""
	}
	sign := "≥"
	if r.atMost {
		sign = "≤"
	}
	mark = "met"
	if !r.met() {
		mark = "missed"
	}
	return fmt.Sprintf("%s %.2f", sign, r.reach), mark
}

// table of all results, for people.
func table(results []result) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tgoal\tmedian\tleast\tmost\t\tremark")
	for _, r := range results {
		goal, mark := r.goal()
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.2f\t%s\t%s\n", r.name, goal, median(r.ratios), slices.Min(r.ratios), slices.Max(r.ratios), mark, r.note)
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
			errs = append(errs, fmt.Errorf("%s is %.2f, must be %s", r.name, median(r.ratios), goal))
		}
	}
	return errors.Join(errs...)
}
