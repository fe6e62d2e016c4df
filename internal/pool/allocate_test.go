package pool

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/shed"
)

func drawAllocation(t *rapid.T) allocation {
	used := rapid.SliceOfNDistinct(rapid.SampledFrom([]job.Priority{job.Critical, job.High, job.Normal, job.Low}), 1, 4, rapid.ID).Draw(t, "used")
	a := allocation{
		limit:    rapid.IntRange(0, 40).Draw(t, "limit"),
		prefetch: rapid.IntRange(0, 20).Draw(t, "prefetch"),
		shares:   shed.Config{}.WithDefaults().For(used),
	}
	for _, p := range used {
		a.held[p] = rapid.IntRange(0, 30).Draw(t, "held")
		a.requested[p] = rapid.IntRange(0, 30).Draw(t, "requested")
		a.backlog[p] = rapid.Uint64Range(0, 100).Draw(t, "backlog")
	}
	return a
}

func TestAllocate_staysWithinTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAllocation(t)
		ask, room := allocate(a), a.shares.Room(a.limit+a.prefetch, a.held)
		free, waking := a.limit+a.prefetch, 0
		for _, n := range a.held {
			free -= n
		}
		for p := range ask {
			switch {
			case ask[p] < 0:
				t.Fatalf("asked for %d", ask[p])
			case ask[p] > 0 && a.shares[p] == 0:
				t.Fatalf("asked a priority that is not in use: %v", ask)
			case ask[p] > 0 && a.requested[p]+ask[p] > room[p]:
				t.Fatalf("priority %d has room for %d, and %d are asked for", p, room[p], a.requested[p]+ask[p])
			}
			if ask[p] > 0 && a.backlog[p] > 0 {
				waking += a.requested[p] + ask[p]
			}
		}
		if waking > max(0, free) {
			t.Fatalf("priorities known to have jobs are asked for %d, free is %d", waking, free)
		}
	})
}

func TestAllocate_leavesNoRoomUnasked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAllocation(t)
		ask, room := allocate(a), a.shares.Room(a.limit+a.prefetch, a.held)
		free, asked := a.limit+a.prefetch, 0
		for p := range ask {
			free -= a.held[p]
			asked += ask[p] + a.requested[p]
		}
		for p := range ask {
			if room[p] > 0 && free > 0 && asked == 0 {
				t.Fatalf("room %v and free %d, but nothing is asked for", room, free)
			}
		}
	})
}

func TestAllocate_aSinglePriorityGetsExactlyTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom([]job.Priority{job.Critical, job.High, job.Normal, job.Low}).Draw(t, "priority")
		a := allocation{limit: rapid.IntRange(0, 40).Draw(t, "limit"), prefetch: rapid.IntRange(0, 9).Draw(t, "prefetch"), shares: shed.Config{}.WithDefaults().For([]job.Priority{p})}
		a.held[p] = rapid.IntRange(0, a.limit+a.prefetch).Draw(t, "held")
		a.requested[p] = rapid.IntRange(0, a.limit+a.prefetch-a.held[p]).Draw(t, "requested")
		if got, want := allocate(a)[p], a.limit+a.prefetch-a.held[p]-a.requested[p]; got != want {
			t.Fatalf("asked for %d, want the %d that are missing", got, want)
		}
	})
}

func TestAllocate_theMoreImportantIsServedFirst(t *testing.T) {
	shares := shed.Config{}.WithDefaults().For([]job.Priority{job.High, job.Low})
	a := allocation{limit: 10, shares: shares}
	a.backlog[job.High], a.backlog[job.Low] = 100, 100
	if got := allocate(a); got[job.High] != 10 || got[job.Low] != 0 {
		t.Errorf("asked for %v, want all 10 of high", got)
	}
	a.backlog[job.High] = 0
	if got := allocate(a); got[job.High] != 5 || got[job.Low] != 6 {
		t.Errorf("asked for %v, want low up to its share, and high to be woken by", got)
	}
}
