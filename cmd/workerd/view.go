package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/workerd/workerd/internal/admin"
)

// indent is how far the lines below the time of day stand in.
const indent = "          "

// view turns statuses into the lines of `workerd dev`. A line says what a
// second has brought; why a pool stands still is said once, and again when the
// reason is another.
type view struct {
	w      io.Writer
	width  func() int // columns, asked each time as windows change; 0: no limit
	before admin.Status
	said   map[string]string // pool -> the reason given last
	died   map[string]string // pool -> the last error of a dead letter
}

func newView(w io.Writer) *view {
	return &view{w: w, width: func() int { return columns(w) }, said: map[string]string{}, died: map[string]string{}}
}

// columns is the width of a terminal, 0 if w is none.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	n, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return n
}

// second is what the last second has brought.
func (v *view) second(s admin.Status) string {
	defer func() { v.before = s }()
	stamp := s.Now.Format(time.TimeOnly) + "  "
	if s.Drain != nil {
		return stamp + fmt.Sprintf("draining: %d running, %d handed back", s.Drain.Running, s.Drain.HandedBack)
	}
	var parts []string
	for i, p := range s.Pools {
		var last admin.Jobs
		if i < len(v.before.Pools) {
			last = v.before.Pools[i].Jobs
		}
		parts = append(parts, pool(p, last, s.Now))
	}
	return stamp + strings.Join(append([]string{v.fit(parts)}, v.reasons(s)...), "\n")
}

// fit puts the pools side by side if the terminal is wide enough.
func (v *view) fit(parts []string) string {
	line := strings.Join(parts, "   ")
	if width := v.width(); width > 0 && utf8.RuneCountInString(indent+line) >= width {
		for i, part := range parts {
			parts[i] = wrap(part, indent, width)
		}
		return strings.TrimPrefix(strings.Join(parts, "\n"), indent) // the time stands there
	}
	return line
}

// pool is one compartment: how full it is, what it has done, what it waits for.
func pool(p admin.Pool, last admin.Jobs, now time.Time) string {
	what := []string{fmt.Sprintf("+%d ok", p.Jobs.OK-last.OK)}
	if p.State != admin.PoolRunning {
		what[0] = state(p, now)
	}
	for _, t := range []struct {
		n    uint64
		word string
	}{{p.Jobs.Retry - last.Retry, "retry"}, {p.Jobs.Deferred - last.Deferred, "deferred"}, {p.Jobs.Dead - last.Dead, "dead"}} {
		if t.n > 0 {
			what = append(what, fmt.Sprintf("+%d %s", t.n, t.word))
		}
	}
	if n := left(p); n > 0 {
		what = append(what, fmt.Sprintf("%d left", n))
	}
	return fmt.Sprintf("%s %s %*d/%d  %-6s", p.Name, bar(p.InFlight, p.Concurrency),
		len(fmt.Sprint(p.Concurrency)), p.InFlight, p.Concurrency, strings.Join(what, ", "))
}

// state is the pool's word for not running, and how long that will last.
func state(p admin.Pool, now time.Time) string {
	if left := p.Until.Sub(now); left > 0 {
		return fmt.Sprintf("%s %.0fs", p.State, math.Ceil(left.Seconds()))
	}
	return string(p.State)
}

// reasons are the sentences about pools that stand still, unless they have
// been said.
func (v *view) reasons(s admin.Status) []string {
	var lines []string
	for _, p := range s.Pools {
		key := ""
		if p.Why != "" {
			key = cause(p, s.Targets)
		}
		if key != "" && key != v.said[p.Name] {
			lines = append(lines, wrap(p.Name+": "+p.Why, indent, v.width()))
		}
		v.said[p.Name] = key
	}
	return append(lines, v.deaths(s.Failures)...)
}

// deaths are the errors of the newest dead letters, unless they have been said.
func (v *view) deaths(newestFirst []admin.Failure) []string {
	newest := map[string]string{}
	for _, f := range slices.Backward(newestFirst) {
		if f.Outcome == "dead" {
			newest[f.Pool] = cmp.Or(f.Error, f.Reason)
		}
	}
	var lines []string
	for _, pool := range slices.Sorted(maps.Keys(newest)) {
		if v.died[pool] != newest[pool] {
			lines = append(lines, wrap(pool+": dead letter: "+newest[pool], indent, v.width()))
			v.died[pool] = newest[pool]
		}
	}
	return lines
}

// cause is what a sentence is about, without its figures.
func cause(p admin.Pool, targets []admin.Target) string {
	key := []string{string(p.State), p.HoldReason}
	for _, t := range targets {
		if t.Name == p.Target && p.State == admin.PoolHeld {
			key = append(key, t.Breaker.State, t.Breaker.Reason)
		}
		if t.Name == p.Target && t.Degraded != nil {
			key = append(key, t.Degraded.By)
		}
	}
	for _, c := range p.Consumers {
		key = append(key, c.Problem)
	}
	return strings.Join(key, " ")
}

// drain says that the shutdown has begun.
func (v *view) drain(s admin.Status) string {
	n := 0
	for _, p := range s.Pools {
		n += p.InFlight
	}
	text := "draining: no job is running"
	if n > 0 {
		text = fmt.Sprintf("draining: %s may finish; Ctrl-C again hands them back", plural(n, "job"))
	}
	if v.width() > 0 {
		text = "\n" + text // the terminal has echoed ^C
	}
	return text
}

// last sums the run up.
func (v *view) last(s admin.Status) string {
	var ok, dead uint64
	for _, p := range s.Pools {
		ok += p.Jobs.OK
		dead += p.Jobs.Dead
	}
	handedBack := ""
	if d := s.Drain; d != nil {
		handedBack = fmt.Sprintf(", %d handed back", d.HandedBack)
		if d.Interrupted > 0 {
			handedBack += fmt.Sprintf(" (%d of them interrupted)", d.Interrupted)
		}
	}
	return fmt.Sprintf("drained: %s done, %s%s", plural(ok, "job"), plural(dead, "dead letter"), handedBack)
}

// left is how many jobs wait in the stream.
func left(p admin.Pool) (n uint64) {
	for _, c := range p.Consumers {
		n += c.Pending
	}
	return n
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

// wrap breaks text between words so that no line is longer than width, if
// there is one. Every line begins with the indent, further ones a bit deeper.
func wrap(text, indent string, width int) string {
	if width <= len(indent)+20 {
		return indent + text
	}
	var b strings.Builder
	column := 0
	for i, word := range strings.Split(text, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
			b.WriteString(indent)
			column = len(indent)
		case column+1+n >= width:
			b.WriteString("\n" + indent + "  ")
			column = len(indent) + 2
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
