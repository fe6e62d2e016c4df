package main

import (
	"math"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for want, list := range map[float64][]float64{2: {3, 1, 2}, 2.5: {4, 1, 2, 3}, 7: {7}} {
		if got := median(list); got != want {
			t.Errorf("median(%v) = %v, want %v", list, got, want)
		}
	}
}

func TestRatios_divideRoundByRound(t *testing.T) {
	ours := []measurement{{perSecond: 10}, {perSecond: 90}}
	theirs := []measurement{{perSecond: 20}, {perSecond: 30}}
	got := ratios(ours, theirs, func(m measurement) float64 { return m.perSecond })
	if len(got) != 2 || got[0] != 0.5 || got[1] != 3 {
		t.Errorf("got %v, want 0.5 and 3", got)
	}
}

func TestVerdict_failsForWhatMustHoldOnly(t *testing.T) {
	good := result{name: "good", ratios: []float64{0.96, 0.5, 2}, reach: 0.95, must: true}
	missed := result{name: "slow", ratios: []float64{0.5}, reach: 1}
	bad := result{name: "bad", ratios: []float64{1.2}, reach: 1, atMost: true, must: true}
	if err := verdict([]result{good, missed}); err != nil {
		t.Error(err)
	}
	if err := verdict([]result{good, bad}); err == nil || err.Error() != "bad is 1.200, must be ≤ 1.00" {
		t.Errorf("got %v", err)
	}
}

func TestVerdict_aRatioThatIsNoNumberMeetsNothing(t *testing.T) {
	for _, atMost := range []bool{false, true} {
		r := result{name: "broken", ratios: []float64{math.NaN()}, reach: 1, atMost: atMost, must: true}
		if verdict([]result{r}) == nil {
			t.Errorf("atMost %t: NaN passes", atMost)
		}
	}
}

func TestTable_alignsAndNamesGoalAndVerdict(t *testing.T) {
	got := table([]result{
		{name: "good", ratios: []float64{0.96, 0.5, 2}, reach: 0.95, note: "remark"},
		{name: "slow", ratios: []float64{0.5}, reach: 1},
		{name: "information", ratios: []float64{3}},
	})
	want := []string{
		"what         goal    median  min–max              remark",
		"good         ≥ 0.95  0.960   0.500–2.000  met     remark",
		"slow         ≥ 1.00  0.500   0.500–0.500  missed",
		"information          3.000   3.000–3.000",
	}
	lines := strings.Split(strings.TrimSpace(got), "\n")
	for i, line := range want {
		if i >= len(lines) || strings.TrimRight(lines[i], " ") != line {
			t.Fatalf("line %d is not %q in\n%s", i, line, got)
		}
	}
}
