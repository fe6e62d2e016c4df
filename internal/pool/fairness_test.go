package pool_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

// backlog is a stream with the jobs of tenants, one lot behind the other.
func backlog(lots ...lot) *stream {
	s := newStream(job.Normal, 0)
	s.roundTrip, s.again = time.Millisecond, true
	for _, l := range lots {
		for range l.jobs {
			n := len(s.jobs) + 1
			s.jobs = append(s.jobs, &job.Job{
				ID: fmt.Sprintf("%s-%d", l.tenant, n), Stream: "S", Sequence: uint64(n), Priority: job.Normal, Deliveries: 1,
				Enqueued: time.Now(), Header: tenant(l.tenant),
			})
		}
	}
	return s
}

type lot struct {
	tenant string
	jobs   int
}

func tenant(name string) job.Header {
	if name == "" {
		return nil
	}
	return job.Header{"workerd-key": {name}}
}

// ends notes when jobs ended, by tenant.
type ends struct {
	began time.Time
	mu    sync.Mutex
	last  map[string]time.Duration
	done  map[string]int
	aside int
	bad   []string
}

func watch(w *world) *ends {
	e := &ends{began: time.Now(), last: map[string]time.Duration{}, done: map[string]int{}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onReport = func(r pool.Report) {
		e.mu.Lock()
		defer e.mu.Unlock()
		whose, _, _ := strings.Cut(r.Job.ID, "-")
		switch {
		case r.Outcome.Action == job.Done:
			e.last[whose] = time.Since(e.began)
			e.done[whose]++
		case r.Outcome.Reason == job.Fairness:
			e.aside++
		case r.Outcome.Reason != job.Released:
			e.bad = append(e.bad, r.Job.ID+" "+string(r.Outcome.Reason))
		}
	}
	return e
}

func (e *ends) wait(t *testing.T, whose string, n int, most time.Duration) (time.Duration, bool) {
	t.Helper()
	for range 10_000 {
		<-time.After(most / 1000)
		e.mu.Lock()
		done, last := e.done[whose], e.last[whose]
		e.mu.Unlock()
		if done == n {
			return last, true
		}
		if time.Since(e.began) > most {
			return 0, false
		}
	}
	return 0, false
}

// TestFairness_tenBehindAHundredThousand is the story: one tenant has put a
// hundred thousand jobs before ten of another one. Each takes 50 ms, 16 run at
// once, so that the hundred thousand take 312 s.
func TestFairness_tenBehindAHundredThousand(t *testing.T) {
	for _, c := range []struct {
		name     string
		fairness pool.Fairness
		before   int
		within   time.Duration
		late     bool // it must not be
	}{
		{"not fair", pool.Fairness{}, 10_000, 25 * time.Second, true},
		{"looks all the way", pool.Fairness{By: "key", LookAhead: manyJobs}, manyJobs, 15 * time.Second, false},
		{"looks a thousand far", pool.Fairness{By: "key"}, 900, 500 * time.Millisecond, false},
		{"looks a thousand far, and that is not enough", pool.Fairness{By: "key"}, 10_000, 25 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := backlog(lot{"big", c.before}, lot{"small", 10}, lot{"big", 1000})
				w := start(t, pool.Config{Concurrency: 16, Fairness: c.fairness}, takes(50*time.Millisecond), s)
				e := watch(w)
				took, ok := e.wait(t, "small", 10, c.within)
				if ok == c.late {
					t.Errorf("the ten were done within %v: %v", c.within, ok)
				}
				all, ok := e.wait(t, "big", c.before+1000, 400*time.Second)
				calm := time.Duration(c.before+1010) * 50 * time.Millisecond / 16
				if !ok || all > calm*105/100+2*time.Second {
					t.Errorf("all were done after %v (%v), want about the %v they take", all, ok, calm)
				}
				t.Logf("the ten after %v, all after %v of %v, %d set aside", took, all, calm, e.aside)
				w.stop()
				if w.handler.most > 16 || len(e.bad) > 0 {
					t.Errorf("%d ran at once; %v", w.handler.most, e.bad)
				}
				if len(w.ledger.records) > 0 || w.ledger.writes > 0 {
					t.Errorf("%d records, %d writes, want none: nothing has failed", len(w.ledger.records), w.ledger.writes)
				}
			})
		})
	}
}

// TestFairness_byWeight: what two tenants that both have plenty get.
func TestFairness_byWeight(t *testing.T) {
	for _, c := range []struct {
		name     string
		fairness pool.Fairness
		tenants  [2]string
		want     float64 // of the first
	}{
		{"equal", pool.Fairness{By: "key"}, [2]string{"gold", "tin"}, 0.5},
		{"four to one", pool.Fairness{By: "key", Weights: map[string]int{"gold": 4}}, [2]string{"gold", "tin"}, 0.8},
		{"at most a half", pool.Fairness{By: "key", Weights: map[string]int{"gold": 1000}, MaxShare: 0.5}, [2]string{"gold", "tin"}, 0.5},
		{"without a key", pool.Fairness{By: "key", Weights: map[string]int{"": 3}}, [2]string{"", "tin"}, 0.75},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var lots []lot
				for range 40 {
					lots = append(lots, lot{c.tenants[0], 100}, lot{c.tenants[1], 150})
				}
				s := backlog(lots...)
				c.fairness.LookAhead = 10_000 // else it would see more of the one than it may give it
				w := start(t, pool.Config{Concurrency: 8, Fairness: c.fairness}, takes(50*time.Millisecond), s)
				e := watch(w)
				<-time.After(20 * time.Second)
				e.mu.Lock()
				first, all := e.done[c.tenants[0]], e.done[c.tenants[0]]+e.done[c.tenants[1]]
				e.mu.Unlock()
				if got := float64(first) / float64(all); got < c.want-0.05 || got > c.want+0.05 {
					t.Errorf("%q had %.3f of %d jobs, want %.2f", c.tenants[0], got, all, c.want)
				}
				w.stop()
			})
		})
	}
}

// TestFairness_anyBacklogIsDoneOnceAndNoLaterThanItTakes: whatever lies in the
// stream, and however long jobs take, everything is done once, nothing is
// charged, no permit is idle for long, and what is remembered stays bounded.
func TestFairness_anyBacklogIsDoneOnceAndNoLaterThanItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(hidden{t}, func(r *rapid.T) {
			var lots []lot
			n := 0
			for range rapid.IntRange(1, 8).Draw(r, "lots") {
				l := lot{fmt.Sprint("t", rapid.IntRange(0, 300).Draw(r, "tenant")), rapid.IntRange(1, 200).Draw(r, "jobs")}
				lots = append(lots, l)
				n += l.jobs
			}
			cfg := pool.Config{Concurrency: rapid.IntRange(1, 20).Draw(r, "concurrency"), Fairness: pool.Fairness{
				By: "key", LookAhead: rapid.IntRange(1, 500).Draw(r, "look ahead"), MaxShare: rapid.SampledFrom([]float64{0.01, 0.5, 1}).Draw(r, "max share"),
			}}
			took := time.Duration(rapid.IntRange(0, 200).Draw(r, "took")) * time.Millisecond
			s := backlog(lots...)
			w := start(t, cfg, takes(took), s)
			e := watch(w)
			for range n * 1000 {
				if time.Sleep(100 * time.Millisecond); s.count("ack") == n {
					break
				}
				if st := w.pool.Stats(); st.SetAside > cfg.Fairness.LookAhead || st.Waiting > cfg.Window() {
					r.Errorf("%d are set aside and %d wait", st.SetAside, st.Waiting)
				}
			}
			lasted := time.Since(e.began)
			w.stop()
			calm := time.Duration((n+cfg.Concurrency-1)/cfg.Concurrency) * took
			if s.count("ack") != n || lasted > calm*3/2+time.Duration(n)*2*time.Millisecond+2*time.Second {
				r.Errorf("%d of %d done after %v, want about %v", s.count("ack"), n, lasted, calm)
			}
			for id, verbs := range s.settled {
				if last := verbs[len(verbs)-1]; last != "ack" || strings.Count(strings.Join(verbs, " "), "ack") != 1 {
					r.Errorf("job %s was settled %v", id, verbs)
				}
			}
			if len(e.bad) > 0 || w.ledger.writes > 0 {
				r.Errorf("%v, %d writes", e.bad, w.ledger.writes)
			}
		})
	})
}

// hidden hides a test's deadline from rapid, which must not be asked for in a
// bubble.
type hidden struct{ rapid.TB }

// TestFairness_aFailedJobKeepsItsRecord, be it set aside or not.
func TestFairness_aFailedJobKeepsItsRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := backlog(lot{"big", 300})
		w := start(t, pool.Config{Concurrency: 4, Fairness: pool.Fairness{By: "key"}}, nil, s)
		var mu sync.Mutex
		attempts := map[string][]int{}
		w.handler.set(func(_ context.Context, j *job.Job, before job.Record) job.Outcome {
			<-time.After(20 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			attempts[j.ID] = append(attempts[j.ID], before.Attempts)
			if len(attempts[j.ID]) == 1 {
				return job.Outcome{Action: job.Retry, Reason: job.Status5xx, Charged: true, After: time.Second}
			}
			return job.Outcome{Action: job.Done, Reason: job.OK}
		})
		e := watch(w)
		e.wait(t, "big", 300, time.Minute)
		w.stop()
		for id, before := range attempts {
			if len(before) != 2 || before[0] != 0 || before[1] != 1 {
				t.Errorf("%s was run with %v attempts before, want 0 and 1", id, before)
			}
		}
		if e.aside == 0 || len(attempts) != 300 || len(w.ledger.records) != 0 {
			t.Errorf("%d set aside, %d ran, %d records left", e.aside, len(attempts), len(w.ledger.records))
		}
	})
}

// TestFairness_whoHasBegunIsNotSetAside: the mark that its run had left, as an
// earlier delivery had ended without a word, was not taken back; after three
// times it counted as one that kills its workers (found by sim, I12).
func TestFairness_whoHasBegunIsNotSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := backlog(lot{"big", 100}, lot{"small", 100})
		for _, j := range s.jobs {
			j.Deliveries = 2
		}
		w := start(t, pool.Config{Concurrency: 4, Fairness: pool.Fairness{By: "key"}}, nil, s)
		var mu sync.Mutex
		calls := map[string]int{}
		w.handler.set(func(_ context.Context, j *job.Job, before job.Record) job.Outcome {
			<-time.After(time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			if n := before.Crashes(j.Deliveries); n > 1 {
				t.Errorf("%s counts as one of which %d workers have died", j.ID, n)
			}
			if calls[j.ID]++; calls[j.ID] < 10 { // its target takes no more calls
				return job.Outcome{Action: job.Park, Reason: job.Limited, After: time.Millisecond}
			}
			return job.Outcome{Action: job.Done, Reason: job.OK}
		})
		e := watch(w)
		e.wait(t, "big", 100, time.Minute)
		e.wait(t, "small", 100, time.Minute)
		w.stop()
		if e.done["big"]+e.done["small"] != 200 || e.aside == 0 || len(w.ledger.records) != 0 {
			t.Errorf("%v done, %d set aside, records %v left", e.done, e.aside, w.ledger.records)
		}
	})
}
