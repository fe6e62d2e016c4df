package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/limiter"
)

// herd watches, at the target, what several replicas do to it once it is back.
type herd struct {
	interval time.Duration // of the ramp

	mu       sync.Mutex // guards all below
	back     time.Time  // first call that is answered
	running  int
	replicas map[string]*member
	peaks    []int // most calls at once, for each interval since back
	beyond   int   // most calls at once of a replica beyond what its ramp allows
}

// member is a replica as its target sees it.
type member struct {
	first             time.Time // first call since the target is back
	running, answered int
}

// early is how long before its first call reaches the target a ramp may have
// begun: it does when the breaker lets a probe through, and then a job has to be
// pulled.
const early = 30 * time.Millisecond

// serve answers as the wrapped answer does, and counts.
func (h *herd) serve(answer func(*http.Request) int) func(*http.Request) int {
	return func(r *http.Request) int {
		m := h.begin(r.URL.Path, time.Now())
		defer h.end(m)
		return answer(r)
	}
}

func (h *herd) begin(replica string, now time.Time) *member {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.back.IsZero() {
		h.back = now
	}
	m := h.replicas[replica]
	if m == nil {
		m = &member{first: now}
		h.replicas[replica] = m
	}
	m.running++
	h.running++
	h.beyond = max(h.beyond, m.running-h.allowed(m, now))
	slot := int(now.Sub(h.back) / h.interval)
	for len(h.peaks) <= slot {
		h.peaks = append(h.peaks, h.running)
	}
	h.peaks[slot] = max(h.peaks[slot], h.running)
	return m
}

func (h *herd) end(m *member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.running--
	m.answered++
	h.running--
}

// allowed is the ramp as seen from here: calls at once double at most once in
// an interval, and to twice as many only after as many were answered.
func (h *herd) allowed(m *member, now time.Time) int {
	steps := int((now.Sub(m.first) + early) / h.interval)
	return min(1+m.answered, 1<<min(steps, 30))
}

func (h *herd) seen() (peaks []int, beyond int, apart time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var first, last time.Time
	for _, m := range h.replicas {
		if first.IsZero() || m.first.Before(first) {
			first = m.first
		}
		if m.first.After(last) {
			last = m.first
		}
	}
	return h.peaks, h.beyond, last.Sub(first)
}

// stampede lets four replicas with a backlog wait for a target that is away for
// 15 s, and watches them when it is back.
func stampede(ctx context.Context, s *stage) ([]figure, error) {
	const replicas, concurrency, rate, service, lasts = 4, 64, 500, 50 * time.Millisecond, 15 * time.Second
	interval := limiter.Config{}.WithDefaults().RampInterval
	s.target.does(takes(service))
	for n := range replicas {
		err := s.start(ctx, fmt.Sprintf("targets: {t: {http: {url: %q}}}\n"+
			"pools: {p: {target: t, stream: JOBS, subjects: {normal: [jobs.p]}, concurrency: %d}}\n", fmt.Sprintf("%s/%d", s.url, n), concurrency))
		if err != nil {
			return nil, err
		}
	}
	var feeder sync.WaitGroup
	defer feeder.Wait() // after stopFeeding
	feeding, stopFeeding := context.WithCancel(ctx)
	defer stopFeeding()
	sent := make(chan map[string]time.Time, 1)
	feeder.Go(func() { sent <- s.feed(feeding, "jobs.p", "job", rate) })
	if err := pause(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	before, _ := s.target.counts()
	s.target.does(func(*http.Request) int { return http.StatusServiceUnavailable })
	if err := pause(ctx, lasts); err != nil {
		return nil, err
	}
	wasted, _ := s.target.counts()
	h := &herd{interval: interval, replicas: map[string]*member{}}
	s.target.does(h.serve(takes(service)))
	waiting, err := s.left(ctx)
	if err != nil {
		return nil, err
	}
	if err := until(ctx, time.Minute, "all breakers close", func() bool { return s.allClosed(ctx) }); err != nil {
		return nil, err
	}
	stopFeeding()
	jobs := <-sent
	if err := s.drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	dead, err := s.dead(ctx)
	if err != nil {
		return nil, err
	}
	peaks, beyond, apart := h.seen()
	return []figure{
		atMost("calls of a replica at once beyond its ramp", "", float64(beyond), 0),
		atMost("calls wasted in 15 s, of each replica", "", math.Ceil(float64(wasted-before)/replicas), 30),
		atMost("dead letters", "", float64(dead), 0),
		plain("jobs that waited", fmt.Sprint(waiting)),
		plain("first calls of the replicas, apart", apart.Round(time.Millisecond).String()),
		plain(fmt.Sprintf("most calls at once, by %s", interval), strings.Trim(fmt.Sprint(peaks[:min(len(peaks), 12)]), "[]")),
	}, s.reconcile(jobs)
}

func (s *stage) allClosed(ctx context.Context) bool {
	for _, r := range s.replicas {
		st, err := r.status(ctx)
		if err != nil || st.Targets[0].Breaker.State != admin.BreakerClosed {
			return false
		}
	}
	return true
}
