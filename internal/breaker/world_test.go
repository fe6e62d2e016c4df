package breaker_test

import (
	"errors"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/breaker"
)

// tester is what testing.T, testing.F's T and rapid.T have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// dice returns a number in [0,n).
type dice func(n int) int

func pick[T any](d dice, values ...T) T { return values[d(len(values))] }

// world runs a breaker and its model side by side and compares them after
// every step.
type world struct {
	t       tester
	b       *breaker.Breaker
	m       *model
	cfg     breaker.Config
	zero    time.Time
	now     time.Duration
	held    []holding
	changes []breaker.Change
}

type holding struct {
	permit breaker.Permit
	model  *modelPermit
}

func newWorld(t tester, cfg breaker.Config) *world {
	w := &world{t: t, m: newModel(cfg), cfg: cfg.WithDefaults(), zero: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)}
	w.b = breaker.New(cfg, func(c breaker.Change) { w.changes = append(w.changes, c) })
	w.compare("start")
	return w
}

func (w *world) at() time.Time { return w.zero.Add(w.now) }

func (w *world) stats() breaker.Stats {
	w.m.tick(w.now) // as the breaker does
	return w.b.Stats(w.at())
}

func (w *world) wait(d time.Duration) {
	w.now += d
	w.m.tick(w.now)
	w.compare("wait")
}

func (w *world) acquire() bool {
	w.t.Helper()
	p, err := w.b.Acquire(w.at())
	w.m.tick(w.now)
	mp := w.m.acquire(w.now)
	if (err == nil) != (mp != nil) {
		w.t.Fatalf("at %v acquire: error %v, model granted %v", w.now, err, mp != nil)
	}
	if err != nil {
		w.checkRefusal(err)
		return false
	}
	w.held = append(w.held, holding{p, mp})
	w.compare("acquire")
	return true
}

func (w *world) checkRefusal(err error) {
	w.t.Helper()
	open, ok := errors.AsType[*breaker.OpenError](err)
	if !ok || open.State != w.m.state || open.Reason != w.m.reason {
		w.t.Fatalf("at %v refused with %#v, model is %v (%v)", w.now, err, w.m.state, w.m.reason)
	}
	if full := w.m.state == breaker.HalfOpen; errors.Is(err, breaker.ErrHalfOpenFull) != full || errors.Is(err, breaker.ErrOpen) == full {
		w.t.Fatalf("at %v in %v refused with the wrong sentinel: %v", w.now, w.m.state, err)
	}
	if w.m.state != breaker.HalfOpen && open.RetryAfter != w.m.until-w.now {
		w.t.Fatalf("at %v retry after %v, model says %v", w.now, open.RetryAfter, w.m.until-w.now)
	}
}

func (w *world) done(i int, v breaker.Verdict, retryAfter time.Duration) {
	w.t.Helper()
	h := w.held[i]
	w.held = slices.Delete(w.held, i, i+1)
	h.permit.Done(w.at(), v, retryAfter)
	w.m.tick(w.now)
	w.m.done(w.now, h.model, v, retryAfter)
	w.compare("done " + v.String())
	h.permit.Done(w.at(), v, retryAfter)
	w.compare("done again")
}

func (w *world) override(s breaker.State, ttl time.Duration) {
	w.t.Helper()
	if err := w.b.Override(s, ttl, "test", w.at()); err != nil {
		w.t.Fatalf("%v", err)
	}
	w.m.tick(w.now)
	w.m.override(w.now, s, ttl)
	w.compare("override")
}

func (w *world) reset() {
	w.t.Helper()
	w.b.Reset(w.at())
	w.m.tick(w.now)
	w.m.reset(w.now, breaker.WasReset)
	w.compare("reset")
}

func (w *world) configure(cfg breaker.Config) {
	w.t.Helper()
	w.cfg = cfg.WithDefaults()
	w.b.SetConfig(w.at(), cfg)
	w.m.tick(w.now)
	w.m.configure(w.now, cfg)
	w.compare("configure")
}

func (w *world) compare(step string) {
	w.t.Helper()
	got := w.facts()
	if diff := cmp.Diff(w.m.facts(w.now), got); diff != "" {
		w.t.Fatalf("at %v after %s (-model +breaker):\n%s", w.now, step, diff)
	}
}

func (w *world) facts() facts {
	s := w.stats()
	n, until := w.b.Credit(w.at())
	since := func(t time.Time) time.Duration {
		if t.IsZero() {
			return 0
		}
		return t.Sub(w.zero)
	}
	return facts{
		State: s.State, Reason: s.Reason, Since: since(s.Since), Until: since(s.Until), Opens: s.Opens,
		Total: s.Total, Bad: s.Bad, Slow: s.Slow, Consecutive: s.Consecutive, Probes: s.Probes, Proven: s.Proven,
		Stale: s.Stale, Rejected: s.Rejected, WouldOpen: s.WouldOpen, WouldReject: s.WouldReject,
		Credit: n, CreditUntil: since(until),
	}
}

// step does one random thing. Steps above 20 are an operator's.
func (w *world) step(d dice, operator bool) {
	w.t.Helper()
	kinds := 20
	if operator {
		kinds = 24
	}
	switch k := d(kinds); {
	case k < 7:
		w.acquire()
	case k < 14 && len(w.held) > 0:
		v := pick(d, breaker.Good, breaker.Good, breaker.Bad, breaker.Bad, breaker.Throttled, breaker.Ignored)
		w.done(d(len(w.held)), v, pick[time.Duration](d, 0, 0, 7*time.Second, time.Hour, -time.Second))
	case k < 16:
		w.now += pick(d, 1, 100*time.Millisecond, time.Second, 5*time.Second, 20*time.Second) // nobody asks meanwhile
	case k < 17:
		w.wait(pick(d, 0, 1, time.Millisecond, 99*time.Millisecond, 100*time.Millisecond, time.Second, 1500*time.Millisecond, 4*time.Second, time.Minute))
	case k < 20:
		w.waitForBoundary(d)
	case k == 20:
		w.reset()
	case k == 21:
		w.configure(randomConfig(d))
	default:
		w.override(pick(d, breaker.ForcedOpen, breaker.Disabled, breaker.MetricsOnly), pick(d, time.Second, time.Minute))
	}
}

// waitForBoundary goes to where something is due, or a nanosecond short of it.
func (w *world) waitForBoundary(d dice) {
	f := w.facts()
	at := pick(d, f.Until, f.CreditUntil)
	if at > w.now {
		w.wait(at - w.now - time.Duration(d(2)))
	}
}

func randomConfig(d dice) breaker.Config {
	return breaker.Config{
		FailureRate:         pick(d, 0.5, 0.57, 1, 0.001),
		MinCalls:            pick(d, 1, 3, 5, 20),
		ConsecutiveFailures: pick(d, -1, 1, 3, 5),
		Window:              pick(d, time.Second, 10*time.Second, 30*time.Second),
		WindowCalls:         pick(d, 0, 0, 1, 4, 10),
		SlowCall:            pick(d, 0, time.Second),
		SlowCallRate:        pick(d, 1, 0.5, -1),
		OpenFor:             pick(d, time.Second, 5*time.Second),
		OpenMultiplier:      pick[float64](d, 1, 2, 3),
		MaxOpenFor:          pick(d, 5*time.Second, 20*time.Second),
		OpenJitter:          -1,
		HalfOpenCalls:       pick(d, 1, 2, 3),
		HalfOpenConcurrent:  pick(d, 1, 2, 3),
		ProbeTimeout:        pick(d, 3*time.Second, 15*time.Second),
		Throttled:           pick(d, breaker.ThrottledRate, breaker.ThrottledFailure, breaker.ThrottledIgnore),
	}
}
