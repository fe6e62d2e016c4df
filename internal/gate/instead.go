package gate

import (
	"time"

	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

// Alternative is what stands in for a target that is not to be called.
type Alternative struct {
	// Gates of what is called instead; none if nothing is.
	Gates []pool.Gate
	// Takes tells whether it stands in for that cause.
	Takes func(fallback.Cause) bool
}

// Degraded holds a pool while an operator does not want its target called.
func Degraded(s *fallback.Switch) pool.Gate { return degradedGate{s} }

type degradedGate struct{ s *fallback.Switch }

// Credit implements pool.Gate.
func (g degradedGate) Credit(now time.Time, _ int) pool.Hold {
	s := g.s.State(now)
	if !s.On {
		return open()
	}
	return pool.Hold{Reason: string(job.Degraded), Until: s.Until}
}

// Changed implements pool.Gate.
func (g degradedGate) Changed() <-chan struct{} { return g.s.Changed() }

// Instead returns the gates of a target with a fallback. The first of them
// answers: what the target's own gates say, or, while these let less through
// for a cause that an alternative stands in for, what the most open one of
// those says. The others let everything through and only wake the pool.
//
// The target's gates must be in the order in which a call meets them, as
// decides what the pipeline will take for the cause.
func Instead(target []pool.Gate, alternatives []Alternative) []pool.Gate {
	all := []pool.Gate{insteadGate{target, alternatives}}
	for _, g := range target[1:] {
		all = append(all, wake{g})
	}
	for _, a := range alternatives {
		for _, g := range a.Gates {
			all = append(all, wake{g})
		}
	}
	return all
}

type insteadGate struct {
	target       []pool.Gate
	alternatives []Alternative
}

// Credit implements pool.Gate.
func (g insteadGate) Credit(now time.Time, inFlight int) pool.Hold {
	best := firstClosed(g.target, now, inFlight)
	cause, ok := fallback.CauseOfHold(job.Reason(best.Reason))
	if best.Credit == pool.Unlimited || !ok {
		return best
	}
	for _, a := range g.alternatives {
		if a.Takes(cause) {
			best = wider(best, firstClosed(a.Gates, now, inFlight))
		}
	}
	return best
}

// Changed implements pool.Gate.
func (g insteadGate) Changed() <-chan struct{} { return g.target[0].Changed() }

// firstClosed is the answer of the first gate that lets nothing through, of
// none such of the one that lets the least.
func firstClosed(gates []pool.Gate, now time.Time, inFlight int) pool.Hold {
	least := open()
	for _, g := range gates {
		h := g.Credit(now, inFlight)
		if h.Credit == 0 {
			return h
		}
		if h.Credit < least.Credit {
			least = h
		}
	}
	return least
}

// wider is the answer that lets more through. Of two that let nothing through
// it is the first, asked again when either may open.
func wider(a, b pool.Hold) pool.Hold {
	switch {
	case b.Credit > a.Credit:
		return b
	case a.Credit == 0 && !b.Until.IsZero() && (a.Until.IsZero() || b.Until.Before(a.Until)):
		a.Until = b.Until
	}
	return a
}

// wake is a gate that lets everything through and tells of another's changes.
type wake struct{ of pool.Gate }

// Credit implements pool.Gate.
func (wake) Credit(time.Time, int) pool.Hold { return open() }

// Changed implements pool.Gate.
func (w wake) Changed() <-chan struct{} { return w.of.Changed() }
