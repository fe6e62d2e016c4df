package sim

import (
	"slices"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// barrier is what stands still while it is shut: a process that is stopped, or a
// connection on which nothing moves.
type barrier struct {
	mu   sync.Mutex
	open chan struct{} // nil while it is
	last time.Time     // when it was opened last
}

func (g *barrier) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *barrier) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
	g.open, g.last = nil, time.Now()
}

// pass waits until it is open. Nobody may hold a lock meanwhile: time would
// stand still.
func (g *barrier) pass() {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	if open != nil {
		<-open
	}
}

func (g *barrier) isShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open != nil
}

// openedSince tells whether it was shut at some time since.
func (g *barrier) openedSince(t time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open != nil || !g.last.Before(t)
}

// freeze stops a replica: its sources with what they bring, the signs of life,
// the ends of its calls, and what it says of a job. It is not told when it goes
// on, as a process is not after SIGSTOP, and finds what has arrived meanwhile.
func (r *replica) freeze() { r.frozen.shut() }

func (r *replica) thaw() { r.frozen.reopen() }

// stall lets nothing move on the connection, either way. It is all there, and
// goes on when that is over.
func (l *link) stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.stalled.shut()
	}
}

// flow goes on.
func (l *link) flow() {
	l.mu.Lock()
	c := l.conn
	l.mu.Unlock()
	if c != nil && c.stalled.isShut() {
		c.release()
	}
}

// release sends what was written meanwhile, and lets be read what has come.
func (c *linkConn) release() {
	c.mu.Lock()
	if len(c.late) > 0 {
		_, _ = c.Conn.Write(c.late) // it may be closed by now
	}
	c.late = nil
	c.stalled.reopen()
	c.mu.Unlock()
}

// delay keeps what is written while nothing moves.
func (c *linkConn) delay(p []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stalled.isShut() {
		return false
	}
	c.late = append(c.late, p...)
	return true
}

// taken tells since when a job that was delivered to somebody has been given to
// somebody else, and when it was given back for that by a third who did not have
// it any more. Only the model can say so.
func (w *world) taken(stream, consumer string, sequence uint64, deliveries int) (since, because time.Time) {
	f, ok := w.broker.(*fake)
	if !ok {
		return time.Time{}, time.Time{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.streams[stream]; s != nil {
		if c := s.consumers[consumer]; c != nil {
			if p := c.pending[sequence]; p != nil {
				for _, h := range p.handed {
					if h.n > deliveries {
						return h.at, h.because
					}
				}
			}
		}
	}
	return time.Time{}, time.Time{}
}

// checkTaken is the other half of I9: no call begins for a job that the broker
// has given to somebody else. Neither a process that was stopped nor a
// connection that stood still excuses it, only a broker that forgets whose it is.
func (w *world) checkTaken() {
	for id, calls := range w.down.calls {
		for _, c := range calls {
			if c.taken.IsZero() || c.begin.Sub(c.taken) <= together {
				continue
			}
			if from := c.replica.holding(id, c).from; !w.forgot(from, c.begin) && !w.unnoticed(c.replica, from, c.begin) && !w.mistaken(id, c.because) && !w.thawed(c) {
				w.fail("I9: replica %d called for %s at %s, which was somebody else's since %s: %s", c.replica.id, id, c.begin.Sub(w.began), c.taken.Sub(w.began), w.story(id))
			}
		}
	}
}

// forgot tells whether it may have been forgotten in a time whose a job is.
func (w *world) forgot(from, to time.Time) bool {
	return w.forgotWhose(from, to) || slices.ContainsFunc(w.faults, func(f fault) bool {
		return f.kind == "consumer deleted" && !f.until.Before(from) && !f.at.After(to)
	})
}

// forgotWhose is the same but for consumers that are made anew, which can be noticed.
func (w *world) forgotWhose(from, to time.Time) bool {
	return slices.ContainsFunc(w.faults, func(f fault) bool {
		switch f.kind {
		case "broker restart", "broker killed", string(noLeader), "drain at once":
			return !f.until.Before(from) && !f.at.After(to)
		}
		return false
	})
}

// unnoticed tells whether a connection stood still so shortly, measured by the
// lease, that nobody can notice: for less than the three seconds after which
// the broker's signs of life are missed. What came at its end is believed to be
// ours for as long as the broker confirms signs of life, whoever has it.
func (w *world) unnoticed(r *replica, from, at time.Time) bool {
	for _, f := range w.faults {
		short := f.until.Sub(f.at) < 3*time.Second
		came := !from.Before(f.at) && from.Sub(f.until) < together
		if f.kind == stall && f.replica == r && short && (came || at.Sub(f.until) < w.shape.ackWait) && w.shape.ackWait < 6*time.Second {
			return true
		}
	}
	return false
}

// thawed tells whether a call began at the very instant at which a process that
// had been stopped went on: nobody in it can have looked at the time.
func (w *world) thawed(c *call) bool {
	return slices.ContainsFunc(w.faults, func(f fault) bool {
		return f.kind == "freeze" && f.replica == c.replica && !c.begin.Before(f.until.Add(-together)) && !c.begin.After(f.until.Add(together))
	})
}

// mistaken tells whether who gave a job back at a time, though it was somebody
// else's, could not know: the broker had forgotten whose it is, a connection
// stood still, the consumer is another one, or the job was taken from that one in
// the same way before. All are told that their signs of life are welcome.
func (w *world) mistaken(id string, at time.Time) bool {
	for _, g := range w.gaveBack(id, at) {
		if w.forgotWhose(g.from, at) || w.stoodStill(g.replica, g.from, at) || w.orphaned(g, at) {
			return true
		}
		for _, before := range w.broker.(*fake).stolen[id] {
			if before.After(g.from) && before.Before(at) && w.mistaken(id, before) {
				return true
			}
		}
	}
	return false
}

// giver is a replica that gave a job back, and since when it had had it.
type giver struct {
	replica *replica
	from    time.Time
}

// gaveBack is who may have given a job back, as the broker heard at a time: at
// that time, or else earlier and without a connection, or over one that stood still.
func (w *world) gaveBack(id string, at time.Time) (then []giver) {
	var earlier []giver
	for _, r := range w.replicas {
		for _, i := range r.held[id] {
			switch ago := at.Sub(i.to); {
			case i.reason == job.LeaseLost || i.what == job.Done || i.what == job.DeadLetter || i.what == job.Drop:
			case ago > -together && ago < together:
				then = append(then, giver{r, i.from})
			case ago > 0 && (ago < w.shape.ackWait || w.stoodStill(r, i.to, at)):
				earlier = append(earlier, giver{r, i.from})
			}
		}
	}
	if len(then) == 0 {
		return earlier
	}
	return then
}

func (w *world) stoodStill(r *replica, from, to time.Time) bool {
	return slices.ContainsFunc(w.faults, func(f fault) bool {
		return f.kind == stall && f.replica == r && !f.until.Before(from) && !f.at.After(to)
	})
}

// orphaned tells whether what a replica gave back was of a consumer that was
// gone, and it could not know yet.
func (w *world) orphaned(g giver, at time.Time) bool {
	return slices.ContainsFunc(w.faults, func(f fault) bool {
		return f.kind == "consumer deleted" && !f.at.Before(g.from) && !at.After(w.knownAt(f, g.replica))
	})
}

// knownAt is by when a replica knows that a consumer is gone: it asks now and
// then, and gets no answer while something is the matter.
func (w *world) knownAt(deleted fault, r *replica) time.Time {
	const patience = 5 * time.Second // with an answer
	known := deleted.until.Add(askEvery + together)
	for n := 0; n < len(w.faults); n++ {
		f := w.faults[n]
		if w.mute(f, r) && !f.at.After(known) && f.until.Add(patience+askEvery).After(known) {
			known, n = f.until.Add(patience+askEvery), -1
		}
	}
	return known
}

// mute tells whether a fault may keep answers from a replica.
func (w *world) mute(f fault, r *replica) bool {
	switch f.kind {
	case "outage", "hang", drain, "dead letters full", "consumer deleted":
		return false
	}
	return f.replica == nil || f.replica == r
}
