package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// ambiguity is how long after its end a call may still turn out to have been
// for nothing: its ack was sent, and had not been confirmed for good.
const ambiguity = 3 * time.Second

// heal waits until the stream is empty, with nothing going wrong any more.
func (w *world) heal(ctx context.Context) {
	deadline := time.Now().Add(w.shape.ackWait + 6*time.Minute)
	for {
		left, err := w.broker.left(ctx)
		if err == nil && left == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.fail("%d jobs are left in the stream long after everything was healed (%v)", left, err)
			return
		}
		pause(ctx, time.Second)
	}
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("SIM_SEED=%d SIM_LAYER=%s: %s", w.seed, w.layer, fmt.Sprintf(format, args...))
}

// check looks at the books once everything has ended.
func (w *world) check(ctx context.Context) (seen tally) {
	dead := w.deadLetters(ctx)
	w.down.mu.Lock()
	defer w.down.mu.Unlock()
	for id := range w.acked {
		done := 0
		for _, c := range w.down.calls[id] {
			if c.done {
				done++
			}
		}
		if r := w.twiceBySame(id); r != nil {
			w.fail("replica %d, which had done %s, did it again: %s", r.id, id, w.story(id))
		}
		switch letters := dead[id]; {
		case done == 0 && letters == 0:
			w.fail("%s is lost", id)
		case letters > 1:
			w.fail("%s has %d dead letters", id, letters)
		case done+letters > 1 && !w.explained(id):
			w.fail("%s was done %d times and has %d dead letters; no fault explains it: %s", id, done, letters, w.story(id))
		case done+letters > 1:
			seen.twice++
		}
	}
	w.checkLeases()
	w.checkAttempts(dead)
	w.checkSpacing()
	w.checkDrains()
	for id := range w.down.calls {
		if !w.acked[id] {
			w.fail("%s was called and never published", id)
		}
	}
	for lane, most := range w.down.most {
		if most > w.shape.concurrency {
			w.fail("%d calls ran at once in %s, allowed are %d", most, lane, w.shape.concurrency)
		}
	}
	w.count(&seen, dead)
	return seen
}

// checkLeases: a lease is lost for a reason only.
func (w *world) checkLeases() {
	for _, r := range w.replicas {
		for id, held := range r.held {
			for _, i := range held {
				if i.reason == job.LeaseLost && !w.disturbed(r, i) {
					w.fail("replica %d lost the lease of %s, and nothing had happened: %s", r.id, id, w.story(id))
				}
			}
		}
	}
}

// twiceBySame returns a replica that did a job twice: it should have known.
func (w *world) twiceBySame(id string) *replica {
	seen := map[*replica]bool{}
	for _, c := range w.down.calls[id] {
		if c.done && seen[c.replica] {
			return c.replica
		}
		seen[c.replica] = seen[c.replica] || c.done
	}
	return nil
}

// checkSpacing: a job does not come again before its time. Brokers that are
// restarted and consumers that are deleted forget it.
func (w *world) checkSpacing() {
	for id := range w.acked {
		var all []interval
		for _, r := range w.replicas {
			all = append(all, r.held[id]...)
		}
		slices.SortFunc(all, func(a, b interval) int { return a.from.Compare(b.from) })
		for n := range len(all) - 1 {
			was, next := all[n], all[n+1]
			wait := was.after
			if was.what == job.Retry {
				wait = max(wait, shortest)
			}
			early := was.to.Add(wait - 20*time.Millisecond).Sub(next.from)
			if (was.what == job.Retry || was.what == job.Defer) && early > 0 && !w.anyFault(was.from, next.from) {
				w.fail("%s came again %s early: %s", id, early, w.story(id))
			}
		}
	}
}

// shortest wait before another attempt: half of the initial backoff.
const shortest = 250 * time.Millisecond

// anyFault tells whether anything happened between two instants.
func (w *world) anyFault(from, to time.Time) bool {
	return slices.ContainsFunc(w.faults, func(f fault) bool {
		return f.kind != "outage" && f.kind != "hang" && !f.until.Before(from.Add(-ambiguity)) && !f.at.After(to.Add(ambiguity))
	})
}

// checkDrains: nothing starts once a drain has begun.
func (w *world) checkDrains() {
	for id, calls := range w.down.calls {
		for _, c := range calls {
			if at := c.replica.draining; !at.IsZero() && c.begin.After(at.Add(10*time.Millisecond)) {
				w.fail("replica %d called for %s %s after its drain had begun", c.replica.id, id, c.begin.Sub(at))
			}
		}
	}
}

// checkAttempts: what can never succeed is given up after as many attempts as
// allowed. A broker that forgets its consumer begins to count anew.
func (w *world) checkAttempts(dead map[string]int) {
	for id := range w.acked {
		if !w.hopeless(id) {
			continue
		}
		charged := 0
		for _, r := range w.replicas {
			for _, i := range r.held[id] {
				if i.what == job.Retry || i.what == job.DeadLetter && i.reason == job.MaxAttempts {
					charged++
				}
			}
		}
		if dead[id] != 1 || charged < 1 || charged > maxAttempts*(1+len(w.faults)) || len(w.faults) == 0 && charged != maxAttempts {
			w.fail("%s fails always: %d dead letters after %d attempts, want 1 after %d: %s", id, dead[id], charged, maxAttempts, w.story(id))
		}
	}
}

// explained tells whether a fault happened to one of the replicas that did the
// job, while it had it in hand: then the broker may have given it to another,
// or not have heard of its end.
func (w *world) explained(id string) bool {
	return slices.ContainsFunc(w.down.calls[id], func(c *call) bool {
		return c.done && w.disturbed(c.replica, c.replica.holding(id, c))
	})
}

// disturbed tells whether a fault could have made trouble for what a replica
// had in hand.
func (w *world) disturbed(r *replica, i interval) bool {
	return slices.ContainsFunc(w.faults, func(f fault) bool {
		late := ambiguity
		if f.kind == "incomplete drain" { // it says so: acks were not confirmed, as the connection had been silent
			late = noticed
		}
		return !w.harmless(f) && (f.replica == nil || f.replica == r) && !f.until.Before(i.from) && !f.at.After(i.to.Add(late))
	})
}

// harmless faults explain nothing: a connection that was cut is up again long
// before a lease is over, and so is a silent one that is noticed in time.
func (w *world) harmless(f fault) bool {
	switch f.kind {
	case "outage", "hang", "drain", "cut", "dead letters full":
		return true
	case "silence":
		return w.shape.ackWait > noticed
	}
	return false
}

// noticed is how long a silent connection may go unnoticed, and a little more.
const noticed = 20 * time.Second

// holding is the time during which a replica had the job of a call in hand.
func (r *replica) holding(id string, c *call) interval {
	for _, i := range r.held[id] {
		if !i.from.After(c.begin) && !i.to.Before(c.end) {
			return i
		}
	}
	return interval{from: c.begin, to: c.end}
}

func (w *world) story(id string) string {
	var b strings.Builder
	for _, c := range w.down.calls[id] {
		fmt.Fprintf(&b, " [replica %d %s–%s done %v]", c.replica.id, c.begin.Sub(w.began).Round(time.Millisecond), c.end.Sub(w.began).Round(time.Millisecond), c.done)
	}
	for _, r := range w.replicas {
		for _, i := range r.held[id] {
			fmt.Fprintf(&b, " {replica %d held delivery %d %s–%s: %s}", r.id, i.delivery, i.from.Sub(w.began).Round(time.Millisecond), i.to.Sub(w.began).Round(time.Millisecond), i.reason)
		}
	}
	return b.String()
}

// deadLetters counts them by job.
func (w *world) deadLetters(ctx context.Context) map[string]int {
	dead := map[string]int{}
	letters, err := w.broker.letters(ctx)
	if err != nil {
		w.fail("dead letters: %v", err)
	}
	for _, l := range letters {
		id := string(l.payload)
		dead[id]++
		if reason := job.Reason(l.header.Get(job.HeaderDLQReason)); !slices.Contains(job.Reasons(), reason) {
			w.fail("%s is dead for %q", id, reason)
		}
	}
	return dead
}

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
	seen.sometimes["done twice, explained"] += seen.twice
}
