package main

import (
	"strings"
	"testing"
	"time"
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
		name                 string
		figures              map[string]float64
		unjudged             bool
		problems             []string
		again, failed, noted bool
	}{
		{"kept", map[string]float64{"rescue max": 2.9, stalled: 1}, false, nil, false, false, false},
		{"late on a quiet machine", map[string]float64{"rescue max": 3.1, stalled: 0.01}, false, nil, false, true, false},
		{"no later than the machine", map[string]float64{"rescue max": 3.1, stalled: 0.11}, false, nil, false, false, true},
		{"late on a late machine", map[string]float64{"rescue max": 3.4, stalled: 0.3}, false, nil, true, true, false},
		{"late on a machine that is no measure", map[string]float64{"rescue max": 4.1, stalled: 2}, false, nil, true, true, false},
		{"late, and something else", map[string]float64{"rescue max": 3.4, stalled: 0.3}, false, []string{"x"}, false, true, false},
		{"late, not judged", map[string]float64{"rescue max": 9, stalled: 0.01}, true, nil, false, false, true},
		{"not measured", map[string]float64{stalled: 0.3}, false, nil, false, true, false},
		{"not measured, not judged", map[string]float64{stalled: 0.3}, true, nil, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := result{Figures: c.figures, Problems: c.problems}
			r.keeps(bounds, !c.unjudged)
			if r.again() != c.again || r.failed() != c.failed || (len(r.Notes) > 0) != c.noted {
				t.Errorf("again %v, failed %v, want %v and %v: %v, notes %q", r.again(), r.failed(), c.again, c.failed, r.Late, r.Notes)
			}
		})
	}
}

// TestResumed_isTheFirstCallOfAJobThatWasPublishedSince, not one of a job that
// was in hand.
func TestResumed_isTheFirstCallOfAJobThatWasPublishedSince(t *testing.T) {
	b := books{
		Published: map[string]time.Duration{"old": at(900), "new": at(1100), "newer": at(1050)},
		Calls:     []call{answered("old", "w1.1", 950, 960), answered("old", "w1.1", 1200, 1210), answered("new", "w1.1", 1300, 1310), answered("newer", "w1.1", 1400, 1410)},
	}
	if d, ok := b.resumed(at(1000)); !ok || d != at(300) {
		t.Errorf("resumed after %s (%v), want 300ms", d, ok)
	}
	if d, ok := b.resumed(at(1150)); ok {
		t.Errorf("resumed after %s, though no job was published since", d)
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
