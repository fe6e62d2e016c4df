package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// steps of the capacity: so many calls at once, for so long.
func steps() []step {
	return []step{{100, 30 * time.Second}, {20, 40 * time.Second}, {100, 60 * time.Second}}
}

type step struct {
	capacity int
	lasts    time.Duration
}

// sample of one second.
type sample struct {
	capacity, limit int
	goodput         int
}

// capacity lets a target refuse what is beyond its capacity, which changes.
func capacity(ctx context.Context, s *stage, plot string) ([]figure, error) {
	const service, demand = 50 * time.Millisecond, 200
	var mu sync.Mutex
	can, running := steps()[0].capacity, 0
	s.target.does(func(r *http.Request) int {
		mu.Lock()
		if running >= can {
			mu.Unlock()
			return http.StatusTooManyRequests
		}
		running++
		mu.Unlock()
		defer func() { mu.Lock(); running--; mu.Unlock() }()
		return takes(service)(r)
	})
	// A breaker would open at half of the calls refused: that is another story.
	err := s.start(ctx, fmt.Sprintf("targets: {t: {http: {url: %q}, retry: {max_attempts: 1}, breaker: {throttled: ignore}}}\n"+
		"pools: {p: {target: t, stream: JOBS, subjects: {normal: [jobs.p]}, concurrency: %d, redelivery: {initial_backoff: 1s, max_backoff: 2s}}}\n", s.url, demand))
	if err != nil {
		return nil, err
	}
	var feeder sync.WaitGroup
	defer feeder.Wait() // after cancel
	feeding, cancel := context.WithCancel(ctx)
	defer cancel()
	feeder.Go(func() { s.feed(feeding, "jobs.p", "job", 2500) }) // more than it ever can do
	var samples []sample
	var figures []figure
	for _, st := range steps() {
		mu.Lock()
		can = st.capacity
		mu.Unlock()
		got, err := s.watchLimit(ctx, st)
		if err != nil {
			return figures, err
		}
		samples = append(samples, got...)
		figures = append(figures, settled(st, got, service)...)
	}
	if plot != "" {
		err = os.WriteFile(plot, []byte(svg(samples, service)), 0o600)
	}
	return figures, err
}

func (s *stage) watchLimit(ctx context.Context, st step) (samples []sample, err error) {
	_, before := s.target.counts()
	for range int(st.lasts / time.Second) {
		if err := pause(ctx, time.Second); err != nil {
			return samples, err
		}
		status, err := s.status(ctx)
		if err != nil {
			return samples, err
		}
		_, done := s.target.counts()
		samples = append(samples, sample{st.capacity, status.Targets[0].Limit.Now, done - before})
		before = done
	}
	return samples, nil
}

// settled is how the last 15 seconds of a step were.
func settled(st step, samples []sample, service time.Duration) []figure {
	last := samples[max(0, len(samples)-15):]
	var limits []int
	done := 0
	for _, m := range last {
		limits = append(limits, m.limit)
		done += m.goodput
	}
	can := float64(st.capacity) * float64(len(last)) / service.Seconds()
	name := fmt.Sprintf("capacity %d: ", st.capacity)
	return []figure{
		plain(name+"limit", fmt.Sprintf("%d to %d", slices.Min(limits), slices.Max(limits))),
		plain(name+"goodput ÷ capacity", fmt.Sprintf("%.0f %%", 100*float64(done)/can)),
	}
}
