package pool_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

// overload is a load on a pool, in parts of what it can do.
type overload struct {
	concurrency int
	offered     [job.Priorities]float64
	mean        time.Duration // of a job; each takes half of it to half as much again
	roundTrip   time.Duration // to the broker
	lasts       time.Duration
}

// result is what became of a load.
type result struct {
	goodput float64 // part of the capacity that worked
	done    [job.Priorities]int
	latency [job.Priorities][]time.Duration // publication to end
}

func (r result) quantile(p job.Priority, q float64) time.Duration {
	l := slices.Sorted(slices.Values(r.latency[p]))
	if len(l) == 0 {
		return 0
	}
	return l[min(len(l)-1, int(q*float64(len(l))))]
}

// share of what was done that was of this priority.
func (r result) share(p job.Priority) float64 {
	all := 0
	for _, n := range r.done {
		all += n
	}
	return float64(r.done[p]) / float64(all)
}

// run offers the load in a bubble. Jobs arrive at random, as those of many
// publishers do.
func (o overload) run(t *testing.T) (r result) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		var streams []*stream
		for p := range job.Priority(job.Priorities) {
			s := newStream(p, 0)
			s.roundTrip = o.roundTrip
			streams = append(streams, s)
		}
		takes := func(*job.Job) time.Duration { return time.Duration((0.5 + rng.Float64()) * float64(o.mean)) }
		durations := map[string]time.Duration{}
		w := start(t, pool.Config{Concurrency: o.concurrency, Redelivery: pool.Redelivery{MaxAge: 1000 * time.Hour}}, nil, streams...)
		w.handler.set(func(_ context.Context, j *job.Job, _ job.Record) job.Outcome {
			w.handler.mu.Lock()
			d := durations[j.ID]
			w.handler.mu.Unlock()
			time.Sleep(d)
			return job.Outcome{Action: job.Done, Reason: job.OK}
		})
		began := time.Now()
		warm := o.lasts / 5
		var mu sync.Mutex // guards worked and r until all have ended
		var worked time.Duration
		w.onReport = func(rep pool.Report) {
			if rep.Received.Sub(began) < warm {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			worked += rep.Took
			p := rep.Job.Priority
			r.done[p]++
			r.latency[p] = append(r.latency[p], time.Since(rep.Job.Enqueued))
		}
		perSecond := float64(o.concurrency) / o.mean.Seconds()
		next := [job.Priorities]time.Time{}
		for p := range next {
			next[p] = began
		}
		for seq := 0; ; seq++ {
			first := -1
			for p, rate := range o.offered {
				if rate > 0 && (first < 0 || next[p].Before(next[first])) {
					first = p
				}
			}
			if next[first].Sub(began) > o.lasts {
				break
			}
			time.Sleep(time.Until(next[first]))
			j := &job.Job{ID: fmt.Sprint(seq), Stream: "S", Sequence: uint64(seq), Priority: job.Priority(first), Deliveries: 1, Enqueued: time.Now()}
			w.handler.mu.Lock()
			durations[j.ID] = takes(j)
			w.handler.mu.Unlock()
			streams[first].publish(j)
			next[first] = next[first].Add(time.Duration(rng.ExpFloat64() / (perSecond * o.offered[first]) * float64(time.Second)))
		}
		mu.Lock()
		r.goodput = worked.Seconds() / (o.lasts - warm).Seconds() / float64(o.concurrency)
		mu.Unlock()
		w.stop()
		w.settledOnce()
	})
	return r
}

// TestOverload_highIsInTimeNothingIdlesAndLowIsNotStarved: the three goals at
// once, whatever the mix. A pool of less than 16 cannot have all three: a
// permit that waits for high is a large part of it.
func TestOverload_highIsInTimeNothingIdlesAndLowIsNotStarved(t *testing.T) {
	for _, c := range []struct {
		name        string
		concurrency int
		offered     [job.Priorities]float64
	}{
		{"times 3", 16, [4]float64{0, 0.2, 0.8, 2}},
		{"times 10", 16, [4]float64{0, 0.5, 3, 6.5}},
		{"times 10, four priorities", 100, [4]float64{0.05, 0.45, 3, 6.5}},
		{"times 10, but for high all low", 100, [4]float64{0, 0.2, 0, 9.8}},
		{"times 3, low alone", 16, [4]float64{0, 0, 0, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := overload{concurrency: c.concurrency, mean: 50 * time.Millisecond, roundTrip: time.Millisecond, lasts: 10 * time.Second}
			if o.offered = c.offered; c.concurrency < 100 { // as many jobs, or p99 is chance
				o.lasts *= 3
			}
			got := o.run(t)
			o.offered[job.Normal], o.offered[job.Low] = 0, 0
			t.Logf("goodput %.3f, shares of it high %.3f, normal %.3f, low %.3f", got.goodput, got.share(job.High), got.share(job.Normal), got.share(job.Low))
			if got.goodput < 0.95 {
				t.Errorf("goodput is %.3f of the capacity, want 0.95", got.goodput)
			}
			if got.share(job.Low) < 0.02 {
				t.Errorf("%.3f of what was done is low, want at least 0.02", got.share(job.Low))
			}
			if c.offered[job.High] == 0 {
				return
			}
			calm := o.run(t)
			p99, before := got.quantile(job.High, 0.99), calm.quantile(job.High, 0.99)
			t.Logf("high: p99 %v, calm %v; p99.9 %v", p99.Round(time.Millisecond), before.Round(time.Millisecond), got.quantile(job.High, 0.999).Round(time.Millisecond))
			if p99 > before*12/10 {
				t.Errorf("p99 of high is %v, want at most 1.2 of the %v it is without the others", p99, before)
			}
			if worst := got.quantile(job.High, 0.999); worst > 4*o.mean {
				t.Errorf("p99.9 of high is %v, want at most four jobs' time", worst)
			}
		})
	}
}
