// Package hedge says when a call that is not answered is to be made a second
// time, and how often that may happen.
//
// The delay is a time, or a percentile of the last good calls. The budget is a
// token bucket that is empty at the start: every call pays in its share, every
// hedge takes one. So of n calls never more than n·budget were hedged, and of
// what was saved up no more than a burst is left when a target gets slow.
//
// It makes no call and reads no clock; that, and whether there is room for one
// more call, is the pipeline's part.
package hedge

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// kept are the good calls of which a percentile is taken.
	kept = 128
	// enough of them to trust it.
	enough = 20
	// every so many calls it is taken anew.
	every = 16
	// burst is the most hedges that calls can have saved up for.
	burst = 10
	// whole is one hedge in the unit of the budget.
	whole = 1_000_000
)

// Result of a call that was not answered in time.
type Result string

// The results.
const (
	// Won: the second call was the first with an answer.
	Won Result = "won"
	// Lost: it was made in vain.
	Lost Result = "lost"
	// Denied: it was not made, for want of budget or room or for another reason.
	Denied Result = "denied"
)

// Results lists every Result, so that each of their series exists from the start.
func Results() []Result { return []Result{Won, Lost, Denied} }

// Hedger of one target. Any number of goroutines may use it at once.
type Hedger struct {
	percent int   // 0: the delay is fixed
	share   int64 // of a hedge that a call pays in

	mu     sync.Mutex // guards all below
	tokens int64
	delay  time.Duration // 0: not known yet
	took   [kept]time.Duration
	noted  int
}

// New returns one without tokens. cfg must be valid, with its defaults, for a
// target with that timeout.
func New(cfg Config, timeout time.Duration) *Hedger {
	delay, percent, err := cfg.after(timeout)
	if err != nil {
		delay, percent = 0, 95
	}
	return &Hedger{percent: percent, delay: delay, share: int64(math.Round(cfg.Budget * whole))}
}

// Begin is to be called at each call that may be hedged. It returns how long to
// wait for its answer, 0 if that is not known yet.
func (h *Hedger) Begin() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens = min(h.tokens+h.share, burst*whole)
	return h.delay
}

// Spend takes a hedge from the budget if there is one.
func (h *Hedger) Spend() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tokens < whole {
		return false
	}
	h.tokens -= whole
	return true
}

// Refund gives back what was spent for a hedge that was not made.
func (h *Hedger) Refund() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens = min(h.tokens+whole, burst*whole)
}

// Note tells how long a first call took that was good, or at least how long
// one took that lost: without those the percentile would sink with every hedge.
func (h *Hedger) Note(took time.Duration) {
	if h.percent == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.took[h.noted%kept] = took
	h.noted++
	if h.noted >= enough && (h.noted == enough || h.noted%every == 0) {
		h.delay = h.percentile()
	}
}

// percentile is called with mu held.
func (h *Hedger) percentile() time.Duration {
	sorted := slices.Clone(h.took[:min(h.noted, kept)])
	slices.Sort(sorted)
	return max(time.Millisecond, sorted[len(sorted)*h.percent/100])
}
