package admin

import (
	"fmt"
	"strings"
	"time"
)

// stays is what everybody who sees a held pool wants to know.
const stays = "nothing is lost, jobs stay in the stream"

// sentence says why a pool does not run, since when, and what comes next. A
// running pool needs none, unless something keeps it from running more or one
// of its consumers is not well.
func (p *Pool) sentence(t *Target, now time.Time) string {
	switch p.State {
	case PoolRunning:
		return join(t.detour(), p.slowed(t), p.parted(), p.fairness(), p.troubles())
	case PoolStarting:
		return join("waiting for its consumers"+ago(p.Since, now), p.troubles(), "it starts by itself once they are ready")
	case PoolDraining:
		return fmt.Sprintf("draining%s: nothing new starts, jobs that had not started were handed back; %s", ago(p.Since, now), p.remaining())
	case PoolStopped:
		return "stopped" + ago(p.Since, now) + "; its jobs stay in the stream for other replicas"
	case PoolHeld:
	}
	held := "held" + ago(p.Since, now) + ": "
	switch p.HoldReason {
	case "breaker":
		if t.Breaker.refuses() {
			return join(held+"breaker of "+p.Target+" "+t.Breaker.state(), t.Breaker.next(now), stays)
		}
	case "throttled":
		return join(held+p.Target+" has asked for time (Retry-After)", until(p.Until, now), stays)
	case "rate_limit":
		return join(held+"the rate limit of "+p.Target+" is used up", upcoming("goes on", p.Until, now, "goes on by itself"), stays)
	case "stalled":
		return join(held+p.Target+" has stopped answering", upcoming("tries one call more", p.Until, now, "goes on as soon as it answers"), stays)
	case "limit", "ramp":
		return join(held+p.Target+" "+t.Limit.full(), "goes on as calls of other pools end", stays)
	case "valve":
		return join(held+"too many of its last jobs became dead letters"+lastly(p.HoldNote), upcoming("tries one job", p.Until, now, "tries one job after the other"), stays)
	case "paused":
		return join(held+"paused by an operator"+noted(p.HoldNote), upcoming("goes on", p.Until, now, "goes on when it is resumed"), stays)
	case "degraded":
		return join(held+p.Target+" is degraded"+t.Degraded.why()+" and no fallback can do its part", upcoming("goes on", p.Until, now, "goes on when the fallback can, or when that ends"), stays)
	}
	return join(held+words(p.HoldReason), until(p.Until, now), stays)
}

// slowed says what keeps a running pool below its concurrency.
func (p *Pool) slowed(t *Target) string {
	if p.HoldReason == "mostly_dead" {
		return "slowed: most of its last jobs were for " + p.Target + ", which is held, and wait for that; one a second is pulled until others come or it is back"
	}
	if p.Limit >= p.Concurrency {
		return ""
	}
	switch p.HoldReason {
	case "limit", "ramp":
		return "slowed: " + p.Target + " " + t.Limit.full()
	case "stalled":
		return fmt.Sprintf("slowed: %s has stopped answering, %d jobs wait for it; goes on as soon as it answers", p.Target, p.InFlight)
	case "valve":
		return "probing: too many of its last jobs became dead letters" + lastly(p.HoldNote) + ", so one runs after the other until some succeed"
	case "pressure":
		return fmt.Sprintf("slowed: this process is short of %s, so %d of %d jobs run at once", words(p.HoldNote), p.Limit, p.Concurrency)
	}
	return ""
}

// parted says that some jobs wait for a target while those of others run.
func (p *Pool) parted() string {
	if p.Parked == 0 {
		return ""
	}
	return number(p.Parked) + " jobs in hand wait for their target, those of the others go on"
}

// fairness says that jobs make way for those of other tenants.
func (p *Pool) fairness() string {
	if p.SetAside == 0 {
		return ""
	}
	return fmt.Sprintf("fair: %s jobs of tenants that have their part in hand are set aside, to see whose come behind them", number(p.SetAside))
}

// sentence says why a target is not called, or not as much as it could be.
func (t *Target) sentence(now time.Time) string {
	if d := t.Degraded; d != nil && d.On {
		breaker := "" // what it will do next has to wait, and its limit is not what holds it
		if t.Breaker.refuses() {
			breaker = "its breaker " + t.Breaker.state()
		}
		return join(d.sentence(now), breaker)
	}
	return join(t.Degraded.sentence(now), t.Breaker.sentence(now), t.Limit.sentence())
}

// detour says whose work the jobs of a pool are now.
func (t *Target) detour() string {
	if t.Degraded == nil || !t.Degraded.On {
		return ""
	}
	return "its jobs go straight to the fallback of " + t.Name
}

// sentence says that a target is not called, why, and what comes next.
func (d *Degraded) sentence(now time.Time) string {
	switch {
	case d == nil:
		return ""
	case !d.On:
		lasts := ", until it is restored"
		if !d.Until.IsZero() {
			lasts = " for " + span(d.Until.Sub(d.Planned))
		}
		return upcoming("will be degraded", d.Planned, now, "") + d.why() + lasts
	}
	next := upcoming("ends", d.Until, now, "ends when an operator restores it")
	switch d.By {
	case ByHealth:
		next = fmt.Sprintf("ends when %s is answered well %s", d.Probe, inARow(d.Healthy))
	case ByRate:
		next = upcoming("is called again", d.Until, now, "is called again")
	}
	return join("degraded"+ago(d.Since, now)+d.why()+": its jobs go straight to the fallback", next)
}

func inARow(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times in a row", n)
}

// why continues "degraded".
func (d *Degraded) why() string {
	switch {
	case d == nil:
		return ""
	case d.By == ByOperator:
		return " by an operator" + noted(d.Note)
	case d.Note != "":
		return " (" + d.Note + ")"
	}
	return ""
}

func lastly(note string) string {
	if note == "" {
		return ""
	}
	return fmt.Sprintf(" (the last: %s)", note)
}

// sentence says that a target gets less than it could.
func (l Limit) sentence() string {
	if l.Now >= l.Max {
		return ""
	}
	return l.full()
}

// full continues the name of a target.
func (l Limit) full() string {
	if l.Ramping {
		return fmt.Sprintf("is warming up after an outage: it gets %d of %d calls at once", l.Now, l.Max)
	}
	return fmt.Sprintf("gets as many calls at once as it seems to be able to take: %d of %d", l.Now, l.Max)
}

func (p *Pool) remaining() string {
	switch p.InFlight {
	case 0:
		return "none is running"
	case 1:
		return "1 is still running and may finish"
	}
	return fmt.Sprintf("%d are still running and may finish", p.InFlight)
}

// troubles names the consumers that are not ready.
func (p *Pool) troubles() string {
	var all []string
	for _, c := range p.Consumers {
		if !c.Ready {
			problem := c.Problem
			if problem == "" {
				problem = "reason unknown"
			}
			all = append(all, "consumer "+c.Name+" is not ready: "+problem)
		}
	}
	return strings.Join(all, "; ")
}

// sentence says why calls are refused, or let through in spite of everything.
func (b Breaker) sentence(now time.Time) string {
	if b.State == BreakerClosed || b.State == "" {
		return ""
	}
	state := strings.TrimPrefix(strings.TrimPrefix(b.state(), "is "), "was ")
	return join(state+ago(b.Since, now), b.again(), b.next(now))
}

func (b Breaker) refuses() bool {
	return b.State == BreakerOpen || b.State == BreakerHalfOpen || b.State == BreakerForcedOpen
}

// state continues "breaker of x …".
func (b Breaker) state() string {
	switch b.State {
	case BreakerOpen:
		return "is open (" + b.cause() + ")"
	case BreakerHalfOpen:
		return "is half open"
	case BreakerForcedOpen:
		return "was opened by an operator" + noted(b.Note)
	case BreakerDisabled:
		return "was disabled by an operator" + noted(b.Note)
	case BreakerMetricsOnly:
		return "was set to metrics only by an operator" + noted(b.Note)
	}
	return "is " + words(b.State)
}

// again says that this was not the first time.
func (b Breaker) again() string {
	if b.Opens < 2 || !b.refuses() {
		return ""
	}
	return fmt.Sprintf("opened %d times in close succession", b.Opens)
}

// next says what ends the state.
func (b Breaker) next(now time.Time) string {
	switch b.State {
	case BreakerOpen:
		if b.Probe != "" {
			return upcoming("next probe of "+b.Probe, b.Until, now, "probes "+b.Probe)
		}
		return upcoming("probes", b.Until, now, "probes with the next job")
	case BreakerHalfOpen:
		if b.Asking {
			return "asking " + b.Probe + " first, jobs follow when it answers well"
		}
		return fmt.Sprintf("probing, %d good so far, %d running", b.Proven, b.Probes)
	case BreakerForcedOpen, BreakerDisabled, BreakerMetricsOnly:
		return upcoming("ends", b.Until, now, "ends when an operator resets it")
	}
	return ""
}

// cause is the breaker's reason, with the figures if there are some.
func (b Breaker) cause() string {
	switch b.Reason {
	case "failure_rate":
		return ofTotal(b.Bad, b.Total, "failed", "too many calls failed")
	case "slow_call_rate":
		return ofTotal(b.Slow, b.Total, "were slow", "too many calls were slow")
	case "consecutive_failures":
		return "too many failures in a row"
	case "probe_failed":
		return "a probe failed"
	case "probe_throttled":
		return "a probe was asked to come later"
	case "probe_slow":
		return "a probe was slow"
	case "probe_timeout":
		return "a probe gave no answer"
	}
	return words(b.Reason)
}

func ofTotal(n, total int, what, otherwise string) string {
	if n == 0 || total == 0 {
		return otherwise
	}
	return fmt.Sprintf("%d of %d calls %s", n, total, what)
}

// words turns a label into words; an empty one is said to be unknown.
func words(label string) string {
	if label == "" {
		return "reason unknown"
	}
	return strings.ReplaceAll(label, "_", " ")
}

func noted(note string) string {
	if note == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", note)
}

// ago is " for 12s", or "" if nobody knows since when.
func ago(since, now time.Time) string {
	if since.IsZero() {
		return ""
	}
	return " for " + span(now.Sub(since))
}

func until(t, now time.Time) string { return upcoming("ends", t, now, "ends when that does") }

// upcoming is "probes in 6s", or the alternative if no time is known.
func upcoming(what string, t, now time.Time, otherwise string) string {
	switch {
	case t.IsZero():
		return otherwise
	case !t.After(now):
		return what + " now"
	}
	return what + " in " + span(t.Sub(now))
}

// join puts the parts that say something into one sentence.
func join(parts ...string) string {
	var said []string
	for _, p := range parts {
		if p != "" {
			said = append(said, p)
		}
	}
	return strings.Join(said, "; ")
}
