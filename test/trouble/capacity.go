package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// steps of the capacity: so many calls at once, for so long.
func steps() []step {
	return []step{{100, 30 * time.Second}, {20, 40 * time.Second}, {100, 50 * time.Second}}
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
	feeding, cancel := context.WithCancel(ctx)
	defer cancel()
	var feeder sync.WaitGroup
	defer feeder.Wait()
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
		err = os.WriteFile(plot, []byte(svg(samples)), 0o600)
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

// svg draws the capacity and the limit over time.
func svg(samples []sample) string {
	const width, height, left, most = 720, 260, 40, 210.0
	x := func(i int) float64 { return left + float64(i)*(width-left-10)/float64(len(samples)) }
	y := func(v int) float64 { return height - 30 - min(float64(v), most)*(height-50)/most }
	line := func(of func(sample) int) string {
		var points []string
		for i, m := range samples {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(i), y(of(m))))
		}
		return strings.Join(points, " ")
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	for _, v := range []int{0, 50, 100, 150, 200} {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#555">%d</text>`+"\n",
			left, width-10, y(v), y(v), left-6, y(v)+4, v)
	}
	for i := 0; i <= len(samples); i += 20 {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%d s</text>`+"\n", x(i), height-10, i)
	}
	fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="#999" stroke-width="2" stroke-dasharray="6 4"/>`+"\n", line(func(m sample) int { return m.capacity }))
	fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="#06c" stroke-width="2"/>`+"\n", line(func(m sample) int { return m.limit }))
	fmt.Fprintf(&b, `<text x="%d" y="16" fill="#06c">limit found by workerd</text><text x="%d" y="16" fill="#777">capacity of the target</text>`+"\n</svg>\n", left+10, left+180)
	return b.String()
}
