package shed_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/shed"
)

func everyone() []job.Priority { return []job.Priority{job.Critical, job.High, job.Normal, job.Low} }

// room is what is left for each priority beside what is kept free of it.
func room(s shed.Shares, limit int, held [job.Priorities]int) (n [job.Priorities]int) {
	for p, kept := range s.Reserve(limit, held) {
		if s.PerMille[p] > 0 {
			n[p] = max(0, limit-sum(held[:])-kept)
		}
	}
	return n
}

func hard() shed.Config { return shed.Config{Hard: true}.WithDefaults() }

func TestRoom_withTheDefaultSharesHard(t *testing.T) {
	shares := hard()
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
		if got := room(shares.For(c.used), c.limit, c.held); got != c.want {
			t.Errorf("%s: room %v, want %v", c.name, got, c.want)
		}
	}
}

func TestReserve_lentSharesKeepASmallCushion(t *testing.T) {
	for _, c := range []struct {
		name  string
		used  []job.Priority
		limit int
		held  [job.Priorities]int
		want  [job.Priorities]int
	}{
		{"idle", everyone(), 100, [4]int{}, [4]int{0, 2, 2, 2}},
		{"low fills the pool", everyone(), 100, [4]int{0, 0, 0, 98}, [4]int{0, 2, 2, 2}},
		{"what is above has all its room already", everyone(), 100, [4]int{5, 35, 0, 0}, [4]int{0, 0, 0, 0}},
		{"only the part of its room that is missing", everyone(), 100, [4]int{4, 0, 0, 0}, [4]int{0, 1, 2, 2}},
		{"too small for one", everyone(), 49, [4]int{}, [4]int{}},
		{"nothing is kept of the highest in use", []job.Priority{job.Normal, job.Low}, 100, [4]int{}, [4]int{0, 0, 0, 2}},
	} {
		if got := (shed.Config{}).WithDefaults().For(c.used).Reserve(c.limit, c.held); got != c.want {
			t.Errorf("%s: reserve %v, want %v", c.name, got, c.want)
		}
	}
}

// TestRoom_ofTheSmallestShareIsNotNothing: a share too small to count per mille
// would pass for a priority that is not in use, and its jobs would never run.
func TestRoom_ofTheSmallestShareIsNotNothing(t *testing.T) {
	cfg := shed.Config{Hard: true, Shares: map[string]float64{"low": 0.0001}}.WithDefaults()
	cfg.Validate(func(field, message string) { t.Errorf("%s: %s", field, message) })
	if got := room(cfg.For(everyone()), 10, [4]int{}); got[job.Low] != 1 {
		t.Errorf("room %v, want one for low", got)
	}
}

// TestRoom_keepsItsGuarantees, those of the package comment.
func TestRoom_keepsItsGuarantees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		used := rapid.SliceOfNDistinct(rapid.SampledFrom(everyone()), 1, 4, rapid.ID).Draw(t, "used")
		cfg, above := shed.Config{Hard: rapid.Bool().Draw(t, "hard"), Shares: map[string]float64{}}, 1.0
		for _, p := range everyone() {
			above *= rapid.Float64Range(0.01, 1).Draw(t, "share")
			cfg.Shares[p.String()] = above
		}
		shares, limit := cfg.For(used), rapid.IntRange(0, 200).Draw(t, "limit")
		var held [job.Priorities]int
		for _, p := range used {
			held[p] = rapid.IntRange(0, 80).Draw(t, "held")
		}
		room, less, reserve := room(shares, limit, held), room(shares, max(0, limit-1), held), shares.Reserve(limit, held)
		total := 0
		for _, n := range held {
			total += n
		}
		last, top := limit, true
		for p, n := range room {
			if shares.PerMille[p] == 0 {
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
		if !slices.IsSorted(reserve[:]) || reserve[0] < 0 {
			t.Fatalf("reserve %v falls", reserve)
		}
		if !cfg.Hard && reserve[job.Low] > limit/50 {
			t.Fatalf("%v of %d are kept free although the shares lend", reserve, limit)
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
