package shed_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/shed"
)

// drawConfig draws shares that a configuration may have.
func drawConfig(t *rapid.T) shed.Config {
	cfg, above := shed.Config{Hard: true, Shares: map[string]float64{}}, 1.0
	for _, p := range everyone() {
		above *= rapid.Float64Range(1e-4, 1).Draw(t, "share of the one above")
		cfg.Shares[p.String()] = above
	}
	cfg.Validate(func(field, message string) { t.Fatalf("%s: %s", field, message) })
	return cfg
}

func drawUsed(t *rapid.T) []job.Priority {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(everyone()), 1, 4, rapid.ID).Draw(t, "used")
}

// part is share per mille of limit, rounded up.
func part(limit, share int) int { return (limit*share + 999) / 1000 }

func sum(counts []int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// TestPool_thatStartsOnlyWhatHasRoomKeepsTheShares plays a pool: jobs start
// where there is room and end when they like, and the limit moves. Whatever
// the order, nobody has taken more than may be.
func TestPool_thatStartsOnlyWhatHasRoomKeepsTheShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg, used := drawConfig(t), drawUsed(t)
		shares := cfg.For(used)
		limit := rapid.IntRange(0, 40).Draw(t, "limit")
		var held [job.Priorities]int
		start := func(p job.Priority, n int) {
			got := room(shares, limit, held)
			held[p] += min(n, got[p])
			if got[p] == 0 {
				return
			}
			for above, share := range shares.PerMille[:p+1] { // p is among those they have to leave room for
				if got := sum(held[above:]); share > 0 && got > part(limit, share) {
					t.Fatalf("%s and below have %d of %d, their share is %d per mille: %v", job.Priority(above), got, limit, share, held)
				}
			}
			if sum(held[:]) > limit {
				t.Fatalf("%v is more than the limit of %d", held, limit)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"start": func(t *rapid.T) {
				start(rapid.SampledFrom(used).Draw(t, "priority"), rapid.IntRange(1, 50).Draw(t, "jobs"))
			},
			"end": func(t *rapid.T) {
				p := rapid.SampledFrom(used).Draw(t, "priority")
				held[p] -= rapid.IntRange(0, held[p]).Draw(t, "jobs")
			},
			"limit": func(t *rapid.T) { limit = rapid.IntRange(0, 40).Draw(t, "limit") },
		})
	})
}

// TestRoom_leavesNothingIdleThatTheHighestCouldUse: whatever the others hold,
// what is free is free for the highest priority in use.
func TestRoom_leavesNothingIdleThatTheHighestCouldUse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		used := drawUsed(t)
		shares, limit := drawConfig(t).For(used), rapid.IntRange(0, 200).Draw(t, "limit")
		var held [job.Priorities]int
		top := used[0]
		for _, p := range used {
			held[p], top = rapid.IntRange(0, 80).Draw(t, "held"), min(top, p)
		}
		if got, want := room(shares, limit, held)[top], max(0, limit-sum(held[:])); got != want {
			t.Fatalf("%s has room for %d, want all %d that are free of %d: %v", top, got, want, limit, held)
		}
	})
}

func TestRoom_aloneEverybodyCanRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		used := drawUsed(t)
		shares, limit := drawConfig(t).For(used), rapid.IntRange(1, 200).Draw(t, "limit")
		got := room(shares, limit, [job.Priorities]int{})
		for _, p := range used {
			if got[p] < 1 || got[p] < part(limit, shares.PerMille[p]) {
				t.Fatalf("%s alone has room for %d of %d, its share is %d per mille", p, got[p], limit, shares.PerMille[p])
			}
		}
	})
}
