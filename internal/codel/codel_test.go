package codel_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/codel"
)

func config() codel.Config {
	return codel.Config{Capacity: 1000, Bytes: 1 << 20, Target: 100 * time.Millisecond, Interval: 100 * time.Millisecond}
}

// load runs arrivals and departures at fixed rates for a while.
type load struct {
	q       *codel.Queue[time.Time]
	now     time.Time
	refused int
	expired int
	waits   []time.Duration
}

func newLoad(cfg codel.Config) *load {
	return &load{q: codel.New[time.Time](cfg), now: time.Unix(0, 0)}
}

// run lets an item arrive every in, and one be taken every out.
func (l *load) run(in, out, lasts time.Duration) {
	end, arrives, leaves := l.now.Add(lasts), l.now, l.now
	for ; l.now.Before(end); l.now = l.now.Add(time.Millisecond) {
		for ; !arrives.After(l.now); arrives = arrives.Add(in) {
			if _, ok := l.q.Push(l.now, codel.RankOf(2, 0), 100, l.now); !ok {
				l.refused++
			}
		}
		for ; !leaves.After(l.now); leaves = leaves.Add(out) {
			since, ok, expired := l.q.Next(l.now)
			l.expired += len(expired)
			if ok {
				l.waits = append(l.waits, l.now.Sub(since))
			}
		}
	}
}

func TestQueue_aBurstIsBufferedAndNothingExpires(t *testing.T) {
	l := newLoad(config())
	for range 50 { // 50 at once are 500 ms of work
		l.q.Push(l.now, codel.RankOf(2, 0), 100, l.now)
	}
	l.run(20*time.Millisecond, 2*time.Millisecond, time.Second)
	if l.expired != 0 || l.refused != 0 || len(l.waits) != 100 {
		t.Errorf("%d expired, %d refused, %d done, want all 100 done", l.expired, l.refused, len(l.waits))
	}
}

func TestQueue_underOverloadWhatIsDoneIsFreshAndNothingIdles(t *testing.T) {
	l := newLoad(config())
	l.run(5*time.Millisecond, 10*time.Millisecond, 10*time.Second)
	if len(l.waits) < 990 {
		t.Errorf("%d were done, want the 1000 there was time for", len(l.waits))
	}
	late := 0
	for _, w := range l.waits[100:] {
		if w > 2*config().Target {
			late++
		}
	}
	if late > 0 {
		t.Errorf("%d of what was done had waited longer than twice the target", late)
	}
	if slices.Sort(l.waits[100:]); l.waits[100:][450] > 10*time.Millisecond {
		t.Errorf("half of what is done has waited for %v, want the newest to go first", l.waits[100:][450])
	}
	before := l.expired
	l.run(20*time.Millisecond, 10*time.Millisecond, 10*time.Second)
	if n := l.expired - before; n > 30 {
		t.Errorf("%d expired after the overload, want only what was left over", n)
	}
	if l.q.Stats().Overloaded {
		t.Error("it is still overloaded when half of its time is free")
	}
}

// push tells what was given up, and whether there was room.
func push(q *codel.Queue[int], now time.Time, class, level int, size int64, value int) (givenUp []int, ok bool) {
	return q.Push(now, codel.RankOf(class, level), size, value)
}

func TestQueue_isBounded(t *testing.T) {
	cfg := config()
	cfg.Capacity, cfg.Bytes = 3, 250
	q, now := codel.New[int](cfg), time.Unix(0, 0)
	for i, c := range []struct {
		size int64
		ok   bool
	}{{100, true}, {100, true}, {100, false}, {1, true}, {1, false}} {
		if _, ok := push(q, now, 0, 0, c.size, i); ok != c.ok {
			t.Errorf("item %d of %d bytes: %v, want %v", i, c.size, ok, c.ok)
		}
	}
	if got := q.Drain(); !slices.Equal(got, []int{0, 1, 3}) || q.Stats() != (codel.Stats{}) {
		t.Errorf("drained %v, left %+v", got, q.Stats())
	}
}

func TestQueue_makesRoomForWhatIsOfHigherRank(t *testing.T) {
	cfg := config()
	cfg.Capacity, cfg.Bytes = 5, 1000
	q, now := codel.New[int](cfg), time.Unix(0, 0)
	for i, at := range [][2]int{{3, 5}, {3, 100}, {2, 7}, {3, 100}, {0, 0}} { // class, level
		push(q, now, at[0], at[1], 100, i)
	}
	for i, c := range []struct {
		name         string
		class, level int
		size         int64
		givenUp      []int
		ok           bool
	}{
		{"of the lowest rank itself", 3, 100, 1, nil, false},
		{"lower than all", 3, 127, 1, nil, false},
		{"the oldest of the lowest goes", 3, 99, 100, []int{1}, true},
		{"of another class", 2, 127, 100, []int{3}, true},
		{"a large one takes the places of several", 0, 0, 800, []int{12, 0, 13}, true},
		{"what cannot make room stays", 0, 1, 950, nil, false},
		{"larger than all there is", 0, 0, 1001, nil, false},
	} {
		givenUp, ok := push(q, now, c.class, c.level, c.size, 10+i)
		if ok != c.ok || !slices.Equal(givenUp, c.givenUp) {
			t.Errorf("%s: gave up %v (%v), want %v (%v)", c.name, givenUp, ok, c.givenUp, c.ok)
		}
	}
}

func TestQueue_anIdleTimeIsNoOverload(t *testing.T) {
	q := codel.New[int](config())
	now := time.Unix(0, 0)
	push(q, now, 0, 0, 1, 1)
	if _, ok, expired := q.Next(now.Add(time.Hour)); !ok || len(expired) > 0 {
		t.Error("the first that is asked for after an hour has expired")
	}
}

// TestQueue_everythingComesOutOnce, whatever is done in whatever order.
func TestQueue_everythingComesOutOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := config()
		cfg.Capacity = rapid.IntRange(1, 20).Draw(t, "capacity")
		q, now, next := codel.New[int](cfg), time.Unix(0, 0), 0
		in := map[int]codel.Rank{}   // of those inside
		since := map[int]time.Time{} // and their arrival
		gone := func(id int) {
			if _, ok := in[id]; !ok {
				t.Fatalf("%d came out, and was not inside", id)
			}
			delete(in, id)
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				rank := codel.RankOf(rapid.IntRange(0, 3).Draw(t, "class"), rapid.SampledFrom([]int{0, 1, 62, 63, 64, 65, 126, 127}).Draw(t, "level"))
				givenUp, ok := q.Push(now, rank, 1, next)
				lowest := rank
				for _, r := range in {
					lowest = max(lowest, r)
				}
				switch full := len(in) == cfg.Capacity; {
				case !full && (!ok || len(givenUp) > 0):
					t.Fatalf("there was room: %v, gave up %v", ok, givenUp)
				case full && ok != (lowest > rank):
					t.Fatalf("%v for rank %d, the lowest is %d", ok, rank, lowest)
				case full && ok && (len(givenUp) != 1 || in[givenUp[0]] != lowest):
					t.Fatalf("gave up %v, not one of the lowest rank %d", givenUp, lowest)
				}
				for _, id := range givenUp {
					for other, r := range in {
						if r == in[id] && other < id {
							t.Fatalf("gave up %d, though %d of its rank is older", id, other)
						}
					}
					gone(id)
				}
				if ok {
					in[next], since[next] = rank, now
				}
				next++
			},
			"next": func(t *rapid.T) {
				id, ok, expired := q.Next(now)
				for _, e := range expired {
					if age := now.Sub(since[e]); age <= 2*cfg.Target {
						t.Fatalf("%d expired after %v", e, age)
					}
					gone(e)
				}
				if ok != (len(in) > 0) {
					t.Fatalf("next is %v with %d inside", ok, len(in))
				}
				for other, rank := range in {
					if !ok || other == id {
						continue
					}
					switch mine, overloaded := in[id], q.Stats().Overloaded; {
					case rank/codel.Levels < mine/codel.Levels:
						t.Fatalf("%d of rank %d came before %d of rank %d", id, mine, other, rank)
					case rank/codel.Levels > mine/codel.Levels:
					case overloaded && (rank < mine || rank == mine && other > id), !overloaded && other < id:
						t.Fatalf("%d of rank %d came before %d of rank %d, overloaded: %v", id, mine, other, rank, overloaded)
					}
				}
				if ok {
					gone(id)
				}
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 150).Draw(t, "ms")) * time.Millisecond)
			},
			"": func(*rapid.T) {},
		})
		for _, id := range q.Drain() {
			gone(id)
		}
		if len(in) > 0 {
			t.Fatalf("%v never came out", in)
		}
	})
}

// TestInvariant31_partialSheddingHitsTheSameTenants: with three times as much
// as can be done, of 60 tenants a third is served all the time, and the others
// not at all: but for those on the edge nobody is served now and then.
func TestInvariant31_partialSheddingHitsTheSameTenants(t *testing.T) {
	const tenants, lasts = 60, 20_000 // ms
	q, now := codel.New[int](config()), time.Unix(0, 0)
	var asked, done [tenants]int
	total := 0
	for ms := range lasts {
		now = now.Add(time.Millisecond)
		for i := range 3 { // each of them every 20 ms
			tenant := (3*ms + i) % tenants
			q.Push(now, codel.RankOf(2, 2*tenant), 100, tenant)
			if ms > lasts/4 {
				asked[tenant]++
			}
		}
		if tenant, ok, _ := q.Next(now); ok && ms > lasts/4 {
			done[tenant]++
			total++
		}
	}
	if all := lasts * 3 / 4; total < all-1 {
		t.Errorf("%d were done, there was time for %d", total, all)
	}
	edge := 0
	for tenant := range tenants {
		switch share := float64(done[tenant]) / float64(asked[tenant]); {
		case share > 0.99 && tenant < tenants/3+1, share < 0.01 && tenant >= tenants/3-1:
		default:
			edge++
			t.Logf("tenant %d: %.0f %% done", tenant, 100*share)
		}
	}
	if edge > 2 {
		t.Errorf("%d tenants are served now and then", edge)
	}
}
