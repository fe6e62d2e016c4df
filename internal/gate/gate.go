// Package gate holds the gates of a pool: for each guard of its target, and for
// what else may hold it back, what that means in jobs that may start.
//
//	breaker   open: none; half open: the probes
//	limiter   limit, ramp, rate, Retry-After and silence of the target
//	valve     too many dead letters: none, then one at once
//	pressure  short of CPU or memory: fewer
//	pause     an operator said so: none
//
// Each is a few lines that translate. The pool takes the strictest answer and
// keeps its reason, so that why nothing runs is never a second opinion.
package gate

import (
	"runtime"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/pressure"
	"github.com/workerd/workerd/internal/valve"
)

func open() pool.Hold { return pool.Hold{Credit: pool.Unlimited} }

// Breaker holds a pool while the breaker of its target is open, and lets the
// probes through while it is half open: jobs of that priority first.
func Breaker(b *breaker.Breaker, probes breaker.ProbePriority) pool.Gate {
	return breakerGate{b, probes == breaker.ProbeLowest}
}

type breakerGate struct {
	b      *breaker.Breaker
	lowest bool
}

// Credit implements pool.Gate.
func (g breakerGate) Credit(now time.Time, _ int) pool.Hold {
	n, until := g.b.Credit(now)
	if n == pool.Unlimited {
		return open()
	}
	return pool.Hold{Credit: n, Reason: string(job.BreakerOpen), Until: until, Down: true, LowestFirst: g.lowest}
}

// Changed implements pool.Gate.
func (g breakerGate) Changed() <-chan struct{} { return g.b.Changed() }

// Limiter holds a pool while its target gets as much as it can take.
func Limiter(l *limiter.Limiter) pool.Gate { return limiterGate{l} }

type limiterGate struct{ l *limiter.Limiter }

// Credit implements pool.Gate.
func (g limiterGate) Credit(now time.Time, _ int) pool.Hold {
	n, reason, until := g.l.Credit(now)
	full := reason == limiter.Full || reason == limiter.Ramping || reason == limiter.Silent
	silent := reason == limiter.Silent || n == 0 && g.l.Stats(now).Silent
	return pool.Hold{Credit: n, Reason: string(reason), Until: until, Full: full, Down: silent}
}

// Changed implements pool.Gate.
func (g limiterGate) Changed() <-chan struct{} { return g.l.Changed() }

// Valve holds a pool whose jobs become dead letters one after the other.
func Valve(v *valve.Valve) pool.Gate { return valveGate{v} }

type valveGate struct{ v *valve.Valve }

// Credit implements pool.Gate.
func (g valveGate) Credit(now time.Time, inFlight int) pool.Hold {
	n, until := g.v.Credit(now, inFlight)
	switch {
	case n < 0:
		return open()
	}
	return pool.Hold{Credit: n, Reason: string(job.ValveClosed), Until: until, Full: until.IsZero()}
}

// Changed implements pool.Gate.
func (g valveGate) Changed() <-chan struct{} { return g.v.Changed() }

// Pressure lets a pool of the given concurrency run fewer jobs while the
// process is short of CPU or memory.
func Pressure(m *pressure.Meter, concurrency int) pool.Gate {
	return pressureGate{m, concurrency}
}

type pressureGate struct {
	m           *pressure.Meter
	concurrency int
}

// Credit implements pool.Gate.
func (g pressureGate) Credit(_ time.Time, inFlight int) pool.Hold {
	s := g.m.State()
	if s.Pressure == 0 {
		return open()
	}
	limit := s.Limit(g.concurrency, runtime.GOMAXPROCS(0))
	return pool.Hold{Credit: max(0, limit-inFlight), Reason: string(job.Pressure), Full: true}
}

// Changed implements pool.Gate.
func (g pressureGate) Changed() <-chan struct{} { return g.m.Changed() }

// Pause is an operator's word to hold a pool. Any goroutine may use it.
type Pause struct {
	mu      sync.Mutex // guards all below
	paused  bool
	until   time.Time // zero: until it is resumed
	note    string
	changed chan struct{}
}

// NewPause returns one that does not hold.
func NewPause() *Pause { return &Pause{changed: make(chan struct{})} }

// Pause holds the pool until then, or until Resume if until is zero.
func (p *Pause) Pause(until time.Time, note string) { p.set(true, until, note) }

// Resume lets the pool work again.
func (p *Pause) Resume() { p.set(false, time.Time{}, "") }

func (p *Pause) set(paused bool, until time.Time, note string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused, p.until, p.note = paused, until, note
	close(p.changed)
	p.changed = make(chan struct{})
}

// Note is what the operator said, while the pause lasts.
func (p *Pause) Note(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.holds(now) {
		return ""
	}
	return p.note
}

func (p *Pause) holds(now time.Time) bool {
	return p.paused && (p.until.IsZero() || now.Before(p.until))
}

// Credit implements pool.Gate.
func (p *Pause) Credit(now time.Time, _ int) pool.Hold {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.holds(now) {
		return open()
	}
	return pool.Hold{Reason: string(job.Paused), Until: p.until}
}

// Changed implements pool.Gate.
func (p *Pause) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}
