package main

import (
	"strings"
	"testing"
)

// TestVerdict_isAnErrorUnlessAllWasKept_andEnoughWasDone.
func TestVerdict_isAnErrorUnlessAllWasKept_andEnoughWasDone(t *testing.T) {
	many := map[string]int{"workerd SIGKILL": enough - 1, "broker SIGKILL": 1}
	for _, c := range []struct {
		name string
		all  bool
		r    []result
		want string // in the error; empty: none
	}{
		{"all kept", true, []result{{Faults: many}}, ""},
		{"too few faults", true, []result{{Faults: map[string]int{"workerd SIGKILL": enough - 1}}}, "at least 200"},
		{"faults of connections do not count", true, []result{{Faults: map[string]int{"link to broker reset": enough}}}, "at least 200"},
		{"few, but of one scenario only", false, []result{{Faults: map[string]int{"workerd SIGKILL": 1}}}, ""},
		{"lost", false, []result{{Verdict: verdict{Lost: 1}}}, "1 lost"},
		{"a duplicate is not explained", false, []result{{Verdict: verdict{Duplicates: 3, Explained: 2}}}, "2 of 3 duplicates"},
		{"a problem", false, []result{{Name: "kill", Problems: []string{"x"}}}, "-only kill"},
		{"too late", false, []result{{Name: "rescue", Late: []string{"x"}}}, "-only rescue"},
		{"too late, then not", false, []result{{Name: "rescue", Late: []string{"x"}, Again: true}, {Name: "rescue"}}, ""},
		{"too late twice", false, []result{{Name: "rescue", Late: []string{"x"}, Again: true}, {Name: "rescue", Late: []string{"x"}}}, "-only rescue"},
		{"too late and lost", false, []result{{Name: "rescue", Late: []string{"x"}, Again: true, Verdict: verdict{Problems: []string{"lost"}}}}, "-only rescue"},
		{"skipped", false, []result{{Name: "partition", Skipped: "needs root"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := report{All: c.all, Results: c.r}
			err := r.verdict()
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("the verdict is %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestBounds_areMeasuredAgainOnlyIfTheMachineWasLateToo: never excused.
func TestBounds_areMeasuredAgainOnlyIfTheMachineWasLateToo(t *testing.T) {
	bounds := map[string]float64{"rescue max": 3}
	for _, c := range []struct {
		name          string
		figures       map[string]float64
		problems      []string
		again, failed bool
	}{
		{"kept", map[string]float64{"rescue max": 2.9, stalled: 1}, nil, false, false},
		{"late on a quiet machine", map[string]float64{"rescue max": 3.1, stalled: 0.01}, nil, false, true},
		{"late on a late machine", map[string]float64{"rescue max": 3.1, stalled: 0.3}, nil, true, true},
		{"late, and something else", map[string]float64{"rescue max": 3.1, stalled: 0.3}, []string{"x"}, false, true},
		{"not measured", map[string]float64{stalled: 0.3}, nil, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := result{Figures: c.figures, Problems: c.problems}
			r.keeps(bounds)
			if r.again() != c.again || r.failed() != c.failed {
				t.Errorf("again %v, failed %v, want %v and %v: %v", r.again(), r.failed(), c.again, c.failed, r.Late)
			}
		})
	}
}

// TestReport_saysLoudlyWhatWasSkipped, and that nothing was.
func TestReport_saysLoudlyWhatWasSkipped(t *testing.T) {
	r := report{Results: []result{{Name: "partition", Skipped: "network namespaces need root"}}}
	if page := r.page(); !strings.Contains(page, "1 skipped") || !strings.Contains(page, "SKIPPED: network namespaces need root") {
		t.Errorf("the report does not say what was skipped:\n%s", page)
	}
	if page := (&report{Results: []result{{Name: "kill"}}}).page(); !strings.Contains(page, "0 skipped") {
		t.Errorf("the report does not say that nothing was skipped:\n%s", page)
	}
}
