package hedge_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/hedge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSpend_neverMoreThanTheBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		budget := float64(rapid.IntRange(1, 500).Draw(t, "per mille")) / 1000
		h := hedge.New(hedge.Config{After: "10ms", Budget: budget}, time.Second)
		calls, hedges := 0, 0
		for range 400 {
			if rapid.Bool().Draw(t, "call") {
				h.Begin()
				calls++
			} else if h.Spend() {
				hedges++
				if rapid.IntRange(0, 4).Draw(t, "refund") == 0 {
					h.Refund()
					hedges--
				}
			}
			if float64(hedges) > budget*float64(calls)+1e-6 {
				t.Fatalf("%d hedges of %d calls, want at most %v of them", hedges, calls, budget)
			}
		}
	})
}

func TestSpend_savesNoMoreThanABurst(t *testing.T) {
	h := hedge.New(hedge.Config{After: "10ms", Budget: 0.5}, time.Second)
	for range 1000 {
		h.Begin()
	}
	n := 0
	for h.Spend() {
		n++
	}
	if n != 10 {
		t.Errorf("%d hedges in a row, want 10", n)
	}
}

func TestBegin_thePercentileOfTheLastGoodCalls(t *testing.T) {
	h := hedge.New(hedge.Config{}.WithDefaults(), time.Second)
	for i := range 19 {
		h.Note(time.Duration(i+1) * time.Millisecond)
	}
	if d := h.Begin(); d != 0 {
		t.Errorf("after 19 calls %s, want nothing yet", d)
	}
	for i := range 500 {
		h.Note(time.Duration(i%100+1) * time.Millisecond)
	}
	if d := h.Begin(); d < 90*time.Millisecond || d > 100*time.Millisecond {
		t.Errorf("the 95th percentile of 1ms to 100ms is %s", d)
	}
	if d := hedge.New(hedge.Config{After: "200ms", Budget: 0.05}, time.Second).Begin(); d != 200*time.Millisecond {
		t.Errorf("got %s, want what is configured", d)
	}
}

func TestValidate(t *testing.T) {
	for after, want := range map[string]string{
		"p95": "", "p50": "", "1ms": "", "999ms": "", "p100": "after", "p9": "after", "p": "after", "1s": "after", "0": "after", "soon": "after",
	} {
		got := ""
		hedge.Config{After: after, Budget: 0.05}.Validate(time.Second, func(field, _ string) { got = field })
		if got != want {
			t.Errorf("%q: complains about %q, want %q", after, got, want)
		}
	}
	for _, budget := range []float64{-1, 0.0001, 0.51} {
		got := ""
		hedge.Config{After: "p95", Budget: budget}.Validate(time.Second, func(field, _ string) { got = field })
		if got != "budget" {
			t.Errorf("budget %v is accepted", budget)
		}
	}
}
