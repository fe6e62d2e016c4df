package sim

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
)

// lane is one pool of one replica, and what was seen of it.
type lane struct {
	r     *replica
	n     int
	pool  *pool.Pool
	guard *breaker.Breaker

	other     *lane // what stands in for its target, nil if nothing does
	alternate bool  // it is that itself
	window    int   // jobs that may wait so that tenants are seen

	mu       sync.Mutex
	received int
	reported int
	changes  []breaker.Change
	trials   []trial
	starts   []start
	most     int // jobs in hand
	inHand   map[string]*pulse

	mostOf, bytes, mostBytes [job.Priorities]int // jobs in hand by the priority of their source, and what they weigh

	refused  map[job.Reason]int
	refusals []time.Time
	seen     map[string]int
	again    int // calls that were not the first of their attempt
}

// trial is a call as the pipeline saw it end.
type trial struct {
	end   time.Time
	class job.Class
}

// start of a job.
type start struct {
	id, tenant        string
	priority          job.Priority
	enqueued          time.Time
	received, started time.Time
	again             bool // it had come before
}

// rank of a job among those that wait: one that is old counts as of the priority
// above, as in the defaults of pool.
func (s start) rank(at time.Time) job.Priority {
	after := map[job.Priority]time.Duration{job.Normal: 5 * time.Minute, job.Low: 15 * time.Minute}[s.priority]
	if after > 0 && at.Sub(s.enqueued) >= after {
		return s.priority - 1
	}
	return s.priority
}

func (l *lane) changed(c breaker.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes = append(l.changes, c)
}

func (l *lane) try(t pipeline.Try) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trials = append(l.trials, trial{time.Now(), t.Result.Class})
}

func (l *lane) report(p pool.Report) {
	l.mu.Lock()
	l.reported++
	l.bytes[p.Priority] -= len(p.Job.Payload)
	if p.Age > 0 {
		l.starts = append(l.starts, start{idOf(p.Job.Payload), l.r.w.tenantIn(l.n, idOf(p.Job.Payload)), p.Job.Priority, p.Job.Enqueued, p.Received, p.Job.Enqueued.Add(p.Age), p.Job.Deliveries > 1})
	}
	l.mu.Unlock()
	l.r.report(p)
}

// watched is a source whose deliveries are counted.
type watched struct {
	pool.Source
	l        *lane
	priority job.Priority
}

// Run implements pool.Source.
func (w watched) Run(ctx context.Context, to job.Receiver) {
	w.Source.Run(ctx, counting{to, w})
}

type counting struct {
	job.Receiver
	watched
}

// Deliver implements job.Receiver.
func (c counting) Deliver(d job.Delivery, backlog uint64) {
	c.l.r.frozen.pass()
	p := &pulse{Delivery: d, l: c.l, last: time.Now(), ackWait: c.AckWait(), priority: c.priority}
	c.l.receive(idOf(d.Job().Payload), p)
	c.Receiver.Deliver(p, backlog)
	held := c.l.pool.Stats().Held[c.priority]
	c.l.mu.Lock()
	c.l.mostOf[c.priority] = max(c.l.mostOf[c.priority], held)
	c.l.mu.Unlock()
}

// receive is part of I13: what is in hand, and known to be ours, does not come
// again.
func (l *lane) receive(id string, p *pulse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.received++
	l.bytes[p.priority] += len(p.Job().Payload)
	l.mostBytes[p.priority] = max(l.mostBytes[p.priority], l.bytes[p.priority])
	l.most = max(l.most, l.received-l.reported)
	if first, ok := l.inHand[id]; ok && time.Now().Before(first.LeaseUntil()) {
		l.r.w.fail("I13: %s came to replica %d, which had it in hand", id, l.r.id)
	}
	l.inHand[id] = p
}

func (l *lane) handBack(p *pulse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id := idOf(p.Job().Payload); l.inHand[id] == p {
		delete(l.inHand, id)
	}
}

// pulse is a delivery whose signs of life are watched.
type pulse struct {
	job.Delivery
	l        *lane
	ackWait  time.Duration
	priority job.Priority // of its source

	mu   sync.Mutex
	last time.Time
}

// Extend implements job.Delivery.
func (p *pulse) Extend() {
	p.l.r.frozen.pass()
	p.beat()
	p.Delivery.Extend()
}

// Settle implements job.Delivery.
func (p *pulse) Settle(v job.Verb, after time.Duration) error {
	p.l.r.frozen.pass()
	p.beat()
	p.l.handBack(p)
	return p.Delivery.Settle(v, after)
}

// beat is checker I9: what is in hand gives a sign of life in time, as long as
// it is known to be ours.
func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if gap := now.Sub(p.last); gap > p.ackWait*6/10 && now.Before(p.LeaseUntil()) && !p.l.r.frozen.openedSince(p.last) {
		p.l.r.w.fail("I9: replica %d gave no sign of life for %s during %s, of %s", p.l.r.id, idOf(p.Job().Payload), gap, p.ackWait)
	}
	p.last = now
}

// checkLease is part of I9: a call whose lease is over is ended, as somebody else
// has the job by now.
func (l *lane) checkLease(id string, c *call) {
	l.mu.Lock()
	p := l.inHand[id]
	l.mu.Unlock()
	if p == nil {
		return
	}
	if until := p.LeaseUntil(); time.Now().After(until.Add(together)) && !l.r.frozen.openedSince(until) {
		l.r.w.fail("I9: replica %d went on with a call for %s, begun at %s, for %s after its lease was over", l.r.id, id, c.begin.Sub(l.r.w.began), time.Since(until))
	}
}

// undertaker is a pool's dead letters. Now and then the replica dies right
// after one was stored.
type undertaker struct {
	pool.DeadLetters
	r *replica
}

// Put implements pool.DeadLetters.
func (u undertaker) Put(ctx context.Context, j *job.Job, o job.Outcome, r job.Record) error {
	err := u.DeadLetters.Put(ctx, j, o, r)
	if err == nil && u.r.w.seed.chance(idOf(j.Payload), j.Deliveries, "dies after the dead letter") < 0.01 {
		u.r.dies("crash after a dead letter")
	}
	return err
}

// scribe is a pool's ledger, and says what is written of suspects.
type scribe struct {
	pool.Ledger
	r *replica
}

// Load implements pool.Ledger.
func (s scribe) Load(ctx context.Context, j *job.Job) job.Record {
	rec := s.Ledger.Load(ctx, j)
	if rec.Started > 0 {
		s.r.w.note("replica %d reads of %s, delivery %d: %+v", s.r.id, idOf(j.Payload), j.Deliveries, rec)
	}
	return rec
}

// Add implements pool.Ledger.
func (s scribe) Add(ctx context.Context, j *job.Job, since job.Record) job.Record {
	rec := s.Ledger.Add(ctx, j, since)
	s.r.w.note("replica %d adds to %s, delivery %d: %+v, which makes %+v", s.r.id, idOf(j.Payload), j.Deliveries, since, rec)
	return rec
}

// idOf a job is the first word of its payload.
func idOf(payload []byte) string {
	id, _, _ := strings.Cut(string(payload[:min(len(payload), 32)]), " ")
	return id
}

// largest payload in bytes.
const largest = 200_100

// payload of a job. Most are small.
func (w *world) payload(id string) []byte {
	size := w.seed.between(0, 100, id, "size")
	switch u := w.seed.chance(id, "kind of size"); {
	case u < 0.002:
		size = w.seed.between(10_000, largest-100, id, "size")
	case u < 0.05:
		size = w.seed.between(1_000, 8_000, id, "size")
	}
	return append([]byte(id+" "), strings.Repeat(fmt.Sprintf("%x.", w.seed.between(0, 1<<30, id, "filler")), size/8)...)
}
