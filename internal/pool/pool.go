// Package pool runs the jobs of one compartment: it asks for as many as may
// start, lets them wait for a permit, has them handled, and settles each once.
//
// What it guarantees:
//  1. Every delivery is settled exactly once, or its lease is lost.
//  2. Never more than the limit of jobs are being handled.
//  3. Nothing is asked for that could not start: requested and held jobs
//     together stay within the room of their priority, but for a few that wait
//     in hand for their turn in a pool with several priorities.
//  4. No job starts after the fetch context has ended.
//  5. A dead letter is stored before its job is terminated.
//  6. Everything in hand is kept alive until it is settled.
//
// What it leaves to others: how a job is handled (pipeline), how it gets here
// and how the broker is told (queue), which priorities have room (shed).
//
// A job's way through the pool:
//
//	Deliver ─► waiting ──permit──► handled ──outcome──► settled ─► Report
//	             ▲  │                  │ Park: the gate has closed meanwhile
//	             │  └─ room closed ────┼────────────────► settled (released, deferred)
//	             └─────────────────────┘
package pool

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/bulkhead"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/shed"
)

// Source brings the jobs of one priority, exactly as many as were requested.
type Source interface {
	// Run brings jobs until ctx ends; after it has returned no job of this
	// source is on its way to this process.
	Run(ctx context.Context, to job.Receiver)
	// Request asks for n more. It does not block.
	Request(n int)
	// AckWait is the lease of a delivery.
	AckWait() time.Duration
}

// Handler runs one job and says what became of it. It settles nothing.
type Handler interface {
	// Handle never panics. The context ends with a cause when the job has to
	// be given up; draining is closed when no new call must be started.
	Handle(ctx context.Context, j *job.Job, before job.Record, draining <-chan struct{}) job.Outcome
}

// DeadLetters keeps jobs that will not be tried again.
type DeadLetters interface {
	// Put returns once the dead letter is safely stored, exactly once however
	// often it is called for the same job.
	Put(ctx context.Context, j *job.Job, o job.Outcome, r job.Record) error
}

// Hold is one gate's answer to the question how many jobs may start now.
type Hold struct {
	// Credit is the number of further jobs that may start; Unlimited if this
	// gate holds nothing back.
	Credit int
	// Reason for the Credit, from the closed set of HoldReasons; "" if it is
	// Unlimited.
	Reason string
	// Until is when to ask again. Zero: when Changed says so.
	Until time.Time
	// Full: the Credit is used up by jobs that run; others start as they end.
	Full bool
	// Down: the target does not work. What may start is to find out whether it is
	// back.
	Down bool
	// LowestFirst: the jobs that may start may fail for no fault of their own. The
	// least important priority that has jobs goes first.
	LowestFirst bool
	// Target whose gate it is, in a pool with several.
	Target string
}

// Holds tells whether a pool in which so many jobs run is kept from working,
// and not only from working more.
func (h Hold) Holds(inFlight int) bool { return h.Credit == 0 && !(h.Full && inFlight > 0) }

// stricter tells whether h decides in the presence of other.
func (h Hold) stricter(other Hold) bool {
	switch {
	case h.Credit != other.Credit:
		return h.Credit < other.Credit
	case h.Credit > 0:
		return false
	case h.Full != other.Full:
		return other.Full
	}
	return h.Until.After(other.Until)
}

// wider is what two targets let through together.
func (h Hold) wider(other Hold) Hold {
	if h.Credit < other.Credit {
		h, other = other, h
	}
	switch {
	case h.Credit == Unlimited:
		return Hold{Credit: Unlimited}
	case other.Credit > 0:
		h.Credit += other.Credit
		h.Full, h.Down, h.LowestFirst = h.Full || other.Full, h.Down && other.Down, h.LowestFirst && other.LowestFirst
	case h.Credit == 0 && (other.Full && !h.Full || other.opensBefore(h)):
		return other
	}
	return h
}

// opensBefore tells which of two that let nothing through does so again first.
func (h Hold) opensBefore(other Hold) bool {
	return h.Full == other.Full && !h.Until.IsZero() && (other.Until.IsZero() || h.Until.Before(other.Until))
}

// Unlimited is the credit of an open gate.
const Unlimited = math.MaxInt

// MostlyDead is the reason of a Hold that lets one job a second through: most of
// the last ones were for a target that is held.
const MostlyDead = "mostly_dead"

// HoldReasons are all reasons for which a pool may be held.
func HoldReasons() []string {
	return []string{"breaker", "throttled", "limit", "ramp", "rate_limit", "stalled", "valve", "pressure", "paused", "degraded", MostlyDead, "draining"}
}

// Gate holds jobs back while they could not succeed.
type Gate interface {
	// Credit is asked for a pool in which inFlight jobs run.
	Credit(now time.Time, inFlight int) Hold
	// Changed is closed at the next change of the answer.
	Changed() <-chan struct{}
}

// Report is what became of one delivery. One is made for each.
type Report struct {
	Pool    string
	Job     *job.Job
	Outcome job.Outcome
	// Target the job was for.
	Target string
	// Answer is what became of the result, "" if the job wants none.
	Answer Answer
	// Priority of the source the job came from.
	Priority job.Priority
	// Received is when the delivery came.
	Received time.Time
	// Age of the job when it first started, from publication; 0 if it never did.
	Age time.Duration
	// Waited in hand for a permit; Took in the handler.
	Waited, Took time.Duration
	// SettleErr is set if the broker could not be told.
	SettleErr error
}

// Deps are a pool's collaborators. All but Results and Route are required.
type Deps struct {
	// Sources by priority; nil for a priority the pool does not use.
	Sources [job.Priorities]Source
	Ledger  Ledger
	// Lanes to the pool's targets. At least one.
	Lanes []Lane
	// Route is the index of the lane that a job takes. Not asked if there is but one.
	Route func(*job.Job) int
	// Results are sent to whom the jobs name. Nil: nobody is told.
	Results Sender
	// Gates of the pool itself must all let a job through, as those of its target.
	Gates  []Gate
	Shares shed.Shares
	// Report is called once per delivery, from the job's goroutine. It must
	// not block.
	Report func(Report)
}

// Pool is one compartment. Make it with New, run it once with Run.
type Pool struct {
	name     string
	cfg      Config
	deps     Deps
	lanes    []*lane
	bulkhead *bulkhead.Bulkhead
	asides   *asides         // nil: no difference between tenants
	work     context.Context // of the jobs; set by Run before any delivery
	draining chan struct{}   // closed when the fetch context ends
	released chan struct{}   // closed when nothing unstarted is left
	rearm    chan struct{}   // nudges watchClock
	short    chan struct{}   // nudges keepAlive
	jobs     sync.WaitGroup

	promoteAfter, shedAfter [job.Priorities]time.Duration // 0: never

	regulating sync.Mutex // taken before mu

	mu        sync.Mutex // guards all below
	held      map[*held]struct{}
	count     [job.Priorities]int // held, by the priority of the source
	running   [job.Priorities]int // of these, those that have had a permit
	arriving  [job.Priorities]int // of these, those on their way to the waiting room
	requested [job.Priorities]int
	backlog   [job.Priorities]uint64    // as the source said last
	heard     [job.Priorities]time.Time // when that was
	oldest    [job.Priorities]time.Time // publication of the job that came last: nothing in its stream is older
	reserve   [job.Priorities]int       // of the limit, for those above each priority
	limit     int                       // the bulkhead's limit as last set
	recent    [job.Priorities]recent    // of a pool with several targets
	hold      Hold
	next      time.Time // when the answer of a gate changes by itself; zero: never
	heldSince time.Time
	stopping  bool
	room      context.Context // of the waiting; replaced when it was closed
	closeRoom context.CancelCauseFunc
	last      time.Time // last settlement
}

// New returns a pool. The configuration must be valid and complete.
func New(name string, cfg Config, deps Deps) *Pool {
	p := &Pool{
		name: name, cfg: cfg, deps: deps, lanes: newLanes(deps),
		draining: make(chan struct{}),
		released: make(chan struct{}),
		rearm:    make(chan struct{}, 1),
		short:    make(chan struct{}, 1),
		held:     make(map[*held]struct{}),
		limit:    cfg.Concurrency,
	}
	if cfg.Fairness.By == fairByKey {
		b := newBuckets(cfg.Fairness)
		p.bulkhead, p.asides = fairBulkhead(cfg.Concurrency, cfg.Fairness, b), newAsides(cfg, b)
	} else {
		p.bulkhead = bulkhead.New(cfg.Concurrency)
	}
	for priority := range job.Priority(job.Priorities) {
		p.promoteAfter[priority], p.shedAfter[priority] = cfg.ages(priority)
	}
	p.openRoom()
	return p
}

// Run works until fetch ends and everything in hand is settled. Jobs that run
// then may finish until work ends, whose cause they are interrupted with.
// Run is called once.
func (p *Pool) Run(fetch, work context.Context) {
	p.work = work
	keep, stopKeeping := context.WithCancel(context.WithoutCancel(work))
	var background sync.WaitGroup
	background.Go(func() { p.keepAlive(keep) })
	background.Go(func() { p.watchClock(fetch) })
	for g := range p.gates {
		background.Go(func() { p.watchGate(fetch, g) })
	}
	var sources sync.WaitGroup
	for priority, s := range p.deps.Sources {
		if s != nil {
			sources.Go(func() { s.Run(fetch, intake{p, job.Priority(priority)}) })
		}
	}
	<-fetch.Done()
	p.beginStop()
	sources.Wait()
	// Only now: what is handed back earlier would come straight back to us.
	p.closeRoomWith(errReleased)
	close(p.released)
	p.jobs.Wait()
	stopKeeping()
	background.Wait()
}

// Released is closed once, after the fetch context has ended, no job is on its
// way to the pool any more and those that wait are being given back.
func (p *Pool) Released() <-chan struct{} { return p.released }

// beginStop makes sure that no job starts from here on.
func (p *Pool) beginStop() {
	p.mu.Lock()
	p.stopping = true
	close(p.draining)
	p.setHold(Hold{Reason: "draining"}, 0, time.Now())
	p.wakeAt(time.Time{})
	p.setLimit(0)
	p.mu.Unlock()
}

// Stats is the state of a pool at one instant.
type Stats struct {
	Concurrency int
	// Limit of jobs running now, below Concurrency while a gate holds.
	Limit    int
	InFlight int
	Waiting  int
	// Requested jobs were asked for and have not come.
	Requested int
	Held      [job.Priorities]int
	// SetAside jobs were given back so that other tenants' jobs are seen, and
	// have not come back; see Fairness.
	SetAside int
	// Parked jobs are in hand and wait for their target, in a pool with several.
	Parked    int
	Hold      Hold
	HeldSince time.Time
	// OldestHeld is when the oldest job in hand was received. Zero: none.
	OldestHeld time.Time
	// LastSettled is when a job was settled last. Zero: never.
	LastSettled time.Time
}

// Stats may be called from any goroutine at any time.
func (p *Pool) Stats() Stats {
	b := p.bulkhead.Stats()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{
		Concurrency: p.cfg.Concurrency, Limit: b.Limit, InFlight: b.InFlight,
		Held: p.count, Hold: p.hold, HeldSince: p.heldSince, LastSettled: p.last,
	}
	for _, n := range b.Waiting {
		s.Waiting += n
	}
	s.Parked = p.parked()
	if hold, ok := p.slowed(); ok && s.Hold.Credit == Unlimited {
		s.Hold = hold
	}
	if p.asides != nil {
		s.SetAside = len(p.asides.away)
	}
	for _, n := range p.requested {
		s.Requested += n
	}
	for h := range p.held {
		if s.OldestHeld.IsZero() || h.received.Before(s.OldestHeld) {
			s.OldestHeld = h.received
		}
	}
	return s
}
