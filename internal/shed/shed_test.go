package shed_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/shed"
)

func everyone() []job.Priority { return []job.Priority{job.Critical, job.High, job.Normal, job.Low} }

func TestRoom_withTheDefaultShares(t *testing.T) {
	shares := shed.Config{}.WithDefaults()
	for _, c := range []struct {
		name  string
		used  []job.Priority
		limit int
		held  [job.Priorities]int
		want  [job.Priorities]int
	}{
		{"idle", everyone(), 100, [4]int{}, [4]int{100, 95, 85, 60}},
		{"low is at its share", everyone(), 100, [4]int{0, 0, 0, 60}, [4]int{40, 35, 25, 0}},
		{"low is beyond its share", everyone(), 100, [4]int{0, 0, 0, 70}, [4]int{30, 25, 15, 0}},
		{"what is above takes nothing of the share below", everyone(), 100, [4]int{40, 0, 0, 0}, [4]int{60, 60, 60, 60}},
		{"full", everyone(), 100, [4]int{100, 0, 0, 0}, [4]int{0, 0, 0, 0}},
		{"a limit of one leaves room for everybody", everyone(), 1, [4]int{}, [4]int{1, 1, 1, 1}},
		{"one priority has it all", []job.Priority{job.Low}, 10, [4]int{}, [4]int{0, 0, 0, 10}},
		{"the highest that is used has it all", []job.Priority{job.Normal, job.Low}, 10, [4]int{}, [4]int{0, 0, 10, 6}},
		{"a burst of high finds room although low is at its share", everyone(), 100, [4]int{0, 35, 0, 60}, [4]int{5, 0, 0, 0}},
		{"the limit has shrunk: low goes on, nothing of it starts", everyone(), 50, [4]int{0, 0, 0, 45}, [4]int{5, 3, 0, 0}},
		{"high in use without critical", []job.Priority{job.High, job.Low}, 20, [4]int{0, 0, 0, 12}, [4]int{0, 8, 0, 0}},
		{"no limit left", everyone(), 0, [4]int{0, 0, 0, 3}, [4]int{}},
	} {
		if got := shares.For(c.used).Room(c.limit, c.held); got != c.want {
			t.Errorf("%s: room %v, want %v", c.name, got, c.want)
		}
	}
}

// TestRoom_ofTheSmallestShareIsNotNothing: a share too small to count per mille
// would pass for a priority that is not in use, and its jobs would never run.
func TestRoom_ofTheSmallestShareIsNotNothing(t *testing.T) {
	cfg := shed.Config{Shares: map[string]float64{"low": 0.0001}}.WithDefaults()
	cfg.Validate(func(field, message string) { t.Errorf("%s: %s", field, message) })
	if got := cfg.For(everyone()).Room(10, [4]int{}); got[job.Low] != 1 {
		t.Errorf("room %v, want one for low", got)
	}
}

// TestRoom_keepsItsGuarantees, those of the package comment.
func TestRoom_keepsItsGuarantees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		used := rapid.SliceOfNDistinct(rapid.SampledFrom(everyone()), 1, 4, rapid.ID).Draw(t, "used")
		cfg, above := shed.Config{Shares: map[string]float64{}}, 1.0
		for _, p := range everyone() {
			above *= rapid.Float64Range(0.01, 1).Draw(t, "share")
			cfg.Shares[p.String()] = above
		}
		shares, limit := cfg.For(used), rapid.IntRange(0, 200).Draw(t, "limit")
		var held [job.Priorities]int
		for _, p := range used {
			held[p] = rapid.IntRange(0, 80).Draw(t, "held")
		}
		room, less := shares.Room(limit, held), shares.Room(max(0, limit-1), held)
		total := 0
		for _, n := range held {
			total += n
		}
		last, top := limit, true
		for p, n := range room {
			if shares[p] == 0 {
				if n != 0 {
					t.Fatalf("room %v for a priority that is not used", room)
				}
				continue
			}
			if n < 0 || n > last {
				t.Fatalf("room %v grows towards the less important", room)
			}
			if n > 0 && total+n > limit && p == 0 {
				t.Fatalf("room %v, %d held, limit %d", room, total, limit)
			}
			if top && n != max(0, limit-total) {
				t.Fatalf("the highest has room for %d, want the %d that are free", n, limit-total)
			}
			if less[p] > n {
				t.Fatalf("a smaller limit gives more room: %v, %v", room, less)
			}
			if total == 0 && limit > 0 && n == 0 {
				t.Fatalf("an idle pool has no room for priority %d: %v", p, room)
			}
			last, top = n, false
		}
	})
}

func TestConfig_everyProblemIsReported(t *testing.T) {
	for _, c := range []struct {
		shares map[string]float64
		want   int
	}{
		{nil, 0},
		{map[string]float64{"low": 0.1}, 0},
		{map[string]float64{"low": 0.9}, 1},    // more than normal
		{map[string]float64{"urgent": 0.9}, 1}, // no such priority
		{map[string]float64{"normal": 0}, 1},   // would starve
		{map[string]float64{"critical": 2}, 1}, // more than there is
		{map[string]float64{"low": -1, "x": 1}, 2},
		{map[string]float64{"high": math.NaN()}, 1},
		{map[string]float64{"critical": math.Inf(1)}, 1},
	} {
		problems := 0
		shed.Config{Shares: c.shares}.WithDefaults().Validate(func(field, message string) {
			problems++
			if field == "" || message == "" {
				t.Errorf("%v: problem %q %q", c.shares, field, message)
			}
		})
		if problems != c.want {
			t.Errorf("%v: %d problems, want %d", c.shares, problems, c.want)
		}
	}
}
