package sim

import (
	"context"
	"math"
	"slices"
	"testing/synctest"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
)

// watch looks at all lanes now and then, at instants at which nothing moves.
func (w *world) watch(ctx context.Context) {
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			synctest.Wait()
			for _, l := range w.lanes() {
				l.balance()
			}
		}
	}
}

// lanes of all replicas that have been complete.
func (w *world) lanes() (all []*lane) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.replicas {
		select {
		case <-r.ready:
			all = append(all, r.lanes...)
		default:
		}
	}
	return all
}

// end waits for the last burial. Nobody dies any more.
func (w *world) end() {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.burials.Wait()
}

// balance is I11: what was received was settled, or is in hand; and I14: no
// more is in hand than there is room for.
func (l *lane) balance() {
	s := l.pool.Stats()
	held := 0
	for _, n := range s.Held {
		held += n
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.received != l.reported+held {
		l.r.w.fail("I11: replica %d pool %d received %d, settled %d and holds %d", l.r.id, l.n, l.received, l.reported, held)
	}
	if s.InFlight > l.r.w.shape.concurrency {
		l.r.w.fail("I5: replica %d pool %d runs %d of %d", l.r.id, l.n, s.InFlight, l.r.w.shape.concurrency)
	}
}

// check looks at a lane once it has ended.
func (l *lane) check() {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.r.w
	if l.received != l.reported {
		w.fail("I11: replica %d pool %d received %d and reported %d", l.r.id, l.n, l.received, l.reported)
	}
	if most := w.down.most[l]; most > w.shape.concurrency {
		w.fail("I5: %d calls ran at once in pool %d of replica %d, allowed are %d", most, l.n, l.r.id, w.shape.concurrency)
	}
	l.checkRoom()
	l.checkOrder()
	l.checkBreaker()
	if l.other != nil {
		l.other.checkAlternate()
	}
}

// checkAlternate looks at what stands in for a target.
func (l *lane) checkAlternate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if most := l.r.w.down.most[l]; most > l.r.w.shape.concurrency {
		l.r.w.fail("I5: %d calls ran at once instead of pool %d of replica %d, allowed are %d", most, l.n, l.r.id, l.r.w.shape.concurrency)
	}
	l.checkBreaker()
}

// checkRoom is I14: of no priority is more in hand than the pool has room for,
// the few that wait for their turn, and as many that were refused by an adaptive
// limit and wait to go on. Requests that were given up may be
// answered too. What jobs weigh is counted until their report, which comes after
// their successor.
func (l *lane) checkRoom() {
	sh := l.r.w.shape
	for n, s := range l.r.sources[l.n*job.Priorities:][:job.Priorities] {
		room := 2*(sh.concurrency+sh.prefetch) + 8 + sh.concurrency/4
		room += l.window
		if s.Stats().Epochs > 0 {
			room *= 2
		}
		if most := l.mostOf[n]; most > room || l.mostBytes[n] > 2*room*largest {
			l.r.w.fail("I14: replica %d pool %d held %d jobs of %s, %d bytes; there is room for %d", l.r.id, l.n, most, job.Priority(n), l.mostBytes[n], room)
		}
	}
}

// together is how far two instants may lie apart and pass for one.
const together = 5 * time.Millisecond

// turns: of so many contested permits one goes to who is less important.
const turns = 20

// checkOrder is I8: of those who start while somebody more important waits
// there are few, as every so many permits one goes to them; and I15: within a
// priority nobody overtakes.
func (l *lane) checkOrder() {
	slices.SortFunc(l.starts, func(a, b start) int { return a.started.Compare(b.started) })
	for _, a := range l.starts {
		if a.again || a.started.Sub(a.received) <= 2*together {
			continue
		}
		from, _ := slices.BinarySearchFunc(l.starts, a.received.Add(together), func(s start, t time.Time) int { return s.started.Compare(t) })
		below, all := 0, 0
		for _, b := range l.starts[from:] {
			if !b.started.Before(a.started.Add(-together)) {
				break
			}
			rank := a.rank(b.started)
			if all++; b.rank(b.started) > rank {
				below++
			}
			if b.priority == a.priority && b.rank(b.received) == a.rank(b.received) && b.rank(b.started) == rank && b.tenant == a.tenant && !b.again && b.received.After(a.received.Add(together)) {
				l.r.w.fail("I15: %s overtook %s", b.id, a.id)
			}
		}
		all += between(l.refusals, a.received, a.started) // they took turns too
		if below > 2+all/(turns*3/4) {
			l.r.w.fail("I8: %d of %d jobs that started while %s (%s) waited are less important", below, all, a.id, a.priority)
		}
	}
}

// between counts the instants in a time.
func between(at []time.Time, from, to time.Time) int {
	first, _ := slices.BinarySearchFunc(at, from, time.Time.Compare)
	last, _ := slices.BinarySearchFunc(at, to.Add(1), time.Time.Compare)
	return last - first
}

// checkBreaker is I6: the breaker did what a breaker of its configuration does,
// as far as can be told from outside.
func (l *lane) checkBreaker() {
	changes := l.changes
	state, since := breaker.Closed, time.Time{}
	for n, c := range changes {
		if c.From != state || c.To == c.From {
			l.breakerFails("went from %s to %s, and was %s", c.From, c.To, state)
		}
		switch c.To {
		case breaker.Open:
			l.checkWait(c)
		case breaker.HalfOpen:
			if n == 0 || c.At.Before(changes[n-1].Until) {
				l.breakerFails("was half open before its time")
			}
		case breaker.Closed:
			if l.good(since, c.At) < halfOpenCalls {
				l.breakerFails("closed after %d good probes", l.good(since, c.At))
			}
		}
		l.checkCalls(state, since, c.At)
		state, since = c.To, c.At
	}
	l.checkCalls(state, since, time.Now())
}

const (
	longestAsked   = 1100 * time.Millisecond // a Retry-After of a second, and the tenth that workerd may add so that not all come back at once
	halfOpenCalls  = 3
	openMultiplier = 1.5
	probeTimeout   = 10 * time.Second
)

func (l *lane) breakerFails(format string, args ...any) {
	l.r.w.fail("I6: the breaker of replica %d pool %d "+format, append([]any{l.r.id, l.n}, args...)...)
}

// checkWait: it is that of its opening, less the jitter, or what the target
// asked for.
func (l *lane) checkWait(c breaker.Change) {
	longest := time.Duration(min(float64(8*time.Second), float64(time.Second)*math.Pow(openMultiplier, float64(c.Opens-1))))
	if c.Wait < longest*8/10-time.Millisecond || c.Wait > max(longest, longestAsked) {
		l.breakerFails("opened for %s, the %d. time", c.Wait, c.Opens)
	}
}

// good calls that ended in a time.
func (l *lane) good(from, to time.Time) (n int) {
	for _, t := range l.trials {
		if (t.class == job.Success || t.class == job.Permanent) && !t.end.Before(from) && !t.end.After(to) {
			n++
		}
	}
	return n
}

// checkCalls that began in a state: none while open, one at a time while half
// open, and while closed not on and on after failures.
func (l *lane) checkCalls(state breaker.State, from, to time.Time) {
	var last, began time.Time // the end of the probe before, and its beginning
	for _, c := range l.r.w.down.lanes[l] {
		if !c.begin.After(from) || !c.begin.Before(to) || c.end.IsZero() {
			continue
		}
		switch state {
		case breaker.Open:
			l.breakerFails("let a call begin while it was open, at %s", c.begin.Sub(l.r.w.began))
		case breaker.HalfOpen:
			if c.begin.Before(last) && c.begin.Sub(began) < probeTimeout {
				l.breakerFails("let two probes run at once, at %s", c.begin.Sub(l.r.w.began))
			}
			last, began = c.end, c.begin
		}
	}
	if state != breaker.Closed {
		return
	}
	row := 0
	for _, t := range l.trials {
		if t.end.Before(from) || t.end.After(to) {
			continue
		}
		switch t.class {
		case job.Failure, job.Timeout, job.Panicked:
			row++
		case job.Success, job.Permanent:
			row = 0
		}
		if row > 5+l.r.w.shape.concurrency {
			l.breakerFails("was closed after %d failures in a row", row)
			return
		}
	}
}
