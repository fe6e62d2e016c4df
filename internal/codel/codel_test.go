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
			if !l.q.Push(l.now, 2, 100, l.now) {
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
		l.q.Push(l.now, 2, 100, l.now)
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

func TestQueue_isBounded(t *testing.T) {
	cfg := config()
	cfg.Capacity, cfg.Bytes = 3, 250
	q := codel.New[int](cfg)
	now := time.Unix(0, 0)
	if !q.Push(now, 0, 100, 1) || !q.Push(now, 0, 100, 2) || q.Push(now, 0, 100, 3) {
		t.Error("three of 100 bytes do not fit into 250")
	}
	if !q.Push(now, 0, 1, 3) || q.Push(now, 0, 1, 4) {
		t.Error("four do not fit into a capacity of three")
	}
	if got := q.Drain(); !slices.Equal(got, []int{1, 2, 3}) || q.Stats() != (codel.Stats{}) {
		t.Errorf("drained %v, left %+v", got, q.Stats())
	}
}

func TestQueue_anIdleTimeIsNoOverload(t *testing.T) {
	q := codel.New[int](config())
	now := time.Unix(0, 0)
	q.Push(now, 0, 1, 1)
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
		in := map[int]int{}          // class of those inside
		since := map[int]time.Time{} // and their arrival
		gone := func(id int) {
			if _, ok := in[id]; !ok {
				t.Fatalf("%d came out, and was not inside", id)
			}
			delete(in, id)
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				class := rapid.IntRange(0, 3).Draw(t, "class")
				if ok := q.Push(now, class, 1, next); ok != (len(in) < cfg.Capacity) {
					t.Fatalf("push is %v with %d of %d inside", ok, len(in), cfg.Capacity)
				} else if ok {
					in[next], since[next] = class, now
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
				for other, class := range in {
					if ok && class < in[id] {
						t.Fatalf("%d of class %d came before %d of class %d", id, in[id], other, class)
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
