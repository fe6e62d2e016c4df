// Package valve closes a pool when too many of its last jobs became dead
// letters because the target says they can never succeed.
//
// One such job is the job's own fault. When it is half of them, the fault is
// somewhere else: credentials that have expired, a deployment that rejects
// everything. Going on would empty the stream into the dead letters. So the
// valve closes; later it lets one job through after the other, and opens when
// these are good.
//
//	        ratio of the last finals permanent, of at least min
//	┌──────┐ ────────────────────────────────────────────────► ┌────────┐
//	│ open │                                                   │ closed │◄─┐
//	└──────┘ ◄──── probes in a row were good ──── ┌─────────┐ ◄┴────────┘  │
//	    ▲                                         │ probing │  pause over  │
//	    └───────────── an operator resets it      └────┬────┘              │
//	                                                   └─ a probe was bad ─┘
//	                                                      (the pause doubles)
//
// Guarantees:
//
//  1. It does not close before min finals lie in the window, nor below ratio.
//  2. Closed, nothing starts until the pause is over; probing, one job at once.
//  3. It always probes again: the pause is bounded.
//
// It reads no clock and starts no goroutine. What counts as permanent is for
// its user to say.
package valve

import (
	"fmt"
	"sync"
	"time"
)

// Config of a pool's valve.
type Config struct {
	// Ratio of the finals in the window from which on the valve closes, 0.01 to
	// 1, or -1 for off. Default: 0.5.
	Ratio float64 `yaml:"ratio"`
	// Min is how many finals (jobs done or dead) the window must hold, 1 to
	// 10000. Default: 20.
	Min int `yaml:"min"`
	// Window over which finals are counted, 1s to 1h. Default: 1m.
	Window time.Duration `yaml:"window"`
	// Pause before the first probe; it doubles up to ten times its length as
	// long as probes are bad. 1s to 1h. Default: 1m.
	Pause time.Duration `yaml:"pause"`
}

const (
	off         = -1
	probesToEnd = 3  // good ones in a row that open the valve
	longest     = 10 // pauses grow to so many times the first
)

// WithDefaults fills in what was not said.
func (c Config) WithDefaults() Config {
	if c.Ratio == 0 {
		c.Ratio = 0.5
	}
	if c.Min == 0 {
		c.Min = 20
	}
	if c.Window == 0 {
		c.Window = time.Minute
	}
	if c.Pause == 0 {
		c.Pause = time.Minute
	}
	return c
}

// Validate reports every problem of a config with its defaults filled in.
func (c Config) Validate(problem func(field, message string)) {
	if c.Ratio != off && !(c.Ratio >= 0.01 && c.Ratio <= 1) { // NaN is neither
		problem("ratio", fmt.Sprintf("%v is not allowed, use 0.01 to 1, or -1 for off", c.Ratio))
	}
	if c.Min < 1 || c.Min > 10_000 {
		problem("min", fmt.Sprintf("%d is not allowed, use 1 to 10000", c.Min))
	}
	if c.Window < time.Second || c.Window > time.Hour {
		problem("window", fmt.Sprintf("%s is not allowed, use 1s to 1h", c.Window))
	}
	if c.Pause < time.Second || c.Pause > time.Hour {
		problem("pause", fmt.Sprintf("%s is not allowed, use 1s to 1h", c.Pause))
	}
}

// Valve of one pool. All methods may be called from any goroutine; the times
// passed in should come from time.Now.
type Valve struct {
	cfg Config

	mu      sync.Mutex // guards all below
	slots   [slots]count
	closed  bool
	until   time.Time // of the pause; past it the valve probes
	pause   time.Duration
	proven  int
	closes  uint64
	last    string // what the last bad final ended with
	changed chan struct{}
}

// count of the finals in one slot of the window.
type count struct {
	number     int64 // of the slot, counted from the epoch
	total, bad int
}

const slots = 10

// New returns an open valve. The config must be valid, with its defaults.
func New(cfg Config) *Valve {
	return &Valve{cfg: cfg, changed: make(chan struct{})}
}

// Final notes the end of a job; bad says that it is a dead letter because it
// can never succeed, and why tells what the target said. It reports whether the
// valve has closed or opened by it.
func (v *Valve) Final(now time.Time, bad bool, why string) (moved bool) {
	if v.cfg.Ratio == off {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if bad {
		v.last = why
	}
	switch {
	case !v.closed:
		return v.watch(now, bad)
	case now.Before(v.until):
		return false // it was running when the valve closed
	case bad:
		v.pause = min(2*v.pause, longest*v.cfg.Pause)
		v.proven, v.until = 0, now.Add(v.pause)
		v.tell()
		return false
	}
	v.proven++
	if v.proven < probesToEnd {
		return false
	}
	v.open()
	return true
}

// watch counts a final while the valve is open, and closes it if need be.
func (v *Valve) watch(now time.Time, bad bool) (moved bool) {
	number := now.UnixNano() / int64(v.cfg.Window/slots)
	s := &v.slots[uint64(number)%slots]
	if s.number != number {
		*s = count{number: number}
	}
	s.total++
	if bad {
		s.bad++
	}
	total, worse := v.sum(number)
	if !bad || total < v.cfg.Min || float64(worse) < v.cfg.Ratio*float64(total) {
		return false
	}
	v.closed, v.proven, v.pause = true, 0, v.cfg.Pause
	v.until = now.Add(v.pause)
	v.closes++
	v.tell()
	return true
}

func (v *Valve) sum(number int64) (total, bad int) {
	for _, s := range v.slots {
		if number-s.number < slots && s.number <= number {
			total += s.total
			bad += s.bad
		}
	}
	return total, bad
}

// Reset opens the valve.
func (v *Valve) Reset() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.open()
}

func (v *Valve) open() {
	v.closed, v.until, v.slots = false, time.Time{}, [slots]count{}
	v.tell()
}

func (v *Valve) tell() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// Credit is how many more jobs may start: all (-1), none until the given time,
// or one at once while it probes, of which inFlight run.
func (v *Valve) Credit(now time.Time, inFlight int) (n int, until time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case !v.closed:
		return -1, time.Time{}
	case now.Before(v.until):
		return 0, v.until
	}
	return max(0, 1-inFlight), time.Time{}
}

// Changed returns a channel that is closed at the next change that time alone
// does not bring about.
func (v *Valve) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// Stats is the state of a valve at one instant.
type Stats struct {
	// Closed, and until when nothing is tried.
	Closed bool
	Until  time.Time
	// Closes since the start.
	Closes uint64
	// Last is what the last bad job ended with.
	Last string
}

// Stats may be called from any goroutine.
func (v *Valve) Stats() Stats {
	v.mu.Lock()
	defer v.mu.Unlock()
	return Stats{Closed: v.closed, Until: v.until, Closes: v.closes, Last: v.last}
}
