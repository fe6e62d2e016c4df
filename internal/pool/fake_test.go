package pool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/shed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stream is a broker of the smallest kind: jobs of one priority, leases, and a
// record of how each delivery was settled.
type stream struct {
	priority job.Priority
	ackWait  time.Duration
	// roundTrip of a request for jobs.
	roundTrip time.Duration
	// lay is how long a delivery has been on its way, unnoticed.
	lay time.Duration
	// again: what is given back is delivered again, before anything new.
	again bool

	mu        sync.Mutex
	jobs      []*job.Job
	returned  []*job.Job
	wanted    int
	delivered int
	settled   map[string][]string // verbs by job id
	extended  map[string]int
	deaf      bool // confirms no extensions
	wake      chan struct{}
}

func newStream(p job.Priority, n int) *stream {
	s := &stream{
		priority: p, ackWait: 30 * time.Second, settled: map[string][]string{}, extended: map[string]int{},
		wake: make(chan struct{}, 1),
	}
	for i := range n {
		s.jobs = append(s.jobs, &job.Job{
			ID: fmt.Sprintf("%s-%d", p, i), Stream: "S", Sequence: uint64(i + 1), Priority: p, Deliveries: 1, Enqueued: time.Now(),
		})
	}
	return s
}

func (s *stream) Request(n int) {
	s.mu.Lock()
	s.wanted += n
	s.mu.Unlock()
	s.nudge()
}

// publish adds a job.
func (s *stream) publish(j *job.Job) {
	s.mu.Lock()
	s.jobs = append(s.jobs, j)
	s.mu.Unlock()
	s.nudge()
}

// redeliver puts a job in front of those never delivered, behind others like it.
func (s *stream) redeliver(j *job.Job) {
	s.mu.Lock()
	s.returned = append(s.returned, j)
	s.mu.Unlock()
	s.nudge()
}

// next is the next job, nil if there is none. The caller holds mu.
func (s *stream) next() (j *job.Job) {
	switch {
	case len(s.returned) > 0:
		j, s.returned = s.returned[0], s.returned[1:]
	case len(s.jobs) > 0:
		j, s.jobs = s.jobs[0], s.jobs[1:]
	}
	return j
}

func (s *stream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *stream) AckWait() time.Duration { return s.ackWait }

func (s *stream) Run(ctx context.Context, to job.Receiver) {
	for {
		s.mu.Lock()
		var out []*job.Job
		for s.wanted > 0 && ctx.Err() == nil {
			j := s.next()
			if j == nil {
				break
			}
			out = append(out, j)
			s.wanted--
			s.delivered++
		}
		left := uint64(len(s.jobs))
		s.mu.Unlock()
		if len(out) > 0 && s.roundTrip > 0 {
			<-time.After(s.roundTrip)
		}
		for i, j := range out {
			to.Deliver(&delivery{stream: s, job: j, until: time.Now().Add(s.ackWait - s.lay)}, left+uint64(len(out)-1-i))
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
	}
}

// given is how many deliveries there were.
func (s *stream) given() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delivered
}

func (s *stream) count(verb string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, verbs := range s.settled {
		for _, v := range verbs {
			if v == verb {
				n++
			}
		}
	}
	return n
}

type delivery struct {
	stream *stream
	job    *job.Job
	mu     sync.Mutex
	until  time.Time
}

func (d *delivery) Job() *job.Job { return d.job }

func (d *delivery) Extend() {
	d.stream.mu.Lock()
	d.stream.extended[d.job.ID]++
	deaf := d.stream.deaf
	d.stream.mu.Unlock()
	if !deaf {
		d.mu.Lock()
		d.until = time.Now().Add(d.stream.ackWait)
		d.mu.Unlock()
	}
}

func (d *delivery) LeaseUntil() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.until
}

func (d *delivery) Settle(v job.Verb, after time.Duration) error {
	d.stream.mu.Lock()
	defer d.stream.mu.Unlock()
	verb := v.String()
	if after > 0 {
		verb += " " + after.String()
	}
	if v != job.Ack && time.Now().After(d.LeaseUntil()) {
		d.stream.settled[d.job.ID] = append(d.stream.settled[d.job.ID], "dropped")
		return job.ErrLeaseLost
	}
	d.stream.settled[d.job.ID] = append(d.stream.settled[d.job.ID], verb)
	if v == job.Nak && d.stream.again {
		next := *d.job
		next.Deliveries++
		time.AfterFunc(after, func() { d.stream.redeliver(&next) })
	}
	return nil
}

// handler runs a function per job and counts how many run at once.
type handler struct {
	do func(ctx context.Context, j *job.Job, before job.Record) job.Outcome

	mu            sync.Mutex
	running, most int
	order         []string
}

// set changes what the handler does from here on.
func (h *handler) set(do func(context.Context, *job.Job, job.Record) job.Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.do = do
}

func (h *handler) Handle(ctx context.Context, j *job.Job, before job.Record, _ <-chan struct{}) job.Outcome {
	h.mu.Lock()
	h.running++
	h.most = max(h.most, h.running)
	h.order = append(h.order, j.ID)
	do := h.do
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.running--
		h.mu.Unlock()
	}()
	return do(ctx, j, before)
}

func (h *handler) started() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.order)
}

// takes returns a function that succeeds after d, or says how it was ended.
func takes(d time.Duration) func(context.Context, *job.Job, job.Record) job.Outcome {
	return func(ctx context.Context, _ *job.Job, _ job.Record) job.Outcome {
		select {
		case <-time.After(d):
			return job.Outcome{Action: job.Done, Reason: job.OK}
		case <-ctx.Done():
			reason := job.Interrupted
			if errors.Is(context.Cause(ctx), job.ErrLeaseLost) {
				reason = job.LeaseLost
			}
			return job.Outcome{Action: job.Release, Reason: reason, Err: context.Cause(ctx)}
		}
	}
}

// gate is a pool.Gate set by hand.
type gate struct {
	mu      sync.Mutex
	hold    pool.Hold
	changed chan struct{}
	asked   int
}

func newGate() *gate {
	return &gate{hold: pool.Hold{Credit: pool.Unlimited}, changed: make(chan struct{})}
}

func (g *gate) set(h pool.Hold) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold = h
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *gate) Credit(time.Time, int) pool.Hold {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	return g.hold
}

func (g *gate) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

type letters struct {
	mu     sync.Mutex
	put    []string
	err    error
	silent bool      // no answer comes
	gaveUp time.Time // when nobody waited for it any more
}

func (l *letters) refuse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *letters) Put(ctx context.Context, j *job.Job, _ job.Outcome, _ job.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent {
		<-ctx.Done()
		l.gaveUp = time.Now()
		return ctx.Err()
	}
	if l.err != nil {
		return l.err
	}
	l.put = append(l.put, j.ID)
	return nil
}

// ledger is a pool.Ledger in memory that counts its writes.
type ledger struct {
	mu      sync.Mutex
	records map[string]job.Record
	writes  int
	takes   time.Duration // a write
	unread  bool          // what it has cannot be read, once
}

func (l *ledger) Load(_ context.Context, j *job.Job) job.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unread {
		l.unread = false
		return job.Record{Unread: true}
	}
	return l.records[j.Key()]
}

func (l *ledger) Save(_ context.Context, j *job.Job, r job.Record) {
	l.wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records[j.Key()] = r
	l.writes++
}

func (l *ledger) Add(_ context.Context, j *job.Job, since job.Record) job.Record {
	l.wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.records[j.Key()]
	r.Attempts, r.Deferrals, r.Started = r.Attempts+since.Attempts, r.Deferrals+since.Deferrals, r.Started+since.Started
	l.records[j.Key()] = r
	l.writes++
	return r
}

// wait as long as a write takes.
func (l *ledger) wait() {
	l.mu.Lock()
	takes := l.takes
	l.mu.Unlock()
	if takes > 0 {
		<-time.After(takes)
	}
}

func (l *ledger) Forget(_ context.Context, j *job.Job) {
	l.wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.records, j.Key())
	l.writes++
}

// world is a pool with fakes around it, running in a bubble.
type world struct {
	t       *testing.T
	pool    *pool.Pool
	streams [job.Priorities]*stream
	handler *handler
	gate    *gate
	letters *letters
	ledger  *ledger

	stopFetching context.CancelFunc
	interrupt    context.CancelCauseFunc
	done         chan struct{}

	mu       sync.Mutex
	reports  []pool.Report
	onReport func(pool.Report) // called for each, under mu
}

func start(t *testing.T, cfg pool.Config, do func(context.Context, *job.Job, job.Record) job.Outcome, streams ...*stream) *world {
	return startBehind(t, []*gate{newGate()}, cfg, do, streams...)
}

func startBehind(t *testing.T, gates []*gate, cfg pool.Config, do func(context.Context, *job.Job, job.Record) job.Outcome, streams ...*stream) *world {
	w := &world{t: t, handler: &handler{do: do}, gate: gates[0], letters: &letters{}, ledger: &ledger{records: map[string]job.Record{}}, done: make(chan struct{})}
	lane := pool.Lane{Target: "t", Handler: w.handler, DeadLetters: w.letters}
	for _, g := range gates {
		lane.Gates = append(lane.Gates, g)
	}
	deps := pool.Deps{Lanes: []pool.Lane{lane}, Ledger: w.ledger, Report: w.report}
	var used []job.Priority
	for _, s := range streams {
		w.streams[s.priority] = s
		deps.Sources[s.priority] = s
		used = append(used, s.priority)
	}
	deps.Shares = shed.Config{}.WithDefaults().For(used)
	w.pool = pool.New("p", cfg.WithDefaults(), deps)
	fetch, stop := context.WithCancel(context.Background())
	work, interrupt := context.WithCancelCause(context.Background())
	w.stopFetching, w.interrupt = stop, interrupt
	go func() { w.pool.Run(fetch, work); close(w.done) }()
	return w
}

func (w *world) report(r pool.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, r)
	if w.onReport != nil {
		w.onReport(r)
	}
}

func (w *world) outcomes(reason job.Reason) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.reports {
		if r.Outcome.Reason == reason {
			n++
		}
	}
	return n
}

// stop ends the pool and waits for it.
func (w *world) stop() {
	w.stopFetching()
	<-w.done
	w.interrupt(nil)
}

// settledOnce checks the first promise of the package.
func (w *world) settledOnce() {
	w.t.Helper()
	for _, s := range w.streams {
		if s == nil {
			continue
		}
		s.mu.Lock()
		if len(s.settled) != s.delivered {
			w.t.Errorf("%s: %d deliveries, %d settled", s.priority, s.delivered, len(s.settled))
		}
		for id, verbs := range s.settled {
			if len(verbs) != 1 {
				w.t.Errorf("job %s was settled %v", id, verbs)
			}
		}
		s.mu.Unlock()
	}
}
