package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// sizes of a run.
type sizes struct {
	// limit of the whole run; each case takes its share and stops before it.
	limit     time.Duration
	rounds    int // at most
	instant   int // jobs per turn for an instant downstream
	seconds   int // of work per turn for a downstream of 50 ms
	isolation int // jobs per turn with and without a hanging neighbor
}

func full() sizes {
	return sizes{limit: 4 * time.Minute, rounds: 7, instant: 40_000, seconds: 4, isolation: 8_000}
}

func small() sizes {
	return sizes{limit: 45 * time.Second, rounds: 3, instant: 10_000, seconds: 1, isolation: 3_000}
}

// rounds lets the sides take turns, each round beginning with another one. It
// returns the measurements of each side. There is at least one round, and none
// that would not fit into the time.
func (b *bench) rounds(ctx context.Context, n int, until time.Time, sides ...side) ([][]measurement, error) {
	got := make([][]measurement, len(sides))
	var longest time.Duration
	for round := range n {
		began := time.Now()
		if round > 0 && began.Add(longest).After(until) {
			break
		}
		for i := range sides {
			k := (i + round) % len(sides)
			m, err := b.turn(ctx, sides[k])
			if err != nil {
				return nil, err
			}
			got[k] = append(got[k], m)
		}
		longest = max(longest, time.Since(began))
	}
	return got, nil
}

// all runs every case, each within its share of the time.
func (b *bench) all(ctx context.Context, s sizes) ([]result, error) {
	var results []result
	deadline := time.Now()
	for _, c := range []struct {
		what  string
		share float64
		run   func(context.Context, sizes, time.Time) ([]result, error)
	}{
		{"instant downstream, 1 KiB, concurrency 64", 0.40, b.instant},
		{"50 ms downstream, concurrency 200", 0.33, b.efficiency},
		{"two pools, one target hangs", 0.27, b.isolation},
	} {
		began := time.Now()
		deadline = deadline.Add(time.Duration(c.share * float64(s.limit)))
		got, err := c.run(ctx, s, deadline)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.what, err)
		}
		fmt.Fprintf(os.Stderr, "%-42s %d rounds in %s\n", c.what, len(got[0].ratios), time.Since(began).Round(time.Second))
		results = append(results, got...)
	}
	return results, nil
}

// instant is the case in which only our own cost counts.
func (b *bench) instant(ctx context.Context, s sizes, until time.Time) ([]result, error) {
	l := load{path: "/work", concurrency: 64}
	workerd, confirmed, plain := b.workerd(ctx, l, false), b.loop(ctx, l, true), b.loop(ctx, l, false)
	got, err := b.rounds(
		ctx, s.rounds, until,
		side{jobs: s.instant, command: workerd}, side{jobs: s.instant, command: confirmed}, side{jobs: s.instant, command: plain},
		side{jobs: 1, command: workerd}, side{jobs: 1, command: plain},
	)
	if err != nil {
		return nil, err
	}
	return instantResults(got[0], got[1], got[2], [2][]measurement{got[3], got[4]}), nil
}

func instantResults(ours, confirmed, plain []measurement, one [2][]measurement) []result {
	speed := func(m measurement) float64 { return m.perSecond }
	cpu := func(m measurement) float64 { return micros(m.cpu) / float64(m.jobs) }
	broker := func(m measurement) float64 { return micros(m.broker) / float64(m.jobs) }
	peak := func(m measurement) float64 { return float64(m.peak) / (1 << 20) }
	start := func(m measurement) float64 { return micros(m.cpu) / 1e3 }
	return []result{
		{name: "throughput ÷ loop, its acks confirmed", ratios: ratios(ours, confirmed, speed), reach: 1, note: compared("jobs/s", speed, ours, confirmed)},
		{name: "throughput ÷ loop, plain acks", ratios: ratios(ours, plain, speed), reach: 1, note: compared("jobs/s", speed, ours, plain)},
		{name: "CPU per job ÷ loop, its acks confirmed", ratios: ratios(ours, confirmed, cpu), reach: 1, atMost: true, note: compared("µs", cpu, ours, confirmed)},
		{name: "CPU per job ÷ loop, plain acks", ratios: ratios(ours, plain, cpu), reach: 1, atMost: true, note: compared("µs", cpu, ours, plain)},
		{name: "broker's CPU per job ÷ loop, confirmed", ratios: ratios(ours, confirmed, broker), note: compared("µs", broker, ours, confirmed)},
		{name: "broker's CPU per job ÷ loop, plain", ratios: ratios(ours, plain, broker), note: compared("µs", broker, ours, plain)},
		{name: "peak memory ÷ loop, plain acks", ratios: ratios(ours, plain, peak), note: compared("MiB", peak, ours, plain)},
		{name: "CPU to start, do one job, stop ÷ loop", ratios: ratios(one[0], one[1], start), note: compared("ms", start, one[0], one[1])},
	}
}

// efficiency is how much of the slots' time is used when the calls take long.
// It is no ratio of two sides: a busy machine lowers it. The loop shows by how
// much.
func (b *bench) efficiency(ctx context.Context, s sizes, until time.Time) ([]result, error) {
	const takes = 50 * time.Millisecond
	l := load{path: "/work?ms=50", concurrency: 200}
	allowed := float64(l.concurrency) / takes.Seconds()
	jobs := int(allowed) * s.seconds
	got, err := b.rounds(
		ctx, s.rounds, until,
		side{jobs: jobs, command: b.workerd(ctx, l, false)}, side{jobs: jobs, command: b.loop(ctx, l, false)},
	)
	if err != nil {
		return nil, err
	}
	whole := func(m measurement) float64 { return m.perSecond / allowed }
	middle := func(m measurement) float64 { return m.middle / allowed }
	service := func(m measurement) float64 { return micros(m.service) / 1e3 }
	return []result{
		{name: "efficiency, whole run", ratios: values(got[0], whole), reach: 0.97, note: fmt.Sprintf("a call took the downstream %.1f ms", median(values(got[0], service)))},
		{name: "efficiency, middle 80 %", ratios: values(got[0], middle), reach: 0.97},
		{name: "efficiency ÷ the loop's, whole run", ratios: ratios(got[0], got[1], whole)},
		{name: "the loop's efficiency, whole run", ratios: values(got[1], whole), note: fmt.Sprintf("a call took the downstream %.1f ms", median(values(got[1], service)))},
		{name: "the loop's efficiency, middle 80 %", ratios: values(got[1], middle)},
	}, nil
}

// isolation is the one that must hold.
func (b *bench) isolation(ctx context.Context, s sizes, until time.Time) ([]result, error) {
	l := load{path: "/work?ms=5", concurrency: 20}
	got, err := b.rounds(
		ctx, s.rounds, until,
		side{jobs: s.isolation, command: b.workerd(ctx, l, true), hanging: hangingSlots, exit: interrupted},
		side{jobs: s.isolation, command: b.workerd(ctx, l, false)},
	)
	if err != nil {
		return nil, err
	}
	speed := func(m measurement) float64 { return m.perSecond }
	return []result{{
		name: "throughput beside a hanging target ÷ alone", ratios: ratios(got[0], got[1], speed), reach: 0.95, must: true,
		note: compared("jobs/s", speed, got[0], got[1]) + ", longest pause " + longest(got[0]).String(),
	}}, nil
}

// longest pause of all turns.
func longest(ms []measurement) time.Duration {
	d := time.Duration(0)
	for _, m := range ms {
		d = max(d, m.pause)
	}
	return d.Round(time.Millisecond)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// compared gives the absolute medians behind a ratio.
func compared(unit string, of func(measurement) float64, ours, theirs []measurement) string {
	return fmt.Sprintf("%.0f and %.0f %s", median(values(ours, of)), median(values(theirs, of)), unit)
}
