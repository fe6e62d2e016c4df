package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/nats-io/nats.go"
)

// sizes of a run.
type sizes struct {
	rounds    int
	instant   int // jobs per side and round for an instant downstream
	seconds   int // of work for a downstream of 50 ms
	isolation int // jobs with and without a hanging neighbor
}

func full() sizes  { return sizes{rounds: 5, instant: 30_000, seconds: 5, isolation: 8_000} }
func small() sizes { return sizes{rounds: 3, instant: 6_000, seconds: 2, isolation: 3_000} }

// result is a line of the table: the ratios of all rounds.
type result struct {
	name   string
	ratios []float64
	// reach is the goal; more is better, or less if atMost is set.
	reach  float64
	atMost bool
	// must: a miss fails the run.
	must bool
	note string
}

// side is one of the two that take turns.
type side struct {
	jobs   int
	cmd    func() (*exec.Cmd, error)
	before func(ctx context.Context) error // after the stream was filled
}

// rounds lets the sides take turns, each round beginning with another one.
func (b *bench) rounds(ctx context.Context, n int, sides ...side) ([][]measurement, error) {
	got := make([][]measurement, len(sides))
	for round := range n {
		for i := range sides {
			k := (i + round) % len(sides)
			m, err := b.turn(ctx, sides[k])
			if err != nil {
				return nil, err
			}
			got[k] = append(got[k], m)
		}
	}
	return got, nil
}

func (b *bench) turn(ctx context.Context, s side) (measurement, error) {
	if err := b.fill(ctx, s.jobs); err != nil {
		return measurement{}, err
	}
	if s.before != nil {
		if err := s.before(ctx); err != nil {
			return measurement{}, err
		}
	}
	cmd, err := s.cmd()
	if err != nil {
		return measurement{}, err
	}
	return b.measure(ctx, s.jobs, cmd)
}

// all runs every case.
func (b *bench) all(ctx context.Context, s sizes) ([]result, error) {
	var results []result
	for _, c := range []struct {
		what string
		run  func(context.Context, sizes) ([]result, error)
	}{
		{"instant downstream, 1 KiB, concurrency 64", b.instant},
		{"50 ms downstream, concurrency 200", b.latency},
		{"two pools, one target hangs", b.isolation},
	} {
		began := time.Now()
		got, err := c.run(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.what, err)
		}
		fmt.Fprintf(os.Stderr, "%-45s %s\n", c.what, time.Since(began).Round(time.Second))
		results = append(results, got...)
	}
	return results, nil
}

func (b *bench) instant(ctx context.Context, s sizes) ([]result, error) {
	const concurrency = 64
	rival := func(confirm bool) side {
		return side{jobs: s.instant, cmd: func() (*exec.Cmd, error) { return b.loop(ctx, "/work", concurrency, confirm) }}
	}
	got, err := b.rounds(ctx, s.rounds,
		side{jobs: s.instant, cmd: func() (*exec.Cmd, error) { return b.workerd(ctx, "/work", concurrency) }}, rival(true), rival(false))
	if err != nil {
		return nil, err
	}
	ours, confirmed, plain := got[0], got[1], got[2]
	speed := func(m measurement) float64 { return m.perSecond }
	cpu := func(m measurement) float64 { return float64(m.cpu) }
	return []result{
		{
			name: "throughput ÷ loop with confirmed acks", ratios: ratios(ours, confirmed, speed), reach: 1,
			note: fmt.Sprintf("%.0f and %.0f jobs/s", median(values(ours, speed)), median(values(confirmed, speed))),
		},
		{
			name: "throughput ÷ loop with plain acks", ratios: ratios(ours, plain, speed), reach: 1,
			note: fmt.Sprintf("%.0f jobs/s; its acks may be lost", median(values(plain, speed))),
		},
		{
			name: "CPU per job ÷ loop with confirmed acks", ratios: ratios(ours, confirmed, cpu), reach: 1, atMost: true,
			note: fmt.Sprintf("%.0f and %.0f µs", median(values(ours, cpu))/1e3, median(values(confirmed, cpu))/1e3),
		},
		{
			name: "CPU per job ÷ loop with plain acks", ratios: ratios(ours, plain, cpu), reach: 1, atMost: true,
			note: fmt.Sprintf("%.0f µs", median(values(plain, cpu))/1e3),
		},
		{
			name: "peak memory ÷ loop with confirmed acks", ratios: ratios(ours, confirmed, func(m measurement) float64 { return float64(m.peak) }),
			note: fmt.Sprintf("%.0f MiB", median(values(ours, func(m measurement) float64 { return float64(m.peak) }))/(1<<20)),
		},
	}, nil
}

func (b *bench) latency(ctx context.Context, s sizes) ([]result, error) {
	const concurrency, takes = 200, 50 * time.Millisecond
	ideal := concurrency / takes.Seconds()
	jobs := int(ideal) * s.seconds
	got, err := b.rounds(ctx, s.rounds, side{jobs: jobs, cmd: func() (*exec.Cmd, error) { return b.workerd(ctx, "/work?ms=50", concurrency) }})
	if err != nil {
		return nil, err
	}
	var share []float64
	for _, m := range got[0] {
		share = append(share, m.perSecond/ideal)
	}
	return []result{{name: "throughput ÷ what 200 slots of 50 ms allow", ratios: share, reach: 0.97}}, nil
}

func (b *bench) isolation(ctx context.Context, s sizes) ([]result, error) {
	const concurrency = 20
	alone := side{jobs: s.isolation, cmd: func() (*exec.Cmd, error) { return b.workerd(ctx, "/work?ms=5", concurrency) }}
	beside := side{
		jobs: s.isolation, cmd: func() (*exec.Cmd, error) { return b.workerd(ctx, "/work?ms=5", concurrency, "hang") },
		before: func(context.Context) error {
			for range 500 {
				if err := b.nc.PublishMsg(&nats.Msg{Subject: "jobs.hang"}); err != nil {
					return err
				}
			}
			return b.nc.Flush()
		},
	}
	got, err := b.rounds(ctx, s.rounds, beside, alone)
	if err != nil {
		return nil, err
	}
	speed := func(m measurement) float64 { return m.perSecond }
	return []result{{name: "throughput beside a hanging target ÷ alone", ratios: ratios(got[0], got[1], speed), reach: 0.95, must: true}}, nil
}
