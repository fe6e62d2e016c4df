package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// How often progress is told, to people and to logs.
const (
	progressTTY  = 250 * time.Millisecond
	progressLine = 5 * time.Second
	barWidth     = 20
)

// progress tells on stderr how far a long command has come: a bar if that is a
// terminal, and a line every five seconds otherwise.
type progress struct {
	w           io.Writer
	verb        string // "replaying"
	total       int
	tty         bool
	start, told time.Time
}

func newProgress(w io.Writer, verb string, total int) *progress {
	now := time.Now()
	return &progress{w: w, verb: verb, total: total, tty: isTerminal(w), start: now, told: now}
}

// at tells that so many are done, if it is time to tell.
func (p *progress) at(done int) {
	now := time.Now()
	interval := progressLine
	if p.tty {
		interval = progressTTY
	}
	if now.Sub(p.told) < interval {
		return
	}
	p.told = now
	if p.tty {
		fmt.Fprintf(p.w, "\r\x1b[K%s", p.line(done, now.Sub(p.start)))
	} else {
		fmt.Fprintln(p.w, p.line(done, now.Sub(p.start)))
	}
}

// end clears the bar.
func (p *progress) end() {
	if p.tty {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func (p *progress) line(done int, spent time.Duration) string {
	rate := float64(done) / spent.Seconds()
	eta := ""
	if left := p.total - done; left > 0 && rate > 0 {
		eta = "  ETA " + time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second).String()
	}
	bar := ""
	if p.tty {
		full := barWidth * min(done, p.total) / max(p.total, 1)
		bar = strings.Repeat("█", full) + strings.Repeat("░", barWidth-full) + "  "
	}
	return fmt.Sprintf("%s  %s%s / %s  %.0f/s%s", p.verb, bar, thousands(done), thousands(p.total), rate, eta)
}

// took is how long something has taken, for people.
func took(since time.Time) string {
	d := time.Since(since)
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
