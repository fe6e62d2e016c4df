package pool

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// A pool with one target waits for it as a whole: nothing is pulled while it is
// held. With several a consumer brings jobs of all of them in the order of the
// stream, so a pool is held only while they all are, and before each target there
// is a turnstile at which its jobs wait without a permit:
//
//	            ┌─ turnstile ─ waiting ┐
//	Deliver ──►─┤                      ├─► waiting ──permit──► handled
//	            └─ turnstile ──────────┘          of the pool
//	                  │ held for long, or too many wait already
//	                  └──► deferred, until its target is about to come back
//
// Those that wait there take no room, up to as many as the pool runs. The stream
// gives redeliveries before anything new, so those that are deferred come back one
// after the other, and what is for the other targets passes in between. Once that
// line is long, and a consumer brings hardly anything but jobs of a dead target, it
// is asked for one a second: more would only carry the backlog from the stream to
// its redeliveries.

// Lane is the way to one target.
type Lane struct {
	// Target is its name.
	Target string
	// Handler runs the jobs of the target, DeadLetters keeps those that failed.
	Handler     Handler
	DeadLetters DeadLetters
	// Gates of the target must all let a job through.
	Gates []Gate
}

// lane of a pool.
type lane struct {
	Lane
	turnstile *turnstile // nil: the pool has one target, and waits for it as a whole
}

// turnstile lets the jobs of one target through, as many as its gates say.
// Guarded by the pool's mu.
type turnstile struct {
	target  string
	hold    Hold
	since   time.Time // it lets nobody through; zero: it does
	limit   int       // of those inside
	inside  int       // let through and not ended
	running int       // of these, those with a permit
	back    time.Time // when the last of those deferred is to come back
	waiting [job.Priorities][]*held
}

const (
	// short is how long a target that works may be held at a time: it paces its calls.
	short = time.Second
	// longDeferral is the longest that a job is given back for because it was so before.
	longDeferral = 2 * time.Minute
	// step is between two jobs of a dead target that come back, so that there are at
	// most 200 a second; a consumer can bring some thousands.
	step = 5 * time.Millisecond
	// longest is the line of those that come back, 24,000 jobs: after the wait of
	// their target it lasts for so long.
	longest = 2 * time.Minute
)

// newLanes of a pool.
func newLanes(deps Deps) []*lane {
	lanes := make([]*lane, len(deps.Lanes))
	for i, l := range deps.Lanes {
		lanes[i] = &lane{Lane: l}
		if len(deps.Lanes) > 1 {
			lanes[i].turnstile = &turnstile{target: l.Target, limit: Unlimited, hold: Hold{Credit: Unlimited}}
		}
	}
	return lanes
}

// laneOf is the way a job takes, for as long as it is in hand.
func (p *Pool) laneOf(j *job.Job) *lane {
	if len(p.lanes) == 1 {
		return p.lanes[0]
	}
	return p.lanes[p.deps.Route(j)]
}

// turnstiles are those of a pool with several targets.
func (p *Pool) turnstiles(yield func(*turnstile) bool) {
	for _, l := range p.lanes {
		if l.turnstile != nil && !yield(l.turnstile) {
			return
		}
	}
}

// pass waits until the job's target may get one more.
func (p *Pool) pass(h *held) error {
	t := h.lane.turnstile
	if t == nil {
		return nil
	}
	now := time.Now()
	p.mu.Lock()
	if p.room.Err() != nil {
		p.mu.Unlock()
		return errReleased
	}
	dead := t.isDead()
	p.recent[h.priority].note(h, dead, now)
	if t.inside < t.limit && t.nobodyWaits() {
		t.admit(h)
		p.mu.Unlock()
		return nil
	}
	if dead && (t.remaining(now) > p.cfg.MaxPark || p.parked() >= p.cfg.Concurrency) {
		d := t.deferral(h, now)
		p.mu.Unlock()
		return d
	}
	p.leaveDoor(h)
	h.ticket = make(chan error, 1)
	t.waiting[h.priority] = append(t.waiting[h.priority], h)
	p.request() // it takes no room
	p.mu.Unlock()
	select {
	case err := <-h.ticket:
		return err
	case <-h.ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !t.forsake(h) && <-h.ticket == nil {
		p.leave(h)
	}
	return context.Cause(h.ctx)
}

// leave gives back what pass has given. The caller holds mu.
func (p *Pool) leave(h *held) {
	t := h.lane.turnstile
	if t == nil || !h.inside {
		return
	}
	h.inside = false
	t.inside--
	t.grant()
}

// isDead tells whether the jobs of a target had better be elsewhere: it is down and
// its probes are taken, or held for longer than a pace would. The caller holds mu,
// as do those of all that follow.
func (t *turnstile) isDead() bool {
	if t.hold.Down {
		return t.inside >= t.limit
	}
	return !t.since.IsZero() && (t.hold.Until.IsZero() || t.hold.Until.Sub(t.since) > short)
}

// remaining is how long the target will be held, 0 if nobody knows.
func (t *turnstile) remaining(now time.Time) time.Duration {
	if t.hold.Until.IsZero() {
		return 0
	}
	return max(0, t.hold.Until.Sub(now))
}

// deferral is until the target is about to come back, and then not for all at once.
// A job that was given back often already is given back for longer: as often as it
// may be (max_deferrals) must last for a day.
func (t *turnstile) deferral(h *held, now time.Time) deferred {
	at := now.Add(max(short, t.remaining(now)))
	if next := t.back.Add(step); next.After(at) {
		at = next
	}
	t.back = at
	often := min(time.Duration(h.record.Deferrals)*time.Second, longDeferral)
	after := max(at.Sub(now), often)
	return deferred{after + time.Duration(rand.Float64()*float64(after)/4), job.Reason(t.hold.Reason)}
}

// isBookedOut tells whether no more should be made to come back.
func (t *turnstile) isBookedOut(now time.Time) bool {
	return t.back.Sub(now) > t.remaining(now)+longest
}

func (t *turnstile) regulate(hold Hold, now time.Time) {
	t.hold, t.limit = hold, Unlimited
	switch {
	case hold.Holds(t.running):
		t.limit = 0 // also as those that run end
		if t.since.IsZero() {
			t.since = now
		}
	case hold.Credit < Unlimited:
		t.limit, t.since = t.running+hold.Credit, time.Time{}
	default:
		t.since = time.Time{}
	}
	t.grant()
}

func (t *turnstile) nobodyWaits() bool {
	for _, line := range t.waiting {
		if len(line) > 0 {
			return false
		}
	}
	return true
}

func (t *turnstile) admit(h *held) {
	h.inside = true
	t.inside++
}

// grant lets in who is next, as long as there is room.
func (t *turnstile) grant() {
	for _, priority := range order(t.hold.LowestFirst) {
		for len(t.waiting[priority]) > 0 && t.inside < t.limit {
			h := t.waiting[priority][0]
			t.waiting[priority] = slices.Delete(t.waiting[priority], 0, 1)
			t.admit(h)
			h.ticket <- nil
		}
	}
}

// forsake takes out somebody who waits, and tells whether he did.
func (t *turnstile) forsake(h *held) bool {
	i := slices.Index(t.waiting[h.priority], h)
	if i >= 0 {
		t.waiting[h.priority] = slices.Delete(t.waiting[h.priority], i, i+1)
	}
	return i >= 0
}

// dismiss sends away the last of those who wait until n are left.
func (t *turnstile) dismiss(n int, why func(*held) error) {
	left := t.length() - n
	for priority := len(t.waiting) - 1; priority >= 0; priority-- {
		for line := &t.waiting[priority]; left > 0 && len(*line) > 0; left-- {
			last := len(*line) - 1
			(*line)[last].ticket <- why((*line)[last])
			*line = slices.Delete(*line, last, last+1)
		}
	}
}

func (t *turnstile) length() (n int) {
	for _, line := range t.waiting {
		n += len(line)
	}
	return n
}

// parked is how many jobs wait at a turnstile.
func (p *Pool) parked() (n int) {
	for t := range p.turnstiles {
		n += t.length()
	}
	return n
}

// inRoom are the jobs in hand, by priority, without those that wait at a
// turnstile. Of these, more than the pool runs do not go uncounted: a target that
// is only slow holds the others up in the end.
func (p *Pool) inRoom() [job.Priorities]int {
	in, left := p.count, p.cfg.Concurrency
	if len(p.lanes) == 1 {
		return in
	}
	for t := range p.turnstiles {
		for priority, line := range t.waiting {
			n := min(left, len(line))
			in[priority] -= n
			left -= n
		}
	}
	return in
}

// askLanes asks the gates of each target.
func (p *Pool) askLanes(now time.Time, inFlight int) []Hold {
	holds := make([]Hold, len(p.lanes))
	for i, l := range p.lanes {
		holds[i] = strictest(Hold{Credit: Unlimited}, l.Gates, now, inFlight)
	}
	return holds
}

// soonestChange is when something that holds the pool, a target or a consumer
// changes by itself; zero: never. The caller holds mu.
func (p *Pool) soonestChange(now time.Time) time.Time {
	soonest := p.hold.Until
	if len(p.lanes) == 1 {
		return soonest
	}
	sooner := func(t time.Time) {
		if !t.IsZero() && (soonest.IsZero() || t.Before(soonest)) {
			soonest = t
		}
	}
	for t := range p.turnstiles {
		sooner(t.hold.Until)
	}
	if hold, ok := p.slowed(); ok && hold.Until.After(now) { // else a job is asked for and has not come
		sooner(hold.Until)
	}
	return soonest
}

// regulateLanes sets who may pass, and returns what the targets let through
// together.
func (p *Pool) regulateLanes(holds []Hold, now time.Time) Hold {
	all := Hold{}
	for i, hold := range holds {
		t := p.lanes[i].turnstile
		hold.Target = t.target
		t.regulate(hold, now)
		if all = all.wider(hold); i == 0 {
			all = hold
		}
	}
	for t := range p.turnstiles {
		if !t.isDead() {
			continue
		}
		keep := max(0, p.cfg.Concurrency-(p.parked()-t.length()))
		if t.remaining(now) > p.cfg.MaxPark {
			keep = 0
		}
		t.dismiss(keep, func(h *held) error { return t.deferral(h, now) })
	}
	return all
}
