package main

import (
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

func TestVerdict_failsForWhatMustHoldOnly(t *testing.T) {
	good := result{name: "good", ratios: []float64{0.96, 0.5, 2}, reach: 0.95, must: true}
	missed := result{name: "slow", ratios: []float64{0.5}, reach: 1}
	bad := result{name: "bad", ratios: []float64{1.2}, reach: 1, atMost: true, must: true}
	if err := verdict([]result{good, missed}); err != nil {
		t.Error(err)
	}
	if err := verdict([]result{good, bad}); err == nil || err.Error() != "bad is 1.20, must be ≤ 1.00" {
		t.Errorf("got %v", err)
	}
	got := table([]result{good, missed})
	for _, want := range []string{"good  ≥ 0.95  0.96    0.50   2.00  met", "slow  ≥ 1.00  0.50    0.50   0.50  missed"} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
}
