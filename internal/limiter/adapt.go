package limiter

import (
	"math"
	"slices"
	"time"
)

// Figures of the adaptive limits. The rules are those of Netflix'
// concurrency-limits (AIMDLimit, Gradient2Limit), with windows in place of
// single samples, and steps that grow with the limit so that the way back from
// a fifth of the capacity takes less than a minute.
const (
	backoff       = 0.7  // of the limit, when the target is overloaded
	timedOutShare = 0.05 // of the calls, from which on it is
	refusedShare  = 0.01 // the same for throttled ones: a target that refuses one tenant is not overloaded
	growthShare   = 0.05 // of the limit, by which aimd rises at least where it has not been too much
	returnShare   = 0.25 // of the way back to where it was too much last
	minSamples    = 10   // aimd: calls in a window that may raise the limit
	minGradient   = 50   // gradient: calls in a window that may move it
	tolerance     = 1.5  // gradient: how much longer than usual calls may take
	smoothing     = 0.2  // gradient: weight of the new limit
	usualWeight   = 2.0 / (600 + 1)
	minWindow     = time.Second
	maxWindow     = 30 * time.Second
)

// adaptive is a limit that follows what a target can take. It is pure.
type adaptive struct {
	mode     Mode
	min, max float64
	limit    float64
	proven   float64 // the last limit that was used and not too much; see restore
	knee     float64 // the last limit that was too much; 0: none was
	window   window
	recent   []time.Duration // gradient: p90 of the last few windows
	usual    time.Duration   // gradient: what a call usually takes; 0: not known
}

// window is what was seen since it began.
type window struct {
	began     time.Time
	before    int // calls of the window before
	calls     int // that ended with what says something
	timedOut  int // among them
	throttled int // among them
	decreased bool
	most      int // calls at once
	took      histogram
}

func newAdaptive(cfg Config, most int) adaptive {
	return adaptive{mode: cfg.Limit, min: float64(min(cfg.Min, most)), max: float64(most), limit: float64(most), proven: float64(most)}
}

// now is the limit in calls.
func (a *adaptive) now() int { return int(a.limit) }

// started notes how many calls are under way.
func (a *adaptive) started(now time.Time, inFlight int) {
	if a.window.began.IsZero() {
		a.window.began = now
	}
	a.window.most = max(a.window.most, inFlight)
}

// ended notes the end of a call, and moves the limit if it is time.
func (a *adaptive) ended(now time.Time, load Load, took time.Duration) {
	if a.mode == Fixed {
		return
	}
	w := &a.window
	switch load {
	case Answered:
		w.calls++
		w.took.add(took)
	case TimedOut:
		w.calls++
		w.timedOut++
	case Throttled:
		w.calls++
		w.throttled++
		if w.refuses() {
			a.decrease()
		}
	case Failed, Ignored, Replied:
	}
	if lasted := now.Sub(w.began); lasted >= minWindow && lasted >= w.length() {
		a.roll(now)
	}
}

// length of the window: long enough for a typical call to be seen whole.
func (w *window) length() time.Duration {
	return min(max(minWindow, 2*w.took.quantile(0.5)), maxWindow)
}

// refuses tells whether more were throttled than a target may that is not
// overloaded: its share, and two standard deviations for chance. It is asked in
// the middle of a window, too, when one is a large share of the few calls so
// far; so there are held to be as many as before.
func (w *window) refuses() bool {
	usual := refusedShare * float64(max(w.calls, w.before))
	return w.throttled > 0 && float64(w.throttled) >= usual+2*math.Sqrt(usual)
}

func (w *window) overloaded() bool {
	return w.refuses() || w.timedOut > 0 && float64(w.timedOut) >= timedOutShare*float64(w.calls)
}

// roll ends a window: the limit moves, and the next one begins.
func (a *adaptive) roll(now time.Time) {
	w := &a.window
	used := 2*w.most >= a.now()
	switch {
	case w.decreased || w.overloaded():
		a.decrease()
	case a.mode == AIMD && used && w.calls >= minSamples:
		a.set(a.limit + a.growth())
		a.proven = a.limit
	case a.mode == Gradient && w.calls >= minGradient:
		a.follow(w.took.quantile(0.9), used)
	case a.mode == Gradient && now.Sub(w.began) < maxWindow:
		return // too few to tell: the window lasts longer
	}
	*w = window{began: now, before: w.calls}
}

// decrease lowers the limit, once per window.
func (a *adaptive) decrease() {
	if !a.window.decreased {
		a.window.decreased = true
		a.knee = a.limit
		a.set(math.Floor(backoff * a.limit))
	}
}

// growth of the limit in a window, for aimd. Back to where it was too much last
// it goes fast at first and then slowly, so that it spends most of its time just
// below; from there on it looks for what may have become possible, ever faster.
func (a *adaptive) growth() float64 {
	step := growthShare * a.limit
	if a.limit < a.knee {
		step = returnShare * (a.knee - a.limit)
	}
	return max(1, math.Floor(step))
}

// follow moves the limit by how long calls take now and usually.
func (a *adaptive) follow(p90 time.Duration, used bool) {
	const windows = 5
	a.recent = append(a.recent, p90)
	a.recent = a.recent[max(0, len(a.recent)-windows):]
	sorted := slices.Sorted(slices.Values(a.recent))
	short := float64(sorted[len(sorted)/2])
	if a.usual == 0 {
		a.usual = time.Duration(short)
	}
	long := float64(a.usual) + usualWeight*(short-float64(a.usual))
	if long > 2*short {
		long *= 0.95 // the target has become faster for good
	}
	a.usual = time.Duration(long)
	if !used || short <= 0 {
		return
	}
	gradient := min(max(tolerance*long/short, 0.5), 1)
	room := max(4, math.Sqrt(a.limit)) // calls that may queue at the target
	a.set((1-smoothing)*a.limit + smoothing*(gradient*a.limit+room))
	a.proven = a.limit
}

// restore undoes what an outage did to the limit, once it is over: calls time
// out at a target that is dead, too, and that says nothing of what it can take.
// It does so once; if the target breaks down again before a limit was proven,
// it was the load.
func (a *adaptive) restore(now time.Time) {
	a.limit, a.proven = max(a.limit, a.proven), a.limit
	a.window = window{began: now}
}

// restorable is the limit that restore would make of this one.
func (a *adaptive) restorable() int { return int(max(a.limit, a.proven)) }

func (a *adaptive) set(limit float64) { a.limit = min(max(limit, a.min), a.max) }
