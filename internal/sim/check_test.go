package sim

import (
	"bytes"
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

// heal waits until the stream is empty, with nothing going wrong any more. If
// only jobs are left that always fail, their target is down for all that workerd
// can tell, and a job that finds that out does not die of it: so in the end
// they are mended, too.
func (w *world) heal(ctx context.Context) {
	began := time.Now()
	mended, deadline := began.Add(5*time.Minute), began.Add(w.shape.ackWait+15*time.Minute)
	for {
		if w.t.Failed() {
			return // it may take for ever
		}
		if time.Now().After(mended) {
			w.down.mend()
		}
		left, err := w.broker.left(ctx)
		if err == nil && left == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.fail("I16: %d jobs are left in the stream long after everything was healed (%v)", left, err)
			w.tellWhy()
			return
		}
		pause(ctx, time.Second)
	}
}

// tellWhy nothing goes on.
func (w *world) tellWhy() {
	for _, l := range w.lanes() {
		if !l.r.gone.Load() {
			w.note("replica %d pool %d: %+v, breaker %+v", l.r.id, l.n, l.pool.Stats(), l.guard.Stats(time.Now()))
		}
	}
	for _, r := range w.alive() {
		for _, s := range r.sources {
			w.note("replica %d: %+v", r.id, s.Stats())
		}
	}
	if f, ok := w.broker.(*fake); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, c := range f.consumers() {
			for seq, p := range c.pending {
				id := idOf(c.s.msgs[seq].data)
				w.note("consumer %s: %s, delivered %d times, the last time at %s, comes again at %s: %s", c.name, id, p.deliveries, p.handed[len(p.handed)-1].at.Sub(w.began), p.since.Add(c.cfg.AckWait).Sub(w.began), w.story(id))
			}
			w.note("consumer %s: %d fresh, %d again, %d pending, %d waiting, next look %s", c.name, len(c.fresh), len(c.again), len(c.pending), len(c.waiting), c.timerAt.Sub(w.began))
		}
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
	seen.twice = w.checkEnds(dead)
	w.checkLeases()
	w.checkTaken()
	w.checkAttempts(dead)
	w.checkPoison()
	w.checkSpacing()
	w.checkDrains()
	for _, l := range w.lanes() {
		l.check()
	}
	for _, r := range w.replicas {
		for _, s := range r.sources {
			if st := s.Stats(); st.Lost > 0 {
				w.fail("I1: replica %d says that %d jobs of %s are lost", r.id, st.Lost, st.Consumer)
			}
		}
	}
	w.count(&seen, dead)
	return seen
}

// checkEnds is I1 (nothing is lost), I2 (no ack before the end), I3 (nothing
// that was not published), I12 (one dead letter) and I13 (what was done twice
// has a fault that explains it). It returns how many were.
func (w *world) checkEnds(dead map[string]int) (twice int) {
	for id := range w.acked {
		done := w.answered[id]
		for _, c := range w.down.calls[id] {
			if c.done && !w.isHedge(id, c) {
				done++
			}
		}
		if r := w.twiceBySame(id); r != nil {
			w.fail("I13: replica %d, which had done %s, did it again: %s", r.id, id, w.story(id))
		}
		switch letters := dead[id]; {
		case done == 0 && letters == 0 && !w.dropped[id]:
			w.fail("I1: %s is lost: %s", id, w.story(id))
		case letters > 1:
			w.fail("I12: %s has %d dead letters", id, letters)
		case done+letters > 1 && done+letters > 1+w.explanations(id, letters):
			w.fail("I13: %s was done %d times and has %d dead letters; faults explain %d repetitions: %s", id, done, letters, w.explanations(id, letters), w.story(id))
		case done+letters > 1:
			twice++
		}
	}
	for id := range w.down.calls {
		if !w.acked[id] {
			w.fail("I3: %s was called and never published", id)
		}
	}
	for _, r := range w.replicas {
		for id, held := range r.held {
			for _, i := range held {
				if i.what == job.Done && i.source != job.Static && !slices.ContainsFunc(w.down.calls[id], func(c *call) bool { return c.done && c.replica == r && !c.end.After(i.to) }) {
					w.fail("I2: replica %d took %s for done: %s", r.id, id, w.story(id))
				}
			}
		}
	}
	return twice
}

// isHedge tells whether a call was made while another one of the same attempt
// went on, of a target that may be called twice.
func (w *world) isHedge(id string, c *call) bool {
	return w.hedges(w.poolOf(id)) && slices.ContainsFunc(w.down.calls[id], func(o *call) bool {
		return o.done && o.replica == c.replica && o.begin.Before(c.begin) && c.begin.Before(o.end) && c.replica.holding(id, o).from.Equal(c.replica.holding(id, c).from)
	})
}

// checkLeases: a lease is lost for a reason only.
func (w *world) checkLeases() {
	for _, r := range w.replicas {
		for id, held := range r.held {
			for _, i := range held {
				if i.reason == job.LeaseLost && !w.disturbed(r, i) {
					w.fail("I9: replica %d lost the lease of %s, and nothing had happened: %s", r.id, id, w.story(id))
				}
			}
		}
	}
}

// twiceBySame returns a replica that did a job twice and should have known: it
// had done it when the job came again. If it came again before, the lease had
// been lost; then a fault has to explain it, as for two replicas.
func (w *world) twiceBySame(id string) *replica {
	first := map[*replica]*call{}
	for _, c := range w.down.calls[id] {
		was := first[c.replica]
		if c.done && was != nil && c.replica.holding(id, c).from.After(was.end.Add(together)) {
			return c.replica
		}
		if c.done && was == nil {
			first[c.replica] = c
		}
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
			if (was.what == job.Retry || was.what == job.Defer) && early > 0 && !w.anyFault(was.from, next.from) && !w.keptAlive(all, was.to, next.from) {
				w.fail("I4: %s came again %s early: %s", id, early, w.story(id))
			}
		}
	}
}

// keptAlive tells whether somebody had a job meanwhile of a consumer that is gone:
// to the one that was made anew his signs of life are the end of a wait.
func (w *world) keptAlive(all []interval, from, to time.Time) bool {
	return slices.ContainsFunc(all, func(i interval) bool {
		return i.from.Before(from) && i.to.After(from) && slices.ContainsFunc(w.faults, func(f fault) bool {
			return f.kind == "consumer deleted" && !f.until.Before(i.from) && f.at.Before(to)
		})
	})
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
				w.fail("I10: replica %d called for %s %s after its drain had begun at %s: %s", c.replica.id, id, c.begin.Sub(at), at.Sub(w.began), w.story(id))
			}
		}
	}
}

// charge counts an attempt of a job that failed. There are no more than allowed; a
// broker that forgets its consumer, and what could not be written down, let them
// be counted anew. A fault is known when it is over.
func (w *world) charge(id string) {
	w.mu.Lock()
	w.charged[id]++
	n, faults := w.charged[id], len(w.faults)
	w.mu.Unlock()
	if n > maxAttempts*(2+faults) {
		w.fail("I4: %s failed %d times, and %d are allowed", id, n, maxAttempts)
	}
}

// forgotten is how often a job's attempts may have been counted anew: deliveries of a
// consumer that is made anew are, and so are those of which the broker did not say
// what was before.
func (w *world) forgotten() (n int) {
	for _, f := range w.faults {
		switch f.kind {
		case "outage", "hang", "cut", drain, "incomplete drain", "dead letters full", slowNotes, cutThenDrain:
		default:
			n++
		}
	}
	return n
}

// checkAttempts: what is dead for having failed often did so as often as allowed,
// and what never succeeds while its target works is dead in the end.
func (w *world) checkAttempts(dead map[string]int) {
	for id := range w.acked {
		gaveUp, poisoned := false, false // poisoned: by others that killed the workers they shared
		counted := 0                     // attempts that nothing can have kept from being written down
		for _, r := range w.replicas {
			for _, i := range r.held[id] {
				gaveUp, poisoned = gaveUp || i.reason == job.MaxAttempts, poisoned || i.reason == job.Poison
				if (i.what == job.Retry || i.reason == job.MaxAttempts) && !w.anyFault(i.from, i.to) {
					counted++
				}
			}
		}
		charged := w.charged[id]
		if gaveUp && charged < maxAttempts || counted > maxAttempts*(1+w.forgotten()) {
			w.fail("I4: %s failed %d times, %d of them far from any fault, and %d are allowed (given up: %v): %s", id, charged, counted, maxAttempts, gaveUp, w.story(id))
		}
		mended := slices.ContainsFunc(w.down.calls[id], func(c *call) bool { return c.done })
		if !w.hopeless(id) || mended || w.answered[id] > 0 || w.kills(id) || w.seed.chance(id, "header") < 0.03 {
			continue
		}
		if dead[id] != 1 || charged < 1 && !poisoned || len(w.faults) == 0 && charged != maxAttempts {
			w.fail("I4: %s fails always: %d dead letters after %d attempts, want 1 after %d: %s", id, dead[id], charged, maxAttempts, w.story(id))
		}
	}
}

// checkPoison: a job is taken for one that kills its workers only if as many as
// allowed died while they ran it, or panicked, or could not write down how it
// ended. The first of them may have handed it back: that is not written down.
func (w *world) checkPoison() {
	for id := range w.acked {
		poisoned, hurt := false, 0
		for _, r := range w.replicas {
			for _, i := range r.held[id] {
				poisoned = poisoned || i.reason == job.Poison
				if i.reason == job.PanicReason || i.delivery > 1 && i.reason != job.Poison && w.uncounted(r, i) {
					hurt++
				}
			}
		}
		if poisoned && hurt < maxCrashes-1 && !w.kills(id) {
			w.fail("I12: %s is taken for poison: %s", id, w.story(id))
		}
	}
}

// uncounted tells whether a worker may have died while it had a job, or what it
// wrote down may be lost. What is written while there is no connection waits
// for one, but not in a drain.
func (w *world) uncounted(r *replica, i interval) bool {
	return slices.ContainsFunc(w.faults, func(f fault) bool {
		switch f.kind {
		case "outage", "hang", "cut", drain, "dead letters full":
			return false
		}
		return (f.replica == nil || f.replica == r) && !f.until.Before(i.from) && !f.at.After(i.to.Add(ambiguity))
	})
}

// explanations counts how often a fault happened to one of the replicas that did the
// job, or buried it, while it had it in hand: then the broker may have given it
// to another, or not have heard of its end. Each is good for one repetition. Whether
// a dead letter is stored nobody knows until that is confirmed.
func (w *world) explanations(id string, letters int) (n int) {
	for _, r := range w.replicas {
		for _, i := range r.held[id] {
			if w.explains(id, r, i) || letters > 0 && w.mayBeBuried(r, i) {
				n++
			}
		}
	}
	for _, c := range w.down.calls[id] { // of a replica that has crashed nothing else is known
		if i := c.replica.holding(id, c); c.done && i.delivery == 0 && w.repeats(c.replica, i) {
			n++
		}
	}
	return n
}

// mayBeBuried tells whether a dead letter may have been stored in vain: the stream's
// confirmation was lost.
func (w *world) mayBeBuried(r *replica, i interval) bool {
	return (i.reason == job.NoDLQ || i.reason == job.LeaseLost) && w.disturbed(r, i)
}

func (w *world) explains(id string, r *replica, i interval) bool {
	switch {
	case i.what == job.DeadLetter || i.source == job.Static:
		return w.repeats(r, i)
	case slices.ContainsFunc(w.down.calls[id], func(c *call) bool { return c.done && c.replica == r && r.holding(id, c) == i }) && w.repeats(r, i):
		return true
	}
	return i.what != job.Done && (w.late(r, i) || w.orphaned(giver{r, i.from}, i.to))
}

// late tells whether what a replica said of a job may have arrived when the job
// was somebody else's: it stood still on its way, or the broker had forgotten
// whose the job was. The broker does not compare. Nor does it if the consumer is
// another one, which takes a moment to be known, see orphaned.
func (w *world) late(r *replica, i interval) bool {
	return slices.ContainsFunc(w.faults, func(f fault) bool {
		forgetful := slices.Contains([]string{"broker restart", "broker killed", string(noLeader)}, f.kind)
		return (f.kind == stall && f.replica == r || forgetful) && !f.until.Before(i.from) && !f.at.After(i.to)
	})
}

// disturbed tells whether a fault could have made trouble for what a replica
// had in hand.
func (w *world) disturbed(r *replica, i interval) bool {
	return slices.ContainsFunc(w.faults, func(f fault) bool { return w.disturbs(f, r, i) })
}

// repeats tells whether a fault could be why somebody else got a job that was
// done. A lost confirmation costs a replica its lease, in its opinion, and no
// more: what it did is sent again, but for what would hit another's run.
func (w *world) repeats(r *replica, i interval) bool {
	return slices.ContainsFunc(w.faults, func(f fault) bool {
		return f.kind != string(lostConfirmations) && w.disturbs(f, r, i)
	})
}

func (w *world) disturbs(f fault, r *replica, i interval) bool {
	if f.kind == stall {
		f.until = f.until.Add(asking)
	}
	late := ambiguity
	if f.kind == "incomplete drain" || r.silent.Load() {
		late = noticed + longestDown // until then nobody may have heard of what was done on a silent connection
	}
	return !w.harmless(f) && (f.replica == nil || f.replica == r) && !f.until.Before(i.from) && !f.at.After(i.to.Add(late))
}

// harmless faults explain nothing: a connection that was cut is up again long
// before a lease is over, and so is a silent one that is noticed in time.
func (w *world) harmless(f fault) bool {
	switch f.kind {
	case "outage", "hang", drain, "cut", "dead letters full", slowThenDrain, cutThenDrain:
		return true
	case "silence":
		return w.shape.ackWait > noticed
	}
	return false
}

// asking is how long a source may be asking for its consumer before it looks at what
// has come meanwhile.
const asking = 5 * time.Second

// longestDown is a broker that is restarted.
const longestDown = 15 * time.Second

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
		id := idOf(l.payload)
		dead[id]++
		w.checkLetter(id, l)
		if reason := job.Reason(l.header.Get(job.HeaderDLQReason)); !slices.Contains(job.Reasons(), reason) {
			w.fail("I12: %s is dead for %q", id, reason)
		}
	}
	return dead
}

// checkLetter: it is the job, and none of its headers commands the broker.
func (w *world) checkLetter(id string, l letter) {
	if !bytes.Equal(l.payload, w.payload(id)) || l.header.Get("X-Kept") != id || l.header.Get(job.HeaderOrigPrefix+job.HeaderMsgID) != id {
		w.fail("I12: the dead letter of %s is not the job: %v", id, l.header)
	}
	for key := range l.header {
		if strings.HasPrefix(key, "Nats-") && key != job.HeaderMsgID && key != "Nats-Expected-Stream" || key == job.HeaderMsgID && l.header.Get(key) == id {
			w.fail("I12: the dead letter of %s has the job's %s", id, key)
		}
	}
}
