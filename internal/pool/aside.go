package pool

import (
	"time"

	"github.com/workerd/workerd/internal/bulkhead"
	"github.com/workerd/workerd/internal/job"
)

// The bulkhead can only choose among jobs in hand, and the stream gives them in
// its order: behind the hundred thousand jobs of one tenant nobody else is seen.
// So a pool that is fair holds a window of jobs that wait. A tenant may fill half
// of it, or its part of that half if others wait too; what it has beyond that is
// set aside, given back to the stream with a delay, so that the other half shows
// who comes next.
//
// The delay is the time until its turn if its tenant gets all permits. If that
// was too short it is set aside again; if it was too long it comes late, by a
// minute at most.

const (
	// leastAside and mostAside bound how long a job is set aside.
	leastAside = 100 * time.Millisecond
	mostAside  = time.Minute
	// guessTook is how long a job takes while none has ended.
	guessTook = 10 * time.Millisecond
	// overdue is how long after its time a job that was set aside is expected;
	// then another replica has it, or has done it.
	overdue = 5 * time.Second
)

// asides is what a fair pool knows of its tenants. Guarded by the pool's mu.
type asides struct {
	buckets
	most    int // jobs that may be set aside at once
	window  int // jobs of a priority that may wait in hand
	waiting [job.Priorities][bulkhead.Keys]int
	tenants [job.Priorities]int      // of whom somebody waits
	back    [bulkhead.Keys]time.Time // when the last one set aside is to come back
	away    map[uint64]aside         // by sequence; at most `most`
	out     [bulkhead.Keys]int       // of these, by tenant
	swept   time.Time                // when those overdue were forgotten
	took    time.Duration            // a job, of late
}

// aside is a job that was given back by this process, and is not here.
type aside struct {
	key        uint8
	enqueued   int64
	deliveries int
	times      int // it was set aside
	due        time.Time
	record     job.Record
}

func newAsides(cfg Config, b buckets) *asides {
	return &asides{
		buckets: b, most: cfg.Fairness.LookAhead, window: cfg.Window(),
		away: make(map[uint64]aside), took: guessTook,
	}
}

// recall finds out what is known of a job's earlier deliveries. Who was set
// aside here need not be looked up.
func (p *Pool) recall(h *held) {
	if p.asides != nil {
		p.mu.Lock()
		a, ok := p.asides.take(h.Job())
		p.mu.Unlock()
		if ok {
			h.record, h.aside = a.record, a.times
			return
		}
	}
	h.record = p.deps.Ledger.Load(h.ctx, h.Job())
}

// take forgets a job that has come back, and tells whether nobody else had it
// meanwhile.
func (a *asides) take(j *job.Job) (aside, bool) {
	was, ok := a.away[j.Sequence]
	a.forget(j.Sequence)
	return was, ok && was.deliveries+1 == j.Deliveries && was.enqueued == j.Enqueued.UnixNano()
}

func (a *asides) forget(seq uint64) {
	if was, ok := a.away[seq]; ok {
		delete(a.away, seq)
		a.out[was.key]--
	}
}

// makeWay counts a job among those that wait, or sets it aside.
func (p *Pool) makeWay(h *held) error {
	if p.asides == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a, now := p.asides, time.Now()
	// Whoever has begun stays: it may be marked as one whose worker died.
	if h.started.IsZero() && (p.backlog[h.priority] > 0 || a.othersAreOut(h)) && p.limit > 0 && !p.stopping && a.crowded(h) && a.roomFor(now) {
		return deferred{a.setAside(h, p.limit, now), job.Fairness}
	}
	a.count(h, 1)
	return nil
}

// madeWay ends what makeWay began.
func (p *Pool) madeWay(h *held) {
	if p.asides == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asides.count(h, -1)
}

func (a *asides) count(h *held, n int) {
	w := &a.waiting[h.priority][h.claim.Key]
	if *w == 0 {
		a.tenants[h.priority]++
	}
	if *w += n; *w == 0 {
		a.tenants[h.priority]--
	}
}

// crowded tells whether a job's tenant has its part of the window.
func (a *asides) crowded(h *held) bool {
	n, tenants := a.waiting[h.priority][h.claim.Key], a.tenants[h.priority]
	if n == 0 {
		tenants++
	}
	return n >= max(1, a.window/2/tenants)
}

// othersAreOut tells whether jobs of another tenant are to come back.
func (a *asides) othersAreOut(h *held) bool { return len(a.away) > a.out[h.claim.Key] }

func (a *asides) roomFor(now time.Time) bool {
	if len(a.away) >= a.most && now.Sub(a.swept) > time.Second {
		a.swept = now
		for seq, was := range a.away {
			if now.Sub(was.due) > overdue {
				a.forget(seq)
			}
		}
	}
	return len(a.away) < a.most
}

// setAside notes that a job is given back, and says for how long.
func (a *asides) setAside(h *held, limit int, now time.Time) time.Duration {
	step := a.took / time.Duration(limit)
	at := now.Add(time.Duration(a.waiting[h.priority][h.claim.Key]) * step)
	if back := a.back[h.claim.Key]; back.After(at) {
		at = back
	}
	after := min(at.Add(step).Sub(now), mostAside)
	a.back[h.claim.Key] = now.Add(after)
	after = max(after, leastAside)
	j := h.Job()
	a.out[h.claim.Key]++
	a.away[j.Sequence] = aside{
		key:      h.claim.Key,
		enqueued: j.Enqueued.UnixNano(), deliveries: j.Deliveries, times: h.aside + 1, due: now.Add(after), record: h.record,
	}
	return after
}

// lasted learns how long jobs take. The caller holds the pool's mu.
func (a *asides) lasted(took time.Duration) {
	a.took += (took - a.took) / 16
}
