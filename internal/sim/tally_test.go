package sim

import (
	"fmt"
	"testing"
	"time"
)

// tally is what a scenario has seen, for the table of what must happen
// sometimes.
type tally struct {
	jobs, calls, faults, twice, dead int
	sometimes                        map[string]int
}

func (t *tally) add(o tally) {
	t.jobs, t.calls, t.faults, t.twice, t.dead = t.jobs+o.jobs, t.calls+o.calls, t.faults+o.faults, t.twice+o.twice, t.dead+o.dead
	if t.sometimes == nil {
		t.sometimes = make(map[string]int)
	}
	for what, n := range o.sometimes {
		t.sometimes[what] += n
	}
}

func (w *world) count(seen *tally, dead map[string]int) {
	seen.jobs, seen.faults, seen.dead, seen.sometimes = len(w.acked), len(w.faults), len(dead), make(map[string]int)
	for _, calls := range w.down.calls {
		seen.calls += len(calls)
	}
	for _, f := range w.faults {
		seen.sometimes["fault: "+f.kind]++
	}
	for _, r := range w.replicas {
		for reason, n := range r.outcomes {
			seen.sometimes["outcome: "+string(reason)] += n
		}
		for _, s := range r.sources {
			st := s.Stats()
			seen.sometimes["redelivered"] += int(st.Redelivered)
			seen.sometimes["redelivery of what is in hand or finished"] += int(st.Suppressed)
			seen.sometimes["pull requests given up"] += int(st.Epochs)
		}
		st := r.conn.Stats()
		seen.sometimes["settlement sent again"] += int(st.Resent)
		seen.sometimes["settlement given up"] += int(st.Abandoned)
	}
	for _, l := range w.lanes() {
		l.count(seen.sometimes)
	}
	if f, ok := w.broker.(*fake); ok {
		for what, n := range f.lost {
			seen.sometimes["lost to: "+string(what)] += n
		}
	}
	seen.sometimes["done twice, explained"] += seen.twice
	seen.sometimes["dropped"] += len(w.dropped)
}

func (l *lane) count(seen map[string]int) {
	seen["called again within an attempt"] += l.again
	for what, n := range l.seen {
		seen[what] += n
	}
	for reason, n := range l.refused {
		seen["refused: "+string(reason)] += n
	}
	for n, c := range l.changes {
		seen[fmt.Sprintf("breaker: %s, %s", c.To, c.Reason)]++
		if at := l.r.draining; n > 0 && !at.IsZero() && c.At.After(at) {
			seen["breaker: changed during a drain"]++
		}
	}
	for _, s := range l.starts {
		if !s.again && s.started.Sub(s.received) > time.Second {
			seen["waited: "+s.priority.String()]++
		}
	}
	if l.most > l.r.w.shape.concurrency {
		seen["more in hand than may run"]++
	}
}

// mustHaveSeen fails if something did not happen even once: a fault that is
// never met is not survived.
func (t tally) mustHaveSeen(test *testing.T) {
	hit := 0
	for _, what := range sometimes() {
		if t.sometimes[what] == 0 {
			test.Errorf("%q did not happen in %d jobs", what, t.jobs)
			continue
		}
		hit++
	}
	test.Logf("SOMETIMES %d/%d", hit, len(sometimes()))
}

// sometimes is what must happen now and then.
func sometimes() []string {
	return []string{
		"breaker: changed during a drain", "breaker: closed, recovered", "breaker: half_open, wait_over", "breaker: open, consecutive_failures",
		"breaker: open, failure_rate", "breaker: open, probe_failed",
		"called again within an attempt", "done twice, explained", "dropped", "more in hand than may run",
		"fault: broker killed", "fault: broker restart", "fault: consumer deleted", "fault: crash", "fault: crash after a dead letter",
		"fault: crash before an ack", "fault: crash by a job", "fault: cut", "fault: cut, then drain", "fault: dead letters full", "fault: drain", "fault: drain at once",
		"fallback: alternate, failed", "fallback: alternate, ok", "fallback: alternate, refused", "fallback: static, ok", "fault: freeze",
		"fault: hang", "fault: incomplete drain", "fault: lost confirmations", "fault: lost requests", "fault: no leader", "fault: outage",
		"fault: silence", "fault: slow bucket, then drain", "fault: stall", "fault: unreachable", "fault: slow bucket", "lost to: slow bucket", "lost to: lost confirmations", "lost to: lost requests", "lost to: no leader",
		"hedge: denied", "hedge: lost", "hedge: won", "outcome: connect", "outcome: fairness", "outcome: dead_letter_unavailable", "outcome: decode", "outcome: expired", "outcome: interrupted", "outcome: lease_lost",
		"outcome: max_attempts", "outcome: ok", "outcome: panic", "outcome: poison", "outcome: released", "outcome: status_4xx", "outcome: status_5xx",
		"outcome: throttled", "outcome: timeout", "probe: failure", "probe: success", "probe: timeout", "pull requests given up", "redelivered", "redelivery of what is in hand or finished",
		"refused: breaker", "refused: limit", "refused: ramp", "settlement given up", "settlement sent again",
		"waited: critical", "waited: high", "waited: normal", "waited: low",
	}
}
