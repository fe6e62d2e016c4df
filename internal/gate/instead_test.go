package gate_test

import (
	"testing"
	"time"

	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/gate"
	"github.com/workerd/workerd/internal/pool"
)

// fixed is a gate that always says the same.
type fixed struct {
	hold    pool.Hold
	changed chan struct{}
}

func (f *fixed) Credit(time.Time, int) pool.Hold { return f.hold }
func (f *fixed) Changed() <-chan struct{}        { return f.changed }

func says(credit int, reason string, until time.Duration) *fixed {
	f := &fixed{pool.Hold{Credit: credit, Reason: reason}, make(chan struct{})}
	if until > 0 {
		f.hold.Until = at(until)
	}
	return f
}

func anything(fallback.Cause) bool { return true }

func TestInstead_letsThroughWhatTheTargetOrItsFallbackCanDo(t *testing.T) {
	free := func() *fixed { return says(pool.Unlimited, "", 0) }
	for _, c := range []struct {
		name          string
		target, other *fixed
		want          pool.Hold
	}{
		{"both open", free(), free(), free().hold},
		{"open breaker", says(0, "breaker", 9), free(), free().hold},
		{"open breaker, other has little room", says(0, "breaker", 9), says(2, "limit", 0), pool.Hold{Credit: 2, Reason: "limit"}},
		{"probes only", says(1, "breaker", 0), free(), free().hold},
		{"warming up", says(2, "ramp", 0), free(), free().hold},
		{"degraded", says(0, "degraded", 9), free(), free().hold},
		{"asked for time", says(0, "throttled", 9), free(), free().hold},
		{"silent", says(0, "stalled", 9), free(), free().hold},
		{"its own limit is no reason", says(0, "limit", 0), free(), says(0, "limit", 0).hold},
		{"nor its rate", says(0, "rate_limit", 9), free(), says(0, "rate_limit", 9).hold},
		{"both closed: until the first opens", says(0, "breaker", 9), says(0, "breaker", 5), says(0, "breaker", 5).hold},
		{"both closed, one until it tells", says(0, "breaker", 9), says(0, "limit", 0), says(0, "breaker", 9).hold},
	} {
		all := gate.Instead([]pool.Gate{c.target}, []gate.Alternative{{Gates: []pool.Gate{c.other}, Takes: anything}})
		if got := all[0].Credit(at(0), 3); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		for _, g := range all[1:] {
			if got := g.Credit(at(0), 3); got.Credit != pool.Unlimited {
				t.Errorf("%s: a gate that only wakes holds: %+v", c.name, got)
			}
		}
	}
}

func TestInstead_asksOnlyAlternativesThatStandInForTheCause(t *testing.T) {
	closed := says(0, "breaker", 9)
	for cause, want := range map[fallback.Cause]int{fallback.Open: pool.Unlimited, fallback.Timeout: 0} {
		g := gate.Instead([]pool.Gate{closed}, []gate.Alternative{{Takes: func(c fallback.Cause) bool { return c == cause }}})
		if got := g[0].Credit(at(0), 0); got.Credit != want {
			t.Errorf("for %s: %+v", cause, got)
		}
	}
}

// TestInstead_firstClosedGateIsTheCause: as for a call, which meets them in this
// order; if the pipeline took another for the cause, a job could run in circles.
func TestInstead_firstClosedGateIsTheCause(t *testing.T) {
	onlyThrottled := gate.Alternative{Takes: func(c fallback.Cause) bool { return c == fallback.Throttled }}
	g := gate.Instead([]pool.Gate{says(0, "breaker", 1), says(0, "throttled", 9)}, []gate.Alternative{onlyThrottled})
	if got := g[0].Credit(at(0), 0); got.Credit != 0 || got.Reason != "breaker" {
		t.Errorf("%+v, want held by the breaker", got)
	}
}

func TestInstead_wakesWhenAnyOfThemChanges(t *testing.T) {
	gates := []*fixed{says(0, "breaker", 0), says(0, "limit", 0), says(0, "breaker", 0)}
	all := gate.Instead([]pool.Gate{gates[0], gates[1]}, []gate.Alternative{{Gates: []pool.Gate{gates[2]}, Takes: anything}})
	for i, f := range gates {
		close(f.changed)
		woken := 0
		for _, g := range all {
			select {
			case <-g.Changed():
				woken++
			default:
			}
		}
		if woken != i+1 {
			t.Errorf("%d of the gates woke the pool, want %d", woken, i+1)
		}
	}
}

func TestDegraded_holdsUntilItsEnd(t *testing.T) {
	s := fallback.NewSwitch()
	g := gate.Degraded(s)
	wants(t, g, at(0), 0, pool.Hold{Credit: pool.Unlimited})
	changed := g.Changed()
	s.Degrade(fallback.ByOperator, at(0), at(time.Second), "deploy")
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	wants(t, g, at(0), 0, pool.Hold{Reason: "degraded", Until: at(time.Second)})
	wants(t, g, at(time.Second), 0, pool.Hold{Credit: pool.Unlimited})
}
