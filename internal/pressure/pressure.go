// Package pressure tells how short this process is of CPU and memory, and how
// many jobs it should therefore run at once.
//
// Pressure is a number from 0 to 1: it begins at a share of what the process
// may use (cpu, memory) and is 1 a little above it. The limit of a pool shrinks
// with it to a tenth, and through the shares of the priorities (shed) the least
// important jobs stop first.
//
//	pressure 1 ┤             ╭────
//	           │            ╱
//	         0 ┼───────────╯────────► use
//	                     cpu  + 0.15
//
// CPU is user and system time against GOMAXPROCS, which follows the quota of
// the container; memory is the live heap, against GOMEMLIMIT, which does too.
// So page cache, which the kernel gives back when it is needed, does not count.
package pressure

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"syscall"
	"time"
)

// Config says from which use on there is pressure.
type Config struct {
	// CPU share in use from which on fewer jobs run, 0.1 to 1, or -1 for off.
	// Default: 0.85.
	CPU float64 `yaml:"cpu"`
	// Memory share (live heap of GOMEMLIMIT) from which on fewer jobs run, 0.1
	// to 1, or -1 for off. Default: 0.7; beyond that the collector needs more
	// and more of the CPU.
	Memory float64 `yaml:"memory"`
}

const (
	off = -1
	// full pressure is reached so far above where it begins.
	full = 0.15
	// weight of a new sample; one is taken each second or so.
	weight = 0.5
	// most of a limit that pressure takes away.
	most = 0.9
)

// WithDefaults fills in what was not said.
func (c Config) WithDefaults() Config {
	if c.CPU == 0 {
		c.CPU = 0.85
	}
	if c.Memory == 0 {
		c.Memory = 0.7
	}
	return c
}

// Validate reports every problem of a config with its defaults filled in.
func (c Config) Validate(problem func(field, message string)) {
	check := func(field string, v float64) {
		if v != off && !(v >= 0.1 && v <= 1) { // NaN is neither
			problem(field, fmt.Sprintf("%v is not allowed, use 0.1 to 1, or -1 for off", v))
		}
	}
	check("cpu", c.CPU)
	check("memory", c.Memory)
}

// Reading is what the process has used and may use.
type Reading struct {
	At time.Time
	// CPU time used since the process began, by so many CPUs.
	CPU  time.Duration
	CPUs int
	// Heap that is alive, and the limit of memory; MaxInt64 is none.
	Heap, Limit int64
}

// Read takes a reading of this process.
func Read() Reading {
	r := Reading{At: time.Now(), CPUs: runtime.GOMAXPROCS(0), Limit: debug.SetMemoryLimit(-1)}
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil {
		r.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if live[0].Value.Kind() == metrics.KindUint64 {
		r.Heap = int64(min(live[0].Value.Uint64(), math.MaxInt64))
	}
	return r
}

// Meter turns readings into pressure. All methods may be called from any
// goroutine.
type Meter struct {
	cfg Config

	mu      sync.Mutex // guards all below
	last    Reading
	cpu     float64 // share in use, smoothed
	state   State
	changed chan struct{}
}

// State is the pressure and where it comes from.
type State struct {
	// Pressure from 0 (none) to 1.
	Pressure float64
	// Of is what is short: cpu or memory. Empty without pressure.
	Of string
	// CPU and Memory are the shares in use.
	CPU, Memory float64
}

// New returns a meter without pressure. The config must be valid.
func New(cfg Config) *Meter { return &Meter{cfg: cfg, changed: make(chan struct{})} }

// Note takes in a reading, one each second or so.
func (m *Meter) Note(r Reading) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if wall := r.At.Sub(m.last.At); !m.last.At.IsZero() && wall > 0 && r.CPUs > 0 {
		use := float64(r.CPU-m.last.CPU) / (float64(wall) * float64(r.CPUs))
		m.cpu += weight * (use - m.cpu)
	}
	m.last = r
	memory := 0.0
	if r.Limit > 0 && r.Limit < math.MaxInt64 {
		memory = float64(r.Heap) / float64(r.Limit)
	}
	before := m.state.Pressure
	m.state = State{CPU: m.cpu, Memory: memory}
	if p := above(m.cpu, m.cfg.CPU); p > 0 {
		m.state.Pressure, m.state.Of = p, "cpu"
	}
	if p := above(memory, m.cfg.Memory); p > m.state.Pressure {
		m.state.Pressure, m.state.Of = p, "memory"
	}
	if m.state.Pressure != before {
		close(m.changed)
		m.changed = make(chan struct{})
	}
}

// Changed returns a channel that is closed when the pressure changes.
func (m *Meter) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func above(use, begins float64) float64 {
	if begins == off {
		return 0
	}
	return min(max((use-begins)/full, 0), 1)
}

// State is the pressure as of the last reading.
func (m *Meter) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// Limit is how many of limit jobs should run at once under this pressure: all
// without, a tenth at 1, but never fewer than keep the CPUs busy.
func (s State) Limit(limit, cpus int) int {
	return max(min(limit, 2*cpus), int(math.Ceil(float64(limit)*(1-most*s.Pressure))))
}
