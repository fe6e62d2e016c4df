package admin_test

import (
	"testing"
	"time"

	"github.com/workerd/workerd/internal/admin"
)

func TestComplete_everyPoolThatDoesNotRunSaysWhy(t *testing.T) {
	open := admin.Breaker{State: admin.BreakerOpen, Reason: "failure_rate", Bad: 17, Total: 20, Until: at(-6 * time.Second)}
	since := at(3*time.Minute + 12*time.Second)
	for _, c := range []struct {
		pool    admin.Pool
		breaker admin.Breaker
		want    string
	}{
		{admin.Pool{State: admin.PoolRunning}, open, ""},
		{
			admin.Pool{State: admin.PoolRunning, Consumers: []admin.Consumer{{Name: "a", Ready: true}, {Name: "b", Problem: "no stream"}}},
			open,
			"consumer b is not ready: no stream",
		},
		{
			admin.Pool{State: admin.PoolStarting, Since: since, Consumers: []admin.Consumer{{Name: "b"}}},
			open,
			"waiting for its consumers for 3m12s; consumer b is not ready: reason unknown; it starts by itself once they are ready",
		},
		{
			admin.Pool{State: admin.PoolHeld, HoldReason: "breaker", Since: since},
			open,
			"held for 3m12s: breaker of t is open (17 of 20 calls failed); probes in 6s; nothing is lost, jobs stay in the stream",
		},
		{
			admin.Pool{State: admin.PoolHeld, HoldReason: "breaker"},
			admin.Breaker{State: admin.BreakerHalfOpen, Probes: 1, Proven: 2},
			"held: breaker of t is half open; probing, 2 good so far, 1 running; nothing is lost, jobs stay in the stream",
		},
		{
			admin.Pool{State: admin.PoolHeld, HoldReason: "breaker"},
			admin.Breaker{State: admin.BreakerForcedOpen, Note: "deploy", Until: at(-time.Hour)},
			`held: breaker of t was opened by an operator ("deploy"); ends in 1h; nothing is lost, jobs stay in the stream`,
		},
		{
			admin.Pool{State: admin.PoolHeld, HoldReason: "breaker", Until: at(time.Second)},
			admin.Breaker{State: admin.BreakerClosed},
			"held: breaker; ends now; nothing is lost, jobs stay in the stream",
		},
		{
			admin.Pool{State: admin.PoolHeld, HoldReason: "rate_limit", Until: at(-1500 * time.Millisecond)},
			open,
			"held: the rate limit of t is used up; goes on in 1.5s; nothing is lost, jobs stay in the stream",
		},
		{
			admin.Pool{State: admin.PoolHeld, HoldReason: "valve", HoldNote: "HTTP 401", Until: at(-time.Minute)},
			open,
			"held: too many of its last jobs became dead letters (the last: HTTP 401); tries one job in 1m; nothing is lost, jobs stay in the stream",
		},
		{
			admin.Pool{State: admin.PoolHeld, HoldReason: "paused", HoldNote: "deploy of the mailer"},
			open,
			`held: paused by an operator ("deploy of the mailer"); goes on when it is resumed; nothing is lost, jobs stay in the stream`,
		},
		{
			admin.Pool{State: admin.PoolHeld, HoldReason: "limit"},
			open,
			"held: t gets as many calls at once as it seems to be able to take: 7 of 20; goes on as calls of other pools end; nothing is lost, jobs stay in the stream",
		},
		{
			admin.Pool{State: admin.PoolRunning, HoldReason: "limit", Limit: 7, Concurrency: 16},
			open,
			"slowed: t gets as many calls at once as it seems to be able to take: 7 of 20",
		},
		{
			admin.Pool{State: admin.PoolRunning, HoldReason: "pressure", HoldNote: "memory", Limit: 7, Concurrency: 16},
			open,
			"slowed: this process is short of memory, so 7 of 16 jobs run at once",
		},
		{admin.Pool{State: admin.PoolRunning, HoldReason: "limit", Limit: 16, Concurrency: 16}, open, ""},
		{
			admin.Pool{State: admin.PoolRunning, Target: "eu", Targets: []string{"eu", "us"}, HoldTarget: "us", HoldReason: "mostly_dead", Limit: 16, Concurrency: 16, Parked: 16},
			open,
			"slowed: most of its last jobs were for us, which is held, and wait for that; one a second is pulled until others come or it is back; 16 jobs in hand wait for their target, those of the others go on",
		},
		{
			admin.Pool{State: admin.PoolRunning, Limit: 16, Concurrency: 16, SetAside: 12},
			open,
			"fair: 12 jobs of tenants that have their part in hand are set aside, to see whose come behind them",
		},
		{admin.Pool{State: "new"}, open, "held: reason unknown; ends when that does; nothing is lost, jobs stay in the stream"},
		{
			admin.Pool{State: admin.PoolDraining, InFlight: 1},
			open,
			"draining: nothing new starts, jobs that had not started were handed back; 1 is still running and may finish",
		},
		{admin.Pool{State: admin.PoolStopped, Since: at(2 * time.Second)}, open, "stopped for 2s; its jobs stay in the stream for other replicas"},
		{admin.Pool{State: admin.PoolHeld, Why: "because"}, open, "because"},
	} {
		c.pool.Target = "t"
		s := admin.Status{Now: noon(), Pools: []admin.Pool{c.pool}, Targets: []admin.Target{{Name: "t", Breaker: c.breaker, Limit: admin.Limit{Now: 7, Max: 20}}}}
		s.Complete()
		if got := s.Pools[0].Why; got != c.want {
			t.Errorf("%s, %s:\n got %q\nwant %q", c.pool.State, c.breaker.State, got, c.want)
		}
	}
}

func TestComplete_everyBreakerThatIsNotClosedSaysWhy(t *testing.T) {
	for _, c := range []struct {
		breaker admin.Breaker
		want    string
	}{
		{admin.Breaker{}, ""},
		{admin.Breaker{State: admin.BreakerClosed, Reason: "started", Since: at(time.Hour)}, ""},
		{
			admin.Breaker{State: admin.BreakerOpen, Reason: "slow_call_rate", Slow: 9, Total: 10, Since: at(14 * time.Second), Until: at(-400 * time.Millisecond), Opens: 3},
			"open (9 of 10 calls were slow) for 14s; opened 3 times in close succession; probes in 400ms",
		},
		{admin.Breaker{State: admin.BreakerOpen, Reason: "slow_call_rate"}, "open (too many calls were slow); probes with the next job"},
		{admin.Breaker{State: admin.BreakerOpen, Reason: "failure_rate"}, "open (too many calls failed); probes with the next job"},
		{admin.Breaker{State: admin.BreakerOpen, Reason: "consecutive_failures", Until: noon()}, "open (too many failures in a row); probes now"},
		{admin.Breaker{State: admin.BreakerOpen, Reason: "probe_failed", Until: noon()}, "open (a probe failed); probes now"},
		{admin.Breaker{State: admin.BreakerOpen, Reason: "probe_throttled", Until: noon()}, "open (a probe was asked to come later); probes now"},
		{admin.Breaker{State: admin.BreakerOpen, Reason: "probe_slow", Until: noon()}, "open (a probe was slow); probes now"},
		{admin.Breaker{State: admin.BreakerOpen, Reason: "probe_timeout", Until: noon()}, "open (a probe gave no answer); probes now"},
		{admin.Breaker{State: admin.BreakerOpen, Reason: "some_day", Until: noon()}, "open (some day); probes now"},
		{
			admin.Breaker{State: admin.BreakerOpen, Reason: "probe_failed", Until: at(-4 * time.Second), Probe: "/healthz"},
			"open (a probe failed); next probe of /healthz in 4s",
		},
		{
			admin.Breaker{State: admin.BreakerHalfOpen, Probe: "/healthz", Asking: true, Probes: 1},
			"half open; asking /healthz first, jobs follow when it answers well",
		},
		{admin.Breaker{State: admin.BreakerHalfOpen, Probe: "/healthz", Proven: 1}, "half open; probing, 1 good so far, 0 running"},
		{admin.Breaker{State: admin.BreakerDisabled, Since: at(time.Minute)}, "disabled by an operator for 1m; ends when an operator resets it"},
		{admin.Breaker{State: admin.BreakerMetricsOnly, Until: at(-26 * time.Hour)}, "set to metrics only by an operator; ends in 1d2h"},
	} {
		s := admin.Status{Now: noon(), Targets: []admin.Target{{Name: "t", Breaker: c.breaker}}}
		s.Complete()
		if got := s.Targets[0].Why; got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.breaker.State, got, c.want)
		}
	}
}

func TestComplete_everyTargetThatIsDegradedSaysWhy(t *testing.T) {
	open := admin.Breaker{State: admin.BreakerOpen, Reason: "probe_failed", Until: noon()}
	for _, c := range []struct {
		degraded      *admin.Degraded
		breaker       admin.Breaker
		target, piece string // what is said of the target, and of a pool that runs
	}{
		{nil, admin.Breaker{}, "gets as many calls at once as it seems to be able to take: 7 of 20", ""},
		{
			&admin.Degraded{On: true, By: admin.ByOperator, Note: "deploy", Since: at(time.Minute), Until: at(-time.Hour)},
			admin.Breaker{},
			`degraded for 1m by an operator ("deploy"): its jobs go straight to the fallback; ends in 1h`, "its jobs go straight to the fallback of t",
		},
		{
			&admin.Degraded{On: true, By: admin.ByOperator}, open,
			"degraded by an operator: its jobs go straight to the fallback; ends when an operator restores it; its breaker is open (a probe failed)", "its jobs go straight to the fallback of t",
		},
		{
			&admin.Degraded{On: true, By: admin.ByHealth, Since: at(12 * time.Second), Note: "3 health checks in a row were not good, the last: status_5xx", Probe: "/healthz", Healthy: 2},
			admin.Breaker{},
			"degraded for 12s (3 health checks in a row were not good, the last: status_5xx): its jobs go straight to the fallback; ends when /healthz is answered well 2 times in a row",
			"its jobs go straight to the fallback of t",
		},
		{
			&admin.Degraded{On: true, By: admin.ByHealth, Probe: "/healthz", Healthy: 1},
			admin.Breaker{},
			"degraded: its jobs go straight to the fallback; ends when /healthz is answered well once", "its jobs go straight to the fallback of t",
		},
		{
			&admin.Degraded{On: true, By: admin.ByRate, Since: at(time.Second), Until: at(-29 * time.Second), Note: "9 of 10 jobs within 1m needed the fallback"},
			admin.Breaker{},
			"degraded for 1s (9 of 10 jobs within 1m needed the fallback): its jobs go straight to the fallback; is called again in 29s", "its jobs go straight to the fallback of t",
		},
		{
			&admin.Degraded{By: admin.ByOperator, Note: "move", Planned: at(-2 * time.Hour), Until: at(-150 * time.Minute)},
			admin.Breaker{},
			`will be degraded in 2h by an operator ("move") for 30m; gets as many calls at once as it seems to be able to take: 7 of 20`, "",
		},
		{
			&admin.Degraded{By: admin.ByOperator, Planned: at(-time.Minute)},
			admin.Breaker{},
			"will be degraded in 1m by an operator, until it is restored; gets as many calls at once as it seems to be able to take: 7 of 20", "",
		},
	} {
		s := admin.Status{
			Now: noon(), Pools: []admin.Pool{{Name: "p", Target: "t", State: admin.PoolRunning}},
			Targets: []admin.Target{{Name: "t", Degraded: c.degraded, Breaker: c.breaker, Limit: admin.Limit{Now: 7, Max: 20}}},
		}
		s.Complete()
		if got := s.Targets[0].Why; got != c.target {
			t.Errorf("target:\n got %q\nwant %q", got, c.target)
		}
		if got := s.Pools[0].Why; got != c.piece {
			t.Errorf("pool:\n got %q\nwant %q", got, c.piece)
		}
	}
}

// TestComplete_heldWhileDegraded: the fallback cannot do the jobs either.
func TestComplete_heldWhileDegraded(t *testing.T) {
	s := admin.Status{
		Now: noon(), Pools: []admin.Pool{{Name: "p", Target: "t", State: admin.PoolHeld, HoldReason: "degraded", Since: at(time.Second), Until: at(-time.Minute)}},
		Targets: []admin.Target{{Name: "t", Degraded: &admin.Degraded{On: true, By: admin.ByOperator, Note: "deploy"}}},
	}
	s.Complete()
	if got, want := s.Pools[0].Why, `held for 1s: t is degraded by an operator ("deploy") and no fallback can do its part; goes on in 1m; nothing is lost, jobs stay in the stream`; got != want {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}
