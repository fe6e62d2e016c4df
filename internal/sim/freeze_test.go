package sim

import (
	"sync"
	"time"
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
// somebody else. Only the model can say so.
func (w *world) taken(stream, consumer string, sequence uint64, deliveries int) (since time.Time) {
	f, ok := w.broker.(*fake)
	if !ok {
		return time.Time{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.streams[stream]; s != nil {
		if c := s.consumers[consumer]; c != nil {
			if p := c.pending[sequence]; p != nil && p.deliveries > deliveries {
				return p.given
			}
		}
	}
	return time.Time{}
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
			if from := c.replica.holding(id, c).from; !w.forgot(from, c.begin) && !w.unnoticed(c.replica, c.begin) {
				w.fail("I9: replica %d called for %s at %s, which was somebody else's since %s: %s", c.replica.id, id, c.begin.Sub(w.began), c.taken.Sub(w.began), w.story(id))
			}
		}
	}
}

// forgot tells whether a broker may have forgotten in a time whose a job is.
func (w *world) forgot(from, to time.Time) bool {
	for _, f := range w.faults {
		switch f.kind {
		case "broker restart", "broker killed", string(noLeader), "consumer deleted", "drain at once":
			if !f.until.Before(from) && !f.at.After(to) {
				return true
			}
		}
	}
	return false
}

// unnoticed tells whether a connection stood still so shortly, measured by the
// lease, that nobody can notice: for less than the three seconds after which
// the broker's signs of life are missed.
func (w *world) unnoticed(r *replica, at time.Time) bool {
	for _, f := range w.faults {
		short := f.until.Sub(f.at) < 3*time.Second
		if f.kind == "stall" && f.replica == r && short && at.Sub(f.until) < w.shape.ackWait && w.shape.ackWait < 6*time.Second {
			return true
		}
	}
	return false
}
