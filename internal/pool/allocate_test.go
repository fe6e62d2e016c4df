package pool

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/shed"
)

func drawAllocation(t *rapid.T) allocation {
	used := rapid.SliceOfNDistinct(rapid.SampledFrom([]job.Priority{job.Critical, job.High, job.Normal, job.Low}), 1, 4, rapid.ID).Draw(t, "used")
	a := allocation{room: rapid.IntRange(0, 60).Draw(t, "room"), used: shed.Config{}.WithDefaults().For(used).PerMille}
	if len(used) > 1 {
		for p := range a.doorstep {
			a.doorstep[p] = rapid.IntRange(0, 3).Draw(t, "doorstep")
		}
	}
	least := 0
	for p := range a.reserve {
		if p > 0 {
			least += rapid.IntRange(0, 5).Draw(t, "reserve")
		}
		a.reserve[p] = least
	}
	for _, p := range used {
		a.held[p] = rapid.IntRange(0, 30).Draw(t, "held")
		a.waiting[p] = rapid.IntRange(0, a.held[p]).Draw(t, "waiting")
		a.requested[p] = rapid.IntRange(0, 30).Draw(t, "requested")
		a.backlog[p] = rapid.Uint64Range(0, 100).Draw(t, "backlog")
		a.promoted[p] = rapid.Bool().Draw(t, "promoted")
	}
	return a
}

func TestAllocate_staysWithinTheRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAllocation(t)
		ask, free, waking := allocate(a), a.room, 0
		for p := range ask {
			free -= a.held[p] - a.waiting[p]
		}
		all := free
		for _, p := range a.order() {
			free -= a.waiting[p]
			may := max(0, free-a.reserveOf(p), a.doorstep[p]-a.waiting[p])
			switch {
			case ask[p] < 0:
				t.Fatalf("asked for %d", ask[p])
			case ask[p] > 0 && a.used[p] == 0:
				t.Fatalf("asked a priority that is not in use: %v", ask)
			case ask[p] > 0 && a.requested[p]+ask[p] > may:
				t.Fatalf("priority %d may have %d more, and %d are asked for", p, may, a.requested[p]+ask[p])
			}
			if n := a.requested[p] + ask[p]; ask[p] > 0 && a.backlog[p] > 0 && n > a.doorstep[p]-a.waiting[p] {
				waking += n
			}
		}
		if waking > max(0, all) {
			t.Fatalf("priorities known to have jobs are asked for %d, free is %d", waking, all)
		}
	})
}

// TestAllocate_whoIsNotSettledYetCountsAtTheDoorstepToo: while the broker was slow
// to write down how jobs ended, one more was fetched for each that had run (found
// by sim, I14).
func TestAllocate_whoIsNotSettledYetCountsAtTheDoorstepToo(t *testing.T) {
	for _, c := range []struct{ unsettled, want int }{{10, 3}, {20, 3}, {21, 2}, {23, 0}, {100, 0}} {
		a := allocation{room: 10, doorstep: [job.Priorities]int{3, 1, 1, 1}, used: [job.Priorities]int{1000, 950, 850, 600}, held: [job.Priorities]int{c.unsettled}}
		if got := allocate(a)[job.Critical]; got != c.want {
			t.Errorf("with %d that run or are not settled %d more are asked for, want %d", c.unsettled, got, c.want)
		}
	}
}

func TestAllocate_leavesNoRoomUnasked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAllocation(t)
		ask, free, asked := allocate(a), a.room, 0
		for p := range ask {
			free -= a.held[p]
			asked += ask[p] + a.requested[p]
		}
		for p := range ask {
			if a.used[p] > 0 && free > a.reserve[p] && asked == 0 {
				t.Fatalf("free is %d, reserved of %d are %d, but nothing is asked for", free, p, a.reserve[p])
			}
		}
	})
}

func TestAllocate_aSinglePriorityGetsExactlyTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom([]job.Priority{job.Critical, job.High, job.Normal, job.Low}).Draw(t, "priority")
		a := allocation{room: rapid.IntRange(0, 49).Draw(t, "room"), used: shed.Config{}.WithDefaults().For([]job.Priority{p}).PerMille}
		a.held[p] = rapid.IntRange(0, a.room).Draw(t, "held")
		a.requested[p] = rapid.IntRange(0, a.room-a.held[p]).Draw(t, "requested")
		if got, want := allocate(a)[p], a.room-a.held[p]-a.requested[p]; got != want {
			t.Fatalf("asked for %d, want the %d that are missing", got, want)
		}
	})
}

func TestAllocate_theMoreImportantIsServedFirst(t *testing.T) {
	a := allocation{room: 10, used: shed.Config{}.WithDefaults().For([]job.Priority{job.High, job.Low}).PerMille}
	a.reserve[job.Low] = 1
	a.backlog[job.High], a.backlog[job.Low] = 100, 100
	if got := allocate(a); got[job.High] != 10 || got[job.Low] != 0 {
		t.Errorf("asked for %v, want all 10 of high", got)
	}
	a.backlog[job.High] = 0
	if got := allocate(a); got[job.High] != 5 || got[job.Low] != 9 {
		t.Errorf("asked for %v, want low but for what is reserved, and high to be woken by", got)
	}
}

func TestAllocate_aPriorityWithoutRoomHasOneOnTheDoorstep(t *testing.T) {
	a := allocation{room: 10, doorstep: [job.Priorities]int{1, 1, 1, 1}, used: shed.Config{}.WithDefaults().For([]job.Priority{job.High, job.Low}).PerMille}
	a.held[job.High] = 10
	a.backlog[job.High], a.backlog[job.Low] = 100, 100
	if got := allocate(a); got[job.High] != 1 || got[job.Low] != 1 {
		t.Errorf("asked for %v, want one of each to wait for its turn", got)
	}
	a.held[job.Low], a.waiting[job.Low] = 1, 1
	if got := allocate(a); got[job.High] != 1 || got[job.Low] != 0 {
		t.Errorf("asked for %v, want no second of low", got)
	}
}

func TestAllocate_thePromotedHaveAsMuchInHandAsThoseAbove(t *testing.T) {
	a := allocation{room: 10, used: shed.Config{}.WithDefaults().For([]job.Priority{job.Normal, job.Low}).PerMille}
	a.backlog[job.Normal], a.backlog[job.Low] = 100, 100
	a.reserve[job.Low] = 3
	for range 10 { // one permit at a time
		a.room = a.held[job.Normal] + a.held[job.Low] + 1
		a.promoted[job.Low] = true
		got := allocate(a)
		a.held[job.Normal] += got[job.Normal]
		a.held[job.Low] += got[job.Low]
	}
	if a.held[job.Normal] != 5 || a.held[job.Low] != 5 {
		t.Errorf("in hand are %v, want as many of both", a.held)
	}
}

// TestPromised_theOnlyPermitIsNotKeptForJobsNobodyWasAskedFor: while a target
// recovers the only permit is that of its probe. Kept for jobs in the stream that
// this pool had no room to ask for, it left those in hand waiting for ever (found
// by sim).
func TestPromised_theOnlyPermitIsNotKeptForJobsNobodyWasAskedFor(t *testing.T) {
	now := time.Now()
	p := New("p", Config{Concurrency: 20}.WithDefaults(), Deps{})
	p.limit, p.backlog[job.Critical] = 1, 12
	if got := p.promised(now); got != [job.Priorities]int{} {
		t.Errorf("%v are promised, want none", got)
	}
	p.requested[job.Critical], p.heard[job.Critical] = 1, now
	if got := p.promised(now); got != [job.Priorities]int{0, 1, 1, 1} {
		t.Errorf("%v are promised, want the one that was asked for", got)
	}
}
