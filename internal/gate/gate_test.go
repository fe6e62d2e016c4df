package gate_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/gate"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/pressure"
	"github.com/workerd/workerd/internal/valve"
)

func at(d time.Duration) time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(d) }

// wants compares a gate's answer, whose reason must be one of the closed set,
// and one that a job can be deferred for.
func wants(t *testing.T, g pool.Gate, now time.Time, inFlight int, want pool.Hold) {
	t.Helper()
	got := g.Credit(now, inFlight)
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got.Reason != "" && (!slices.Contains(pool.HoldReasons(), got.Reason) || !slices.Contains(job.Reasons(), job.Reason(got.Reason))) {
		t.Errorf("%q is not a reason to hold a pool and to defer a job", got.Reason)
	}
}

func unlimited() pool.Hold { return pool.Hold{Credit: pool.Unlimited} }

func TestBreaker_openHoldsAndHalfOpenLetsProbesThrough(t *testing.T) {
	b := breaker.New(breaker.Config{ConsecutiveFailures: 1, OpenFor: time.Second, OpenJitter: -1}.WithDefaults(), nil)
	g := gate.Breaker(b, breaker.ProbeHighest)
	wants(t, g, at(0), 3, unlimited())
	p, err := b.Acquire(at(0))
	if err != nil {
		t.Fatal(err)
	}
	p.Done(at(0), breaker.Bad, 0)
	wants(t, g, at(0), 3, pool.Hold{Reason: "breaker", Until: at(time.Second), Down: true})
	wants(t, g, at(time.Second), 0, pool.Hold{Credit: 1, Reason: "breaker", Down: true})
}

func TestLimiter_tellsWhatItsTargetCanTake(t *testing.T) {
	l := limiter.New(limiter.Config{Limit: limiter.Fixed, Max: 2}.WithDefaults(), limiter.Rate{}, 10)
	g := gate.Limiter(l)
	wants(t, g, at(0), 0, pool.Hold{Credit: 2, Reason: "limit", Full: true})
	for range 2 {
		if _, err := l.Acquire(at(0)); err != nil {
			t.Fatal(err)
		}
	}
	wants(t, g, at(0), 2, pool.Hold{Reason: "limit", Full: true})
	l.Hold(at(0), at(time.Minute))
	wants(t, g, at(0), 2, pool.Hold{Reason: "throttled", Until: at(time.Minute)})
}

func TestValve_closedHoldsAndThenOneRunsAtOnce(t *testing.T) {
	v := valve.New(valve.Config{Min: 1}.WithDefaults())
	g := gate.Valve(v)
	wants(t, g, at(0), 9, unlimited())
	v.Final(at(0), true, "")
	wants(t, g, at(0), 9, pool.Hold{Reason: "valve", Until: at(time.Minute)})
	wants(t, g, at(time.Minute), 0, pool.Hold{Credit: 1, Reason: "valve", Full: true})
	wants(t, g, at(time.Minute), 1, pool.Hold{Reason: "valve", Full: true})
}

func TestPressure_fewerRunAndSomeAlways(t *testing.T) {
	m := pressure.New(pressure.Config{}.WithDefaults())
	g := gate.Pressure(m, 1000)
	changed := g.Changed()
	wants(t, g, at(0), 0, unlimited())
	m.Note(pressure.Reading{At: at(0), CPUs: 1, Heap: math.MaxInt32, Limit: math.MaxInt32})
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	wants(t, g, at(0), 60, pool.Hold{Credit: 40, Reason: "pressure", Full: true})
	wants(t, g, at(0), 900, pool.Hold{Reason: "pressure", Full: true})
}

func TestPause_holdsUntilItIsResumedOrOver(t *testing.T) {
	p := gate.NewPause()
	wants(t, p, at(0), 0, unlimited())
	changed := p.Changed()
	p.Pause(time.Time{}, "deploy")
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	wants(t, p, at(0), 0, pool.Hold{Reason: "paused"})
	if n := p.Note(at(0)); n != "deploy" {
		t.Errorf("the note is %q", n)
	}
	p.Resume()
	wants(t, p, at(0), 0, unlimited())
	p.Pause(at(time.Second), "short")
	wants(t, p, at(0), 0, pool.Hold{Reason: "paused", Until: at(time.Second)})
	wants(t, p, at(time.Second), 0, unlimited())
	if n := p.Note(at(time.Second)); n != "" {
		t.Errorf("over, and the note is %q", n)
	}
}
