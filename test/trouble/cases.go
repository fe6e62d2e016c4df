package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/admin"
)

// atMost makes a figure with a goal.
func atMost(what, unit string, value, goal float64) figure {
	return figure{what, fmt.Sprintf("≤ %g%s", goal, unit), fmt.Sprintf("%.3g%s", value, unit), value <= goal}
}

func atLeast(what, unit string, value, goal float64) figure {
	return figure{what, fmt.Sprintf("≥ %g%s", goal, unit), fmt.Sprintf("%.4g%s", value, unit), value >= goal}
}

func plain(what, value string) figure { return figure{what: what, value: value, met: true} }

// outage lets the target fail for 15 s at 500 jobs/s.
func outage(ctx context.Context, s *stage, hang bool) ([]figure, error) {
	const rate, lasts = 500, 15 * time.Second
	s.target.does(takes(5 * time.Millisecond))
	err := s.start(ctx, fmt.Sprintf("targets: {t: {http: {url: %q}, timeout: 2s}}\npools: {p: {target: t, stream: JOBS, subjects: {normal: [jobs.p]}, concurrency: 64}}\n", s.url))
	if err != nil {
		return nil, err
	}
	var feeder sync.WaitGroup
	defer feeder.Wait() // after stopFeeding
	feeding, stopFeeding := context.WithCancel(ctx)
	defer stopFeeding()
	sent := make(chan map[string]time.Time, 1)
	feeder.Go(func() { sent <- s.feed(feeding, "jobs.p", "job", rate) })
	if err := pause(ctx, 5*time.Second); err != nil {
		return nil, err
	}
	before, _ := s.target.counts()
	s.target.does(func(r *http.Request) int {
		if hang {
			<-r.Context().Done()
			return 0
		}
		return http.StatusServiceUnavailable
	})
	if err := pause(ctx, lasts); err != nil {
		return nil, err
	}
	wasted, _ := s.target.counts()
	s.target.does(takes(5 * time.Millisecond))
	recovered := time.Now()
	closed := func() bool {
		st, err := s.status(ctx)
		return err == nil && st.Targets[0].Breaker.State == admin.BreakerClosed
	}
	if err := until(ctx, time.Minute, "the breaker closes", closed); err != nil {
		return nil, err
	}
	noticed := time.Now()
	// The feeding goes on: drained is when no more waits than arrives in 50 ms.
	caughtUp := func() bool { n, err := s.left(ctx); return err == nil && n <= rate/20 }
	if err := until(ctx, time.Minute, "the backlog is worked off", caughtUp); err != nil {
		return nil, err
	}
	took := time.Since(noticed)
	stopFeeding()
	jobs := <-sent
	if err := s.drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	dead, err := s.dead(ctx)
	if err != nil {
		return nil, err
	}
	calls, _ := s.target.counts()
	return []figure{
		atMost("calls wasted in 15 s", "", float64(wasted-before), 30),
		atMost("backlog worked off after the breaker closed", " s", took.Seconds(), 2.5),
		atMost("dead letters", "", float64(dead), 0),
		atMost("calls per job", "", float64(calls)/float64(len(jobs)), 1.02),
		plain("jobs", fmt.Sprint(len(jobs))),
		plain("recovery noticed after", noticed.Sub(recovered).Round(time.Millisecond).String()),
	}, s.reconcile(jobs)
}

// lowFloor is what low priority gets at least of a pool that could be full
// without it, in per cent: of twenty permits that go past somebody one is his
// (internal/bulkhead), and normal is passed over as well.
const lowFloor = 2

// overload offers several times what a pool can do, a fifth of its capacity as
// high, the rest normal and low.
func overload(ctx context.Context, s *stage, times int) ([]figure, error) {
	// Slow enough for two cores: what is to be seen is who gets the target, not
	// how fast publisher, broker and target together are. A call takes between
	// half of the service time and one and a half.
	const concurrency, service, calm, storm = 20, 50 * time.Millisecond, 10 * time.Second, 20 * time.Second
	const capacity, high = concurrency * int(time.Second/service), concurrency * int(time.Second/service) / 5
	s.target.does(func(r *http.Request) int { return takes(service/2 + rand.N(service))(r) })
	err := s.start(ctx, fmt.Sprintf("targets: {t: {http: {url: %q}}}\npools: {p: {target: t, stream: JOBS, concurrency: %d, "+
		"subjects: {high: [jobs.high], normal: [jobs.normal], low: [jobs.low]}}}\n", s.url, concurrency))
	if err != nil {
		return nil, err
	}
	phase := func(name string, lasts time.Duration, rates map[string]int) map[string]map[string]time.Time {
		ctx, cancel := context.WithTimeout(ctx, lasts)
		defer cancel()
		var mu sync.Mutex
		var feeders sync.WaitGroup
		all := map[string]map[string]time.Time{}
		for class, rate := range rates {
			feeders.Go(func() {
				sent := s.feed(ctx, "jobs."+class, name+"-"+class, rate)
				mu.Lock()
				defer mu.Unlock()
				all[class] = sent
			})
		}
		feeders.Wait()
		return all
	}
	quiet := phase("calm", calm, map[string]int{"high": high, "normal": capacity / 5})
	if err := s.drained(ctx, time.Minute); err != nil {
		return nil, err
	}
	_, before := s.target.counts()
	began := time.Now()
	rest := times*capacity - high
	loud := phase("storm", storm, map[string]int{"high": high, "normal": rest / 2, "low": rest / 2})
	_, after := s.target.counts()
	lasted := time.Since(began).Seconds()
	low := s.doneOf(loud["low"], time.Now())
	s.target.does(takes(time.Millisecond)) // what is left says nothing of the storm; only the books are to balance
	if err := s.drained(ctx, 5*time.Minute); err != nil {
		return nil, err
	}
	calmP99, stormP99 := s.p99(quiet["high"]), s.p99(loud["high"])
	return []figure{
		atLeast("high done within a second", " %", 100*s.inTime(loud["high"], time.Second), 99.9),
		atMost("p99 of high ÷ that of a calm time", "", stormP99.Seconds()/calmP99.Seconds(), 1.2),
		atLeast("goodput ÷ capacity", " %", 100*float64(after-before)/lasted/float64(capacity), 95),
		plain("p99 of high, calm and storm", fmt.Sprintf("%s, %s", calmP99.Round(time.Millisecond), stormP99.Round(time.Millisecond))),
		atLeast("low, of what the storm let through", " %", 100*float64(low)/float64(after-before), lowFloor),
		plain("jobs published in the storm", fmt.Sprintf("%d high, %d normal, %d low", len(loud["high"]), len(loud["normal"]), len(loud["low"]))),
	}, s.reconcile(quiet["high"], quiet["normal"], loud["high"], loud["normal"], loud["low"])
}

// waits are the times from publication to the end of each job, sorted.
func (s *stage) waits(sent map[string]time.Time) []time.Duration {
	s.target.mu.Lock()
	defer s.target.mu.Unlock()
	var list []time.Duration
	for id, at := range sent {
		wait := time.Duration(math.MaxInt64)
		if done := s.target.done[id]; len(done) > 0 {
			wait = done[0].Sub(at)
		}
		list = append(list, wait)
	}
	slices.Sort(list)
	return list
}

func (s *stage) p99(sent map[string]time.Time) time.Duration {
	list := s.waits(sent)
	return list[len(list)*99/100]
}

func (s *stage) inTime(sent map[string]time.Time, limit time.Duration) float64 {
	list := s.waits(sent)
	n, _ := slices.BinarySearch(list, limit)
	return float64(n) / float64(len(list))
}

func (s *stage) doneOf(sent map[string]time.Time, by time.Time) (n int) {
	s.target.mu.Lock()
	defer s.target.mu.Unlock()
	for id := range sent {
		if done := s.target.done[id]; len(done) > 0 && done[0].Before(by) {
			n++
		}
	}
	return n
}

// deadTarget leaves a pool with a backlog in front of a target that is gone.
func deadTarget(ctx context.Context, s *stage, lasts time.Duration) ([]figure, error) {
	s.target.does(func(*http.Request) int { return http.StatusServiceUnavailable })
	err := s.start(ctx, fmt.Sprintf("targets: {t: {http: {url: %q}}}\npools: {p: {target: t, stream: JOBS, subjects: {normal: [jobs.p]}, concurrency: 16}}\n", s.url))
	if err != nil {
		return nil, err
	}
	feeding, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	sent := s.feed(feeding, "jobs.p", "job", 1000)
	calls, opened, err := s.whileOpen(ctx)
	if err != nil {
		return nil, err
	}
	cpu := s.cpu()
	if err := pause(ctx, lasts); err != nil {
		return nil, err
	}
	used := (s.cpu() - cpu).Seconds() / lasts.Seconds()
	after, opens, err := s.whileOpen(ctx)
	if err != nil {
		return nil, err
	}
	s.target.does(takes(time.Millisecond))
	if err := s.drained(ctx, 15*time.Minute); err != nil {
		return nil, err
	}
	dead, err := s.dead(ctx)
	if err != nil {
		return nil, err
	}
	return []figure{
		atMost("CPU, of one core", " %", 100*used, 2),
		atMost("dead letters", "", float64(dead), 0),
		atMost("calls that were no probe", "", float64(after-calls-(opens-opened)), 0),
		plain("calls in "+lasts.String(), fmt.Sprint(after-calls)),
	}, s.reconcile(sent)
}

// whileOpen is how many calls there were so far, and how often the breaker has
// opened in a row, at a time at which none is under way.
func (s *stage) whileOpen(ctx context.Context) (calls, opens int, err error) {
	err = until(ctx, time.Minute, "the breaker is open", func() bool {
		before, err := s.status(ctx)
		if err != nil {
			return false
		}
		calls, _ = s.target.counts()
		after, err := s.status(ctx)
		b, a := before.Targets[0].Breaker, after.Targets[0].Breaker
		opens = a.Opens
		return err == nil && b.State == admin.BreakerOpen && b.Since.Equal(a.Since) && a.State == b.State
	})
	return calls, opens, err
}
