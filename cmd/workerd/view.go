package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/app"
)

// view turns statuses into the lines of `workerd dev`.
type view struct {
	before admin.Status
}

// line is one second of work: per pool what runs, what was done and what is
// left, and for whatever stands still the sentence why.
func (v *view) line(a *app.App) string {
	s := a.Status()
	defer func() { v.before = s }()
	parts := []string{s.Now.Format(time.TimeOnly)}
	var why []string
	for i, p := range s.Pools {
		var last admin.Pool
		if i < len(v.before.Pools) {
			last = v.before.Pools[i]
		}
		parts = append(parts, fmt.Sprintf("%s %s %d/%d +%d%s%s", p.Name, bar(p.InFlight, p.Concurrency), p.InFlight, p.Concurrency,
			p.Jobs.OK-last.Jobs.OK, trouble(p.Jobs, last.Jobs), pending(p)))
		if p.Why != "" {
			why = append(why, "          "+p.Name+" "+p.Why)
		}
	}
	if s.Drain != nil {
		parts = append(parts, "draining")
	}
	return strings.Join(append([]string{strings.Join(parts, "  ")}, why...), "\n")
}

// last sums the run up.
func (v *view) last(a *app.App) string {
	var ok, dead, handedBack uint64
	s := a.Status()
	for _, p := range s.Pools {
		ok += p.Jobs.OK
		dead += p.Jobs.Dead
		handedBack += p.Jobs.Released
	}
	return fmt.Sprintf("drained: %d jobs done, %d dead letters, %d handed back", ok, dead, handedBack)
}

func pending(p admin.Pool) string {
	var n uint64
	for _, c := range p.Consumers {
		n += c.Pending
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d left", n)
}

func trouble(now, last admin.Jobs) string {
	var s strings.Builder
	for _, t := range []struct {
		n    uint64
		word string
	}{{now.Retry - last.Retry, "retry"}, {now.Deferred - last.Deferred, "deferred"}, {now.Dead - last.Dead, "dead"}} {
		if t.n > 0 {
			fmt.Fprintf(&s, " +%d %s", t.n, t.word)
		}
	}
	return s.String()
}

// bar shows how full something is in eight cells.
func bar(n, of int) string {
	const cells = 8
	full := 0
	if of > 0 {
		full = min(cells, (n*cells+of-1)/of)
	}
	return strings.Repeat("█", full) + strings.Repeat("░", cells-full)
}
