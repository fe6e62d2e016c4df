package gate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/gate"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/pressure"
	"github.com/workerd/workerd/internal/retry"
	"github.com/workerd/workerd/internal/shed"
	"github.com/workerd/workerd/internal/target"
	"github.com/workerd/workerd/internal/valve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The stories of this file run pools with all that guards their target, as app
// joins it, in bubbles of virtual time. Only broker and target are played.

// stream gives jobs out as a broker does, and again after a nak.
type stream struct {
	mu      sync.Mutex
	ready   []*job.Job
	again   []*job.Job // to be delivered again, before anything new, as the server does
	later   int        // naked, and not back yet
	wanted  int
	pulled  int // deliveries
	settled map[job.Verb]int
	wake    chan struct{}
}

func newStream(n int) *stream {
	s := &stream{settled: map[job.Verb]int{}, wake: make(chan struct{}, 1)}
	for i := range n {
		s.ready = append(s.ready, &job.Job{ID: fmt.Sprint(i), Stream: "S", Sequence: uint64(i + 1), Deliveries: 1, Enqueued: time.Now()})
	}
	return s
}

func (s *stream) AckWait() time.Duration { return 30 * time.Second }

func (s *stream) Request(n int) {
	s.mu.Lock()
	s.wanted += n
	s.mu.Unlock()
	s.nudge()
}

func (s *stream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *stream) publish(j *job.Job) {
	s.mu.Lock()
	s.ready = append(s.ready, j)
	s.mu.Unlock()
	s.nudge()
}

func (s *stream) take() (j *job.Job, left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := &s.again
	if len(*from) == 0 {
		from = &s.ready
	}
	if s.wanted == 0 || len(*from) == 0 {
		return nil, 0
	}
	j, *from = (*from)[0], (*from)[1:]
	s.wanted--
	s.pulled++
	return j, len(s.ready) + len(s.again)
}

func (s *stream) Run(ctx context.Context, to job.Receiver) {
	for {
		for j, left := s.take(); j != nil; j, left = s.take() {
			to.Deliver(delivery{s, j, time.Now()}, uint64(left))
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
	}
}

func (s *stream) counts() (pulled, acked, dead, left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pulled, s.settled[job.Ack], s.settled[job.Term], len(s.ready) + len(s.again) + s.later
}

type delivery struct {
	s        *stream
	j        *job.Job
	received time.Time
}

func (d delivery) Job() *job.Job         { return d.j }
func (d delivery) Extend()               {}
func (d delivery) LeaseUntil() time.Time { return time.Now().Add(time.Minute) }

func (d delivery) Settle(v job.Verb, after time.Duration) error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.s.settled[v]++
	if v == job.Nak {
		again := *d.j
		again.Deliveries++
		d.s.later++
		time.AfterFunc(after, func() {
			d.s.mu.Lock()
			d.s.later--
			d.s.again = append(d.s.again, &again)
			d.s.mu.Unlock()
			d.s.nudge()
		})
	}
	return nil
}

// memory is a ledger of attempts.
type memory struct {
	mu      sync.Mutex
	records map[string]job.Record
}

func (m *memory) Load(_ context.Context, j *job.Job) job.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records[j.ID]
}

func (m *memory) Save(_ context.Context, j *job.Job, r job.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records[j.ID] = r
}

func (m *memory) Add(_ context.Context, j *job.Job, since job.Record) job.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[j.ID]
	r.Attempts, r.Deferrals, r.Started = r.Attempts+since.Attempts, r.Deferrals+since.Deferrals, r.Started+since.Started
	m.records[j.ID] = r
	return r
}

func (m *memory) Forget(_ context.Context, j *job.Job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.records, j.ID)
}

func (m *memory) charged() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.records {
		n += r.Attempts
	}
	return n
}

type letters struct{}

func (letters) Put(context.Context, *job.Job, job.Outcome, job.Record) error { return nil }

// service is the target: what it does is set by the story.
type service struct {
	mu            sync.Mutex
	answer        func(ctx context.Context, n int) job.Result
	began         []time.Time
	running, most int
}

func (s *service) does(answer func(ctx context.Context, n int) job.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *service) Close() {}

func (s *service) Call(ctx context.Context, _ target.Request) job.Result {
	s.mu.Lock()
	s.began = append(s.began, time.Now())
	s.running++
	s.most = max(s.most, s.running)
	n, answer := len(s.began), s.answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running--
	}()
	return answer(ctx, n)
}

func (s *service) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.began)
}

// after answers once d has passed, or as the end of the context says.
func after(ctx context.Context, d time.Duration, r job.Result) job.Result {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return r
	case <-ctx.Done():
	}
	if errors.Is(context.Cause(ctx), job.ErrTryTimeout) {
		return job.Result{Class: job.Timeout, Reason: job.TimedOut, Err: job.ErrTryTimeout}
	}
	return job.Result{Class: job.Ignored, Reason: job.Interrupted, Err: context.Cause(ctx)}
}

func result(class job.Class, reason job.Reason, status int) job.Result {
	r := job.Result{Class: class, Reason: reason, Status: status}
	if class != job.Success {
		r.Err = fmt.Errorf("HTTP %d", status)
	}
	return r
}

func fine(d time.Duration) func(context.Context, int) job.Result {
	return func(ctx context.Context, _ int) job.Result { return after(ctx, d, result(job.Success, job.OK, 200)) }
}

func always(class job.Class, reason job.Reason, status int) func(context.Context, int) job.Result {
	return func(ctx context.Context, _ int) job.Result {
		return after(ctx, time.Millisecond, result(class, reason, status))
	}
}

// lane is one target with what guards it, for any number of pools.
type lane struct {
	service *service
	breaker *breaker.Breaker
	limiter *limiter.Limiter
	retry   *retry.Loop
	opened  atomic.Int64
	wait    time.Duration // longest the breaker stays open
	probes  breaker.ProbePriority
	name    string
}

func newLane(concurrency int, cfg limiter.Config, rate limiter.Rate) *lane {
	l := &lane{service: &service{}, limiter: limiter.New(cfg.WithDefaults(), rate.WithDefaults(), concurrency), wait: 2 * time.Minute}
	l.breaker = breaker.New(breaker.Config{ProbeTimeout: 15 * time.Second}.WithDefaults(), func(c breaker.Change) {
		if c.To == breaker.Open {
			l.opened.Add(1)
		}
		if c.To != breaker.Closed {
			l.limiter.Outage(time.Now())
		}
	})
	l.retry = retry.New(retry.Config{})
	l.retry.RetryAfter = func() time.Duration {
		if n, until := l.breaker.Credit(time.Now()); n == 0 {
			return max(0, time.Until(until))
		}
		return 0
	}
	return l
}

// worker is a pool at work.
type worker struct {
	pool   *pool.Pool
	stream *stream
	valve  *valve.Valve
	ledger *memory
	stop   func()
}

func (l *lane) work(s *stream, concurrency int) *worker {
	return work(s, concurrency, nil, l)
}

// to is the way of a pool to this lane's target.
func (l *lane) to(r pool.Redelivery) pool.Lane {
	return pool.Lane{
		Handler: pipeline.New(pipeline.Config{Pool: "p", Timeout: 10 * time.Second, JobTimeout: time.Minute, Rules: pipeline.Rules{
			MaxAttempts: r.MaxAttempts, MaxDeferrals: r.MaxDeferrals, MaxCrashes: r.MaxCrashes, MaxAge: r.MaxAge,
			Backoff: retry.Policy{Initial: r.InitialBackoff, Max: r.MaxBackoff, Multiplier: r.Multiplier, Jitter: 0.5},
		}}, pipeline.Deps{Target: l.service, Limiter: l.limiter, Breaker: l.breaker, Retry: l.retry, OnTry: func(pipeline.Try) {}}),
		Target: l.name, DeadLetters: letters{}, Gates: []pool.Gate{gate.Breaker(l.breaker, l.probes), gate.Limiter(l.limiter)},
	}
}

// work starts a pool whose jobs go over one of the lanes, as route says.
func work(s *stream, concurrency int, route func(*job.Job) int, lanes ...*lane) *worker {
	return workBy(s, concurrency, route, func(h pool.Handler) pool.Handler { return h }, lanes...)
}

// workBy does so with something around the handlers.
func workBy(s *stream, concurrency int, route func(*job.Job) int, around func(pool.Handler) pool.Handler, lanes ...*lane) *worker {
	w := &worker{stream: s, ledger: &memory{records: map[string]job.Record{}}}
	cfg := pool.Config{Concurrency: concurrency}.WithDefaults()
	w.valve = valve.New(cfg.Valve)
	deps := pool.Deps{
		Ledger: w.ledger, Route: route,
		Gates: []pool.Gate{
			gate.Valve(w.valve), gate.Pressure(pressure.New(pressure.Config{}.WithDefaults()), concurrency), gate.NewPause(),
		},
		Shares: shed.Config{}.WithDefaults().For([]job.Priority{job.Normal}),
		Report: func(pool.Report) {},
	}
	for _, l := range lanes {
		to := l.to(cfg.Redelivery)
		to.Handler = gate.Valved(around(to.Handler), w.valve, func(out job.Outcome) {
			if a := out.Action; a == job.Done || a == job.DeadLetter {
				w.valve.Final(time.Now(), a == job.DeadLetter && out.Last.Class == job.Permanent, "")
			}
		})
		deps.Lanes = append(deps.Lanes, to)
	}
	deps.Sources[job.Normal] = s
	w.pool = pool.New("p", cfg, deps)
	fetch, stopFetching := context.WithCancel(context.Background())
	work, interrupt := context.WithCancelCause(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.pool.Run(fetch, work) })
	w.stop = func() {
		stopFetching()
		interrupt(job.ErrInterrupted)
		running.Wait()
	}
	return w
}

// TestOutage_ofHalfAnHourCostsProbesAndNothingElse: 1,000 jobs, a target that
// answers 503 for 30 minutes.
func TestOutage_ofHalfAnHourCostsProbesAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency = 16
		l := newLane(concurrency, limiter.Config{}, limiter.Rate{})
		l.service.does(always(job.Failure, job.Status5xx, 503))
		w := l.work(newStream(1000), concurrency)
		defer w.stop()
		time.Sleep(30 * time.Minute)
		calls, opened := l.service.calls(), int(l.opened.Load())
		// To trip: what was in flight at the first failures, and its retries. Then
		// one probe for each wait, the first of a kind a little earlier.
		if most := 2*concurrency + opened; calls > most {
			t.Errorf("%d calls in half an hour, want at most %d: the breaker opened %d times", calls, most, opened)
		}
		if opened < 14 {
			t.Errorf("only %d probes: it would not have noticed that the target is back", opened)
		}
		if n := w.ledger.charged(); n > calls {
			t.Errorf("%d attempts were charged for %d calls", n, calls)
		}
		l.service.does(fine(time.Millisecond))
		time.Sleep(l.wait + 10*time.Minute + time.Second) // the longest wait, and the longest backoff
		synctest.Wait()
		if _, acked, dead, left := w.stream.counts(); acked != 1000 || dead != 0 || left != 0 {
			t.Errorf("afterwards %d done, %d dead, %d left", acked, dead, left)
		}
		t.Logf("%d calls in the outage, %d times open", calls, opened)
	})
}

func TestValve_stopsAPoolWhoseEveryJobIsRefused(t *testing.T) {
	for _, status := range []int{401, 422} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const concurrency = 8
				l := newLane(concurrency, limiter.Config{}, limiter.Rate{})
				l.service.does(always(job.Permanent, job.Status4xx, status)) // 401 if a target's classify says so
				w := l.work(newStream(1000), concurrency)
				defer w.stop()
				time.Sleep(59 * time.Second)
				synctest.Wait()
				if _, _, dead, _ := w.stream.counts(); dead < 20 || dead >= 20+concurrency {
					t.Errorf("%d dead letters before the valve closed, want 20 to %d", dead, 20+concurrency-1)
				}
				if s := w.pool.Stats(); s.Hold.Reason != "valve" || !s.Hold.Holds(s.InFlight) {
					t.Errorf("the pool says %+v", s.Hold)
				}
				time.Sleep(time.Hour)
				if _, _, dead, _ := w.stream.counts(); dead > 20+concurrency+10 {
					t.Errorf("%d dead letters in an hour", dead)
				}
				l.service.does(fine(time.Millisecond))
				time.Sleep(11 * time.Minute)
				synctest.Wait()
				if _, _, _, left := w.stream.counts(); left != 0 {
					t.Errorf("%d jobs left after the target was mended", left)
				}
			})
		})
	}
}

// TestUnauthorized_everyJob: by default 401 is the fault of the lane, so the
// breaker opens and no job dies of it.
func TestUnauthorized_everyJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(8, limiter.Config{}, limiter.Rate{})
		l.service.does(always(job.Failure, job.Status4xx, 401))
		w := l.work(newStream(1000), 8)
		defer w.stop()
		time.Sleep(time.Hour)
		if _, _, dead, _ := w.stream.counts(); dead != 0 {
			t.Errorf("%d dead letters", dead)
		}
	})
}

func TestRetryAfter_theTargetIsLeftAloneAndNobodyPays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency = 4
		l := newLane(concurrency, limiter.Config{}, limiter.Rate{})
		l.service.does(func(ctx context.Context, n int) job.Result {
			if n > concurrency {
				return after(ctx, time.Millisecond, result(job.Success, job.OK, 200))
			}
			r := result(job.Throttled, job.StatusThrottled, 429)
			r.RetryAfter = time.Minute
			return after(ctx, time.Millisecond, r)
		})
		w := l.work(newStream(100), concurrency)
		defer w.stop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		pulled, _, _, _ := w.stream.counts()
		if s := w.pool.Stats(); s.Hold.Reason != "throttled" {
			t.Errorf("the pool says %+v", s.Hold)
		}
		time.Sleep(49 * time.Second)
		synctest.Wait()
		if again, _, _, _ := w.stream.counts(); again != pulled || l.service.calls() != concurrency {
			t.Errorf("within the minute %d more were pulled, %d calls made", again-pulled, l.service.calls()-concurrency)
		}
		if n := w.ledger.charged(); n != 0 {
			t.Errorf("%d attempts were charged", n)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, acked, dead, _ := w.stream.counts(); acked != 100 || dead != 0 {
			t.Errorf("%d done, %d dead", acked, dead)
		}
	})
}

// TestProbe_whateverBecomesOfItWorkGoesOn: one that hangs beyond its time, one
// that panics, and one whose answer we did not wait for.
func TestProbe_whateverBecomesOfItWorkGoesOn(t *testing.T) {
	probes := map[string]func(ctx context.Context) job.Result{
		"hangs":  func(ctx context.Context) job.Result { return after(ctx, time.Hour, job.Result{}) },
		"panics": func(context.Context) job.Result { panic("a fault of our own") },
		"is cancelled": func(ctx context.Context) job.Result {
			return after(ctx, time.Second, job.Result{Class: job.Ignored, Reason: job.LeaseLost})
		},
		"is neutral": func(context.Context) job.Result { return result(job.Neutral, job.Status4xx, 409) },
	}
	for name, probe := range probes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLane(4, limiter.Config{}, limiter.Rate{})
				l.service.does(always(job.Failure, job.Status5xx, 500))
				w := l.work(newStream(50), 4)
				defer w.stop()
				time.Sleep(2 * time.Second) // the breaker is open
				mended := time.Now().Add(10 * time.Minute)
				l.service.does(func(ctx context.Context, _ int) job.Result {
					if time.Now().Before(mended) {
						return probe(ctx)
					}
					return after(ctx, time.Millisecond, result(job.Success, job.OK, 200))
				})
				time.Sleep(45 * time.Minute)
				synctest.Wait()
				_, acked, dead, left := w.stream.counts()
				if left != 0 || acked+dead != 50 || dead > 3 { // a job that panics three times is poison
					t.Errorf("%d done, %d dead, %d left", acked, dead, left)
				}
			})
		})
	}
}

// TestRecovery_callsAtOnceFollowTheRamp, of each replica: four of them, with
// room for 32 calls each, meet a target that has come back.
func TestRecovery_callsAtOnceFollowTheRamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const replicas, concurrency = 4, 32
		shared := &service{}
		shared.does(always(job.Failure, job.Status5xx, 503))
		var closed []time.Time
		var lanes []*lane
		var pools []*worker
		for range replicas {
			l := newLane(concurrency, limiter.Config{}, limiter.Rate{})
			l.service = shared
			lanes = append(lanes, l)
			w := l.work(newStream(2000), concurrency)
			pools = append(pools, w)
			defer w.stop()
		}
		time.Sleep(time.Minute)
		shared.mu.Lock()
		shared.most, shared.began = 0, nil
		shared.mu.Unlock()
		shared.does(fine(50 * time.Millisecond))
		recovered := time.Now()
		// Each step of the ramp lasts 100 ms at least, and its first was over before
		// the breaker closed: three probes take 150 ms.
		for limit := 2; limit <= concurrency; limit *= 2 {
			for len(closed) == 0 {
				time.Sleep(10 * time.Millisecond)
				for _, l := range lanes {
					if l.breaker.Stats(time.Now()).State == breaker.Closed {
						closed = append(closed, time.Now())
					}
				}
				if time.Since(recovered) > time.Hour {
					t.Fatal("no breaker closed")
				}
			}
			for _, l := range lanes {
				if s := l.limiter.Stats(time.Now()); s.InFlight > limit {
					t.Errorf("%d calls at once while the ramp allows %d", s.InFlight, limit)
				}
			}
			time.Sleep(99 * time.Millisecond)
		}
		shared.mu.Lock()
		first := slices.IndexFunc(shared.began, func(at time.Time) bool { return at.After(closed[0].Add(200 * time.Millisecond)) })
		shared.mu.Unlock()
		if first > 2*(1+2+4)*replicas {
			t.Errorf("%d calls within 200 ms of the recovery", first)
		}
		time.Sleep(5 * time.Minute)
		for i, w := range pools {
			if _, acked, dead, left := w.stream.counts(); acked != 2000 || dead != 0 {
				t.Errorf("replica %d: %d done, %d dead, %d left", i, acked, dead, left)
			}
		}
	})
}

// TestSharedTarget_poolsTogetherStayWithinItsLimit, and half open they send one
// probe, not one each.
func TestSharedTarget_poolsTogetherStayWithinItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(48, limiter.Config{Limit: limiter.Fixed, Max: 5}, limiter.Rate{})
		l.service.does(fine(100 * time.Millisecond))
		var pools []*worker
		for range 3 {
			w := l.work(newStream(100), 16)
			pools = append(pools, w)
			defer w.stop()
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if l.service.most != 5 {
			t.Errorf("%d calls at once, want 5", l.service.most)
		}
		done := 0
		for i, w := range pools {
			_, acked, _, left := w.stream.counts()
			done += acked
			if acked == 0 {
				t.Errorf("pool %d got nothing done, %d left", i, left)
			}
		}
		if done < 300 {
			t.Errorf("%d jobs in 10 s, want all 300", done)
		}
	})
}

func TestRateLimit_isUsedUpAndNotExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(32, limiter.Config{}, limiter.Rate{Rate: 10})
		l.service.does(fine(time.Millisecond))
		a, b := l.work(newStream(1000), 16), l.work(newStream(1000), 16)
		defer a.stop()
		defer b.stop()
		time.Sleep(time.Minute)
		if n := l.service.calls(); n < 590 || n > 610 {
			t.Errorf("%d calls in a minute, want about 600 and the burst of 10", n)
		}
	})
}
