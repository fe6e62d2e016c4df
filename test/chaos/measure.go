package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// stalled is the figure that tells how late the harness was run at most.
const stalled = "harness stall max"

// watchDelay measures how late the harness itself is run: what the machine
// adds to every figure. The function it returns ends it and gives the longest.
func watchDelay() func() time.Duration {
	const tick = 10 * time.Millisecond
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var most time.Duration
	wg.Go(func() {
		timer := time.NewTimer(tick)
		defer timer.Stop()
		for {
			due := time.Now().Add(tick)
			select {
			case <-stop:
				return
			case <-timer.C:
			}
			most = max(most, time.Since(due))
			timer.Reset(tick)
		}
	})
	return func() time.Duration {
		close(stop)
		wg.Wait()
		return most
	}
}

const resume = "resume after broker kill"

// measure takes latencies from the books.
func (w *world) measure(r *result, b *books) {
	calls := map[string][]call{}
	for _, c := range b.Calls {
		calls[c.ID] = append(calls[c.ID], c)
	}
	for _, of := range calls {
		slices.SortFunc(of, func(x, y call) int { return cmp.Compare(x.Began, y.Began) })
	}
	var rescued, back, resumed []time.Duration
	for _, f := range b.Faults {
		switch {
		case f.Kind == "workerd SIGKILL":
			rescued = append(rescued, next(b.Seed, calls, f)...)
		case strings.HasPrefix(f.Kind, "workerd SIGTERM"):
			back = append(back, next(b.Seed, calls, f)...)
		case f.Kind == "broker SIGKILL" || f.Kind == "broker SIGKILL, leader":
			if d, ok := b.resumed(f.Ended); ok {
				resumed = append(resumed, d)
			} else if _, bound := w.bounds[resume+" max"]; bound {
				r.Problems = append(r.Problems, fmt.Sprintf("%s at %s was not measured", resume, round(f.Began)))
			}
		}
	}
	figures(r, "rescue after SIGKILL", rescued)
	figures(r, "hand-back on SIGTERM", back)
	figures(r, resume, resumed)
	r.keeps(w.bounds, !w.unjudged)
}

// most that is allowed for a machine that ran the harness late: with more, a
// bound would be none.
const most = time.Second

// keeps compares figures with their bounds. The machine may run workerd and the
// broker as late as it ran the harness at worst, and a bound is that much
// longer. A figure that was not measured is no fault of the machine.
func (r *result) keeps(bounds map[string]float64, judged bool) {
	for _, name := range slices.Sorted(maps.Keys(bounds)) {
		got, ok := r.Figures[name]
		text := fmt.Sprintf("%s is %.3f, may be %.3f at most (the harness was run up to %.3f late)", name, got, bounds[name], r.Figures[stalled])
		switch {
		case !ok:
			r.Problems = append(r.Problems, name+" was not measured")
		case got <= bounds[name]:
		case !judged:
			r.Notes = append(r.Notes, text+": not judged")
		case got <= bounds[name]+min(r.Figures[stalled], most.Seconds()):
			r.Notes = append(r.Notes, text+": no later than that")
		default:
			r.Late = append(r.Late, text)
		}
	}
}

func figures(r *result, name string, of []time.Duration) {
	if len(of) == 0 {
		return
	}
	slices.Sort(of)
	r.Figures[name+" n"] = float64(len(of))
	r.Figures[name+" median"] = of[len(of)/2].Seconds()
	r.Figures[name+" p99"] = of[len(of)*99/100].Seconds()
	r.Figures[name+" max"] = of[len(of)-1].Seconds()
}

// next is, for the calls that a fault broke off, how long after their end the
// job was called again. Jobs that fail by themselves do not count.
func next(seed uint64, calls map[string][]call, f fault) (waits []time.Duration) {
	for _, of := range calls {
		if !gentle(seed, of[0].ID) {
			continue
		}
		for i, c := range of[:len(of)-1] {
			broken := c.Replica == f.Whom && c.Status == 0 && c.Began <= f.Ended && c.Ended >= f.Began
			if broken && of[i+1].Replica != f.Whom {
				waits = append(waits, of[i+1].Began-max(f.Began, min(c.Ended, f.Ended)))
			}
		}
	}
	return waits
}

// resumed is how long after t the first job was called that had been published
// after t: none of those that were in hand all the time.
func (b *books) resumed(t time.Duration) (time.Duration, bool) {
	for _, c := range b.Calls { // in order of Began
		if at, ok := b.Published[c.ID]; ok && at >= t {
			return c.Began - t, true
		}
	}
	return 0, false
}
