package shed_test

import (
	"testing"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/shed"
)

// TestInvariant28_roomFallsWithImportanceAndIsWithinTheLimit: for all sets of
// priorities in use, small limits and jobs in hand, with the default shares.
// (That no more start is the promise of limiter and bulkhead.)
func TestInvariant28_roomFallsWithImportanceAndIsWithinTheLimit(t *testing.T) {
	const limits, most = 25, 4 // jobs of a priority in hand
	for _, cfg := range []shed.Config{shed.Config{}.WithDefaults(), hard()} {
		for set := 1; set < 1<<job.Priorities; set++ {
			var used []job.Priority
			for _, p := range everyone() {
				if set&(1<<p) != 0 {
					used = append(used, p)
				}
			}
			shares := cfg.For(used)
			for held := range inHand(used, most) {
				for limit := range limits {
					rooms, above := room(shares, limit, held), limit
					for _, p := range used {
						n := rooms[p]
						if n < 0 || n > above || n > max(0, limit-sum(held[:])) {
							t.Fatalf("limit %d, in hand %v, in use %v, hard %v: room %v", limit, held, used, cfg.Hard, rooms)
						}
						above = n
					}
				}
			}
		}
	}
}

// inHand yields each way in which 0 to most jobs of these priorities are held.
func inHand(used []job.Priority, most int) func(func([job.Priorities]int) bool) {
	return func(yield func([job.Priorities]int) bool) {
		var held [job.Priorities]int
		for {
			if !yield(held) {
				return
			}
			i := 0
			for ; i < len(used) && held[used[i]] == most; i++ {
				held[used[i]] = 0
			}
			if i == len(used) {
				return
			}
			held[used[i]]++
		}
	}
}
