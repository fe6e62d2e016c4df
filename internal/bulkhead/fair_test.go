package bulkhead_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/bulkhead"
)

// tenants always have jobs that wait, each for a permit of its own.
type tenants struct {
	bulk *bulkhead.Bulkhead
	mu   sync.Mutex
	held [bulkhead.Keys]time.Duration
	ran  [bulkhead.Keys]int
	wg   sync.WaitGroup
}

// flood keeps n jobs of a key in hand until ctx ends.
func (w *tenants) flood(ctx context.Context, key uint8, n int, takes func() time.Duration) {
	c := bulkhead.Claim{Priority: 2, Key: key}
	for range n {
		w.wg.Go(func() {
			for w.bulk.Acquire(ctx, c) == nil {
				d := takes()
				<-time.After(d)
				w.bulk.Release(c)
				w.mu.Lock()
				w.held[key] += d
				w.ran[key]++
				w.mu.Unlock()
			}
		})
	}
}

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// share runs the bulkhead for a time and returns what part of the permits' time
// each of the first n keys had.
func (w *tenants) share(t *testing.T, lasts time.Duration, n int, start func(ctx context.Context)) []float64 {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	start(ctx)
	<-time.After(lasts)
	w.mu.Lock()
	held := w.held
	w.mu.Unlock()
	stop()
	w.wg.Wait()
	var all time.Duration
	for _, d := range held {
		all += d
	}
	part := make([]float64, n)
	for key := range part {
		part[key] = held[key].Seconds() / all.Seconds()
	}
	return part
}

func TestFair_permitsAreSharedByWeightHoweverManyWaitAndHoweverLongTheyTake(t *testing.T) {
	for _, c := range []struct {
		name    string
		limit   int
		weights [bulkhead.Keys]float64
		max     float64
		waiting []int
		takes   []time.Duration
		want    []float64
	}{
		{"a hundred against one", 8, [bulkhead.Keys]float64{}, 0, []int{100, 8}, []time.Duration{time.Second, time.Second}, []float64{0.5, 0.5}},
		{"long against short", 8, [bulkhead.Keys]float64{}, 0, []int{50, 50}, []time.Duration{time.Second, 10 * time.Millisecond}, []float64{0.5, 0.5}},
		{"by weight", 8, [bulkhead.Keys]float64{0: 3}, 0, []int{50, 50}, []time.Duration{time.Second, time.Second / 10}, []float64{0.75, 0.25}},
		{"by weight, one permit", 1, [bulkhead.Keys]float64{0: 4}, 0, []int{50, 50}, []time.Duration{time.Second, time.Second}, []float64{0.8, 0.2}},
		{"at most a half", 8, [bulkhead.Keys]float64{0: 1000}, 0.5, []int{50, 50}, []time.Duration{time.Second, time.Second}, []float64{0.5, 0.5}},
		{"the most only while others wait", 8, [bulkhead.Keys]float64{}, 0.5, []int{50}, []time.Duration{time.Second}, []float64{1}},
		{"who wants little gets it", 8, [bulkhead.Keys]float64{}, 0, []int{50, 1, 1}, []time.Duration{time.Second, time.Second, time.Second}, []float64{0.75, 0.125, 0.125}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &tenants{bulk: bulkhead.NewFair(c.limit, bulkhead.Fairness{Weights: c.weights, MaxShare: c.max})}
				got := w.share(t, 200*time.Second, len(c.want), func(ctx context.Context) {
					for key, n := range c.waiting {
						w.flood(ctx, uint8(key), n, always(c.takes[key]))
					}
				})
				for key, part := range got {
					if math.Abs(part-c.want[key]) > 0.06 {
						t.Errorf("key %d had %.3f of the permits, want %.3f of %v", key, part, c.want[key], got)
					}
				}
			})
		})
	}
}

// TestFair_jobsThatTakeNoTimeTakeTurns: nobody pays by the clock then.
func TestFair_jobsThatTakeNoTimeTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.NewFair(1, bulkhead.Fairness{Weights: [bulkhead.Keys]float64{1: 2}})
		b.TryAcquire(bulkhead.Claim{})
		var mu sync.Mutex
		var order []uint8
		var waiting sync.WaitGroup
		for _, key := range []uint8{7, 7, 7, 7, 7, 7, 1, 1, 1, 1, 1, 1} {
			waiting.Go(func() {
				c := bulkhead.Claim{Key: key}
				if b.Acquire(t.Context(), c) != nil {
					return
				}
				mu.Lock()
				order = append(order, key)
				mu.Unlock()
				b.Release(c)
			})
			synctest.Wait()
		}
		b.Release(bulkhead.Claim{})
		waiting.Wait()
		if want := []uint8{7, 1, 1, 7, 1, 1, 7, 1, 1, 7, 7, 7}; !slices.Equal(order, want) {
			t.Errorf("got %v, want %v", order, want)
		}
	})
}

// TestFair_whatNobodyElseWantedIsFree: a key that had the bulkhead to itself
// owes nothing, and one that stayed away has earned nothing.
func TestFair_whatNobodyElseWantedIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &tenants{bulk: bulkhead.NewFair(4, bulkhead.Fairness{})}
		got := w.share(t, 100*time.Second, 3, func(ctx context.Context) {
			w.flood(ctx, 1, 20, always(time.Second))
			<-time.After(1000 * time.Second)
			w.mu.Lock()
			w.held[1] = 0
			w.mu.Unlock()
			w.flood(ctx, 2, 20, always(time.Second))
		})
		if math.Abs(got[1]-0.5) > 0.05 {
			t.Errorf("who was alone before had %.3f of the permits, want half", got[1])
		}
	})
}

// debtor is the fair bulkhead as one would write it without a thought for cost:
// whoever holds permits pays at every instant.
type debtor struct {
	limit, arrived int
	max            float64
	weight         map[uint8]float64
	paid           map[uint8]float64
	holds          map[uint8]int
	waiting        []*claimant
	floor          float64
	used, usual    float64
}

func (m *debtor) reckoned(key uint8) float64 {
	return m.paid[key] + float64(m.holds[key])*m.usual/m.weight[key]
}

type claimant struct {
	key    uint8
	order  int
	cancel context.CancelFunc
	want   string
	mu     sync.Mutex
	got    string
}

func (c *claimant) ended() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got
}

func (m *debtor) pass(d time.Duration) {
	m.used += float64(m.inFlight()) * float64(d)
	if len(m.waiting) == 0 {
		return
	}
	for key, n := range m.holds {
		m.paid[key] += float64(n) * float64(d) / m.weight[key]
	}
}

func (m *debtor) inFlight() (n int) {
	for _, k := range m.holds {
		n += k
	}
	return n
}

func (m *debtor) join(c *claimant) {
	if !slices.ContainsFunc(m.waiting, func(w *claimant) bool { return w.key == c.key }) {
		if len(m.waiting) > 0 {
			least := math.Inf(1)
			for _, w := range m.waiting {
				least = min(least, m.paid[w.key])
			}
			m.floor = max(m.floor, least)
		}
		m.paid[c.key] = max(m.paid[c.key], m.floor)
	}
	m.arrived++
	c.order = m.arrived
	m.waiting = append(m.waiting, c)
}

func (m *debtor) grant() {
	for m.inFlight() < m.limit && len(m.waiting) > 0 {
		most := max(1, int(math.Ceil(m.max*float64(m.limit))))
		next := slices.MinFunc(m.waiting, func(a, b *claimant) int {
			for _, less := range []float64{
				float64(bit(m.max > 0 && m.holds[a.key] >= most) - bit(m.max > 0 && m.holds[b.key] >= most)),
				m.reckoned(a.key) - m.reckoned(b.key), float64(a.order - b.order),
			} {
				if less != 0 {
					return int(math.Copysign(1, less))
				}
			}
			return 0
		})
		m.floor = max(m.floor, m.paid[next.key])
		m.paid[next.key] += float64(time.Millisecond) / m.weight[next.key]
		m.leave(next, "granted")
		m.holds[next.key]++
	}
}

func (m *debtor) leave(c *claimant, how string) {
	c.want = how
	m.waiting = slices.DeleteFunc(m.waiting, func(w *claimant) bool { return w == c })
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestFair_isWhatPayingAtEveryInstantIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			f := bulkhead.Fairness{MaxShare: rapid.SampledFrom([]float64{0, 0.25, 0.5}).Draw(r, "max share")}
			m := &debtor{limit: rapid.IntRange(0, 4).Draw(r, "limit"), max: f.MaxShare, weight: map[uint8]float64{}, paid: map[uint8]float64{}, holds: map[uint8]int{}}
			for key := range uint8(5) {
				f.Weights[key] = rapid.SampledFrom([]float64{1, 2, 8}).Draw(r, "weight") // no rounding
				m.weight[key] = f.Weights[key]
			}
			bulk := bulkhead.NewFair(m.limit, f)
			var all []*claimant
			var running sync.WaitGroup
			defer running.Wait()
			defer func() {
				for _, c := range all {
					c.cancel()
				}
			}()
			r.Repeat(map[string]func(*rapid.T){
				"acquire": func(r *rapid.T) {
					ctx, cancel := context.WithCancel(t.Context())
					c := &claimant{key: rapid.Uint8Range(0, 4).Draw(r, "key"), cancel: cancel}
					all = append(all, c)
					if m.inFlight() < m.limit {
						m.holds[c.key]++ // nobody waits: it is free
						c.want = "granted"
					} else {
						m.join(c)
					}
					running.Go(func() {
						got := "cancelled"
						if bulk.Acquire(ctx, bulkhead.Claim{Priority: 1, Key: c.key}) == nil {
							got = "granted"
						}
						c.mu.Lock()
						c.got = got
						c.mu.Unlock()
					})
				},
				"release": func(r *rapid.T) {
					if key := rapid.Uint8Range(0, 4).Draw(r, "key"); m.holds[key] > 0 {
						m.holds[key]--
						m.usual, m.used = m.usual+(m.used-m.usual)/64, 0
						m.grant()
						bulk.Release(bulkhead.Claim{Priority: 1, Key: key})
					}
				},
				"cancel": func(r *rapid.T) {
					if n := len(m.waiting); n > 0 {
						c := m.waiting[rapid.IntRange(0, n-1).Draw(r, "waiter")]
						m.leave(c, "cancelled")
						c.cancel()
					}
				},
				"set limit": func(r *rapid.T) {
					m.limit = rapid.IntRange(0, 6).Draw(r, "limit")
					m.grant()
					bulk.SetLimit(m.limit)
				},
				"time passes": func(r *rapid.T) {
					d := time.Duration(rapid.IntRange(1, 1<<20).Draw(r, "d")) << 10
					m.pass(d)
					<-time.After(d)
				},
				"": func(r *rapid.T) {
					synctest.Wait()
					for i, c := range all {
						if got := c.ended(); got != c.want {
							r.Fatalf("claim %d of key %d is %q, want %q", i, c.key, got, c.want)
						}
					}
				},
			})
		})
	})
}

// TestFair_nobodyIsFartherBehindThanAJob: of two keys that always have somebody
// waiting none gets ahead by more than one job on each permit, whatever weights
// and jobs they have.
func TestFair_nobodyIsFartherBehindThanAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			limit := rapid.IntRange(1, 8).Draw(r, "limit")
			n := rapid.IntRange(2, 6).Draw(r, "keys")
			longest := time.Duration(rapid.IntRange(1, 1000).Draw(r, "longest")) * time.Millisecond
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
			var f bulkhead.Fairness
			for key := range n {
				f.Weights[key] = float64(rapid.IntRange(1, 10).Draw(r, "weight"))
			}
			w := &tenants{bulk: bulkhead.NewFair(limit, f)}
			var mu sync.Mutex
			w.share(t, 100*longest, n, func(ctx context.Context) {
				for key := range n {
					w.flood(ctx, uint8(key), 2*limit+2, func() time.Duration {
						mu.Lock()
						defer mu.Unlock()
						return longest/10 + time.Duration(rng.Int64N(int64(longest)))
					})
				}
			})
			least, most := math.Inf(1), 0.0
			for key := range n {
				had := w.held[key].Seconds() / f.Weights[key]
				least, most = min(least, had), max(most, had)
			}
			// What runs at the end is counted on one side only, and each start costs a millisecond.
			bound := 2.5*float64(limit)*1.1*longest.Seconds() + float64(slices.Max(w.ran[:]))/1000
			if most-least > bound {
				r.Fatalf("by weight the keys had %.3f to %.3f s of the permits, want no more than %.3f between them: %v %v", least, most, bound, w.held[:n], f.Weights[:n])
			}
		})
	})
}

func TestFair_refusesWhatMakesNoSense(t *testing.T) {
	mustPanic(t, "bulkhead: max share 1.5, want 0 to 1", func() { bulkhead.NewFair(1, bulkhead.Fairness{MaxShare: 1.5}) })
	mustPanic(t, "bulkhead: weight NaN, want 0 or more", func() {
		bulkhead.NewFair(1, bulkhead.Fairness{Weights: [bulkhead.Keys]float64{3: math.NaN()}})
	})
	mustPanic(t, "bulkhead: key 128, want 0 to 127", func() { bulkhead.New(1).TryAcquire(bulkhead.Claim{Key: 128}) })
}

func BenchmarkFair(b *testing.B) {
	for _, keys := range []int{1, 4, bulkhead.Keys} {
		b.Run(fmt.Sprintf("contended/keys=%d", keys), func(b *testing.B) {
			bulk := bulkhead.NewFair(4, bulkhead.Fairness{})
			b.ReportAllocs()
			b.SetParallelism(256)
			b.RunParallel(func(pb *testing.PB) {
				c := bulkhead.Claim{Priority: 2, Key: uint8(rand.IntN(keys))}
				for pb.Next() {
					if bulk.Acquire(b.Context(), c) == nil {
						bulk.Release(c)
					}
				}
			})
		})
	}
	b.Run("free", func(b *testing.B) {
		bulk := bulkhead.NewFair(64, bulkhead.Fairness{})
		b.ReportAllocs()
		for b.Loop() {
			if bulk.Acquire(b.Context(), bulkhead.Claim{Priority: 2}) == nil {
				bulk.Release(bulkhead.Claim{Priority: 2})
			}
		}
	})
}
