package fallback_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/fallback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func at(d time.Duration) time.Time { return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC).Add(d) }

func TestSwitch_whoHoldsItLongestIsShown(t *testing.T) {
	s := fallback.NewSwitch()
	s.Degrade(fallback.ByRate, at(0), at(30*time.Second), "rate")
	s.Degrade(fallback.ByOperator, at(time.Second), at(time.Minute), "deploy")
	s.Degrade(fallback.ByHealth, at(2*time.Second), time.Time{}, "ill")
	for _, c := range []struct {
		when time.Duration
		do   func()
		want fallback.State
	}{
		{3 * time.Second, func() {}, fallback.State{On: true, By: fallback.ByHealth, Since: at(2 * time.Second), Note: "ill"}},
		{4 * time.Second, func() { s.Resume(fallback.ByHealth) }, fallback.State{On: true, By: fallback.ByOperator, Since: at(time.Second), Until: at(time.Minute), Note: "deploy"}},
		{5 * time.Second, func() { s.Resume(fallback.ByOperator) }, fallback.State{On: true, By: fallback.ByRate, Since: at(0), Until: at(30 * time.Second), Note: "rate"}},
		{30 * time.Second, func() {}, fallback.State{}},
	} {
		c.do()
		if got := s.State(at(c.when)); got != c.want {
			t.Errorf("after %s: %+v, want %+v", c.when, got, c.want)
		}
	}
}

func TestSwitch_plannedBeginsAndEndsByItself(t *testing.T) {
	s := fallback.NewSwitch()
	s.Degrade(fallback.ByOperator, at(time.Hour), at(2*time.Hour), "night")
	if got, want := s.State(at(0)), (fallback.State{By: fallback.ByOperator, Planned: at(time.Hour), Until: at(2 * time.Hour), Note: "night"}); got != want {
		t.Errorf("before: %+v, want %+v", got, want)
	}
	if got := s.State(at(time.Hour)); !got.On || !got.Planned.IsZero() || got.Until != at(2*time.Hour) {
		t.Errorf("in it: %+v", got)
	}
	if got := s.State(at(2 * time.Hour)); got != (fallback.State{}) {
		t.Errorf("after: %+v", got)
	}
	s.Degrade(fallback.ByOperator, at(3*time.Hour), at(4*time.Hour), "night")
	s.Resume(fallback.ByOperator)
	if got := s.State(at(3 * time.Hour)); got != (fallback.State{}) {
		t.Errorf("a plan that was given up: %+v", got)
	}
}

func TestSwitch_saidAgainItKeepsItsBeginning(t *testing.T) {
	s := fallback.NewSwitch()
	s.Degrade(fallback.ByHealth, at(0), time.Time{}, "3 checks")
	s.Degrade(fallback.ByHealth, at(time.Minute), time.Time{}, "4 checks")
	if got := s.State(at(time.Hour)); got.Since != at(0) || got.Note != "4 checks" {
		t.Errorf("%+v", got)
	}
}

// TestSwitch_isOnWhileAnybodyHoldsIt compares it with a list of who said what.
func TestSwitch_isOnWhileAnybodyHoldsIt(t *testing.T) {
	type said struct{ from, until time.Time }
	rapid.Check(t, func(t *rapid.T) {
		s, model, now := fallback.NewSwitch(), map[fallback.By]said{}, at(0)
		who := rapid.SampledFrom([]fallback.By{fallback.ByOperator, fallback.ByHealth, fallback.ByRate})
		t.Repeat(map[string]func(*rapid.T){
			"degrade": func(t *rapid.T) {
				by, from := who.Draw(t, "by"), now.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "from"))*time.Second)
				var until time.Time
				if n := rapid.IntRange(0, 9).Draw(t, "lasts"); n > 0 {
					until = from.Add(time.Duration(n) * time.Second)
				}
				changed := s.Changed()
				s.Degrade(by, from, until, "")
				if old, ok := model[by]; ok && !old.from.After(from) && (old.until.IsZero() || from.Before(old.until)) {
					from = old.from
				}
				model[by] = said{from, until}
				select {
				case <-changed:
				default:
					t.Fatal("nobody was told")
				}
			},
			"resume": func(t *rapid.T) {
				by := who.Draw(t, "by")
				s.Resume(by)
				delete(model, by)
			},
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "ms")) * time.Millisecond)
			},
			"": func(t *rapid.T) {
				on, end := false, now
				for _, m := range model {
					if m.from.After(now) || !m.until.IsZero() && !now.Before(m.until) {
						continue
					}
					on = true
					if m.until.IsZero() || !end.IsZero() && m.until.After(end) {
						end = m.until
					}
				}
				got := s.State(now)
				if got.On != on || on && got.Until != end || on && !got.Planned.IsZero() || !on && !got.Since.IsZero() {
					t.Fatalf("%+v, want on %v until %s, of %v", got, on, end, model)
				}
			},
		})
	})
}
