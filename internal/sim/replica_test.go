package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/attempts"
	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/gate"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/retry"
	"github.com/workerd/workerd/internal/shed"
)

// century is longer than from the time in bubbles (2000) to the real one, which
// the broker uses for the age of messages now and then.
const century = 100 * 365 * 24 * time.Hour

// maxAttempts and maxCrashes of a job in all scenarios.
const maxAttempts, maxCrashes = 6, 3

// callTimeout of all targets.
const callTimeout = 5 * time.Second

func breakerConfig() breaker.Config {
	return breaker.Config{OpenFor: time.Second, OpenMultiplier: openMultiplier, MaxOpenFor: 8 * time.Second, ProbeTimeout: probeTimeout}.WithDefaults()
}

// replica is one workerd: everything but configuration, admin and signals.
type replica struct {
	w       *world
	id      int
	link    *link
	conn    *queue.Conn
	lanes   []*lane
	sources []*queue.Source

	stopFetching context.CancelFunc
	interrupt    context.CancelCauseFunc
	running      sync.WaitGroup
	asking       sync.WaitGroup
	ready        chan struct{} // closed when it is complete
	gone         atomic.Bool   // it has begun to end
	silent       atomic.Bool   // its connection has been, once
	frozen       barrier       // shut while the process is stopped
	draining     time.Time     // since when; zero: it crashed, or lives

	mu       sync.Mutex
	outcomes map[job.Reason]int
	held     map[string][]interval
}

// interval during which a job was in hand.
type interval struct {
	from, to time.Time
	delivery int // as the broker counts
	what     job.Action
	reason   job.Reason
	after    time.Duration // asked for before the next delivery
	source   job.Source    // of what was done
}

func (w *world) startReplica() *replica {
	w.mu.Lock()
	r := &replica{w: w, id: len(w.replicas), link: &link{to: w.broker}, outcomes: make(map[job.Reason]int), held: make(map[string][]interval), ready: make(chan struct{})}
	w.replicas = append(w.replicas, r)
	w.mu.Unlock()
	var err error
	r.conn, err = queue.Dial(queue.Config{URL: "nats://sim"}.WithDefaults(), w.log.With("replica", r.id), nats.InProcessServer(r.link))
	if err != nil {
		w.t.Fatal(err)
	}
	fetch, stop := context.WithCancel(context.Background())
	work, interrupt := context.WithCancelCause(context.Background())
	r.stopFetching, r.interrupt = stop, interrupt
	ledger := attempts.New(r.conn, attempts.Config{}.WithDefaults())
	for n := range w.shape.pools {
		l := r.newLane(fetch, n, ledger)
		r.lanes = append(r.lanes, l)
		r.running.Go(func() { l.pool.Run(fetch, work) })
	}
	r.asking.Go(func() { r.ask(work) })
	close(r.ready)
	return r
}

// askEvery is how often app asks for each consumer, see lagInterval.
const askEvery = 2 * time.Second

// ask does what app does to learn how far consumers are behind; the sources
// learn from the answers that theirs is another one.
func (r *replica) ask(ctx context.Context) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, s := range r.sources {
			if r.frozen.pass(); s.Stats().Ready {
				_, _ = s.Lag(ctx) // it will be asked again
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// newLane joins the parts of a pool as app does.
func (r *replica) newLane(fetch context.Context, n int, ledger *attempts.Ledger) *lane {
	l := &lane{r: r, n: n, refused: make(map[job.Reason]int), seen: make(map[string]int), inHand: make(map[string]*pulse)}
	stream := queue.StreamConfig{Subjects: []string{"jobs.>"}}.WithDefaults()
	sh, name := r.w.shape, fmt.Sprintf("pool%d", n)
	cfg := pool.Config{
		Target: name, Stream: jobStream, Concurrency: sh.concurrency, Prefetch: sh.prefetch, AckWait: sh.ackWait, Fairness: r.w.fairness(n),
		Redelivery: pool.Redelivery{MaxAttempts: maxAttempts, InitialBackoff: 500 * time.Millisecond, MaxBackoff: 20 * time.Second, Multiplier: 2},
	}.WithDefaults()
	limits := limiter.New(limiter.Config{}.WithDefaults(), limiter.Rate{}, sh.concurrency)
	guard := breaker.New(breakerConfig(), func(c breaker.Change) {
		l.changed(c)
		if c.To != breaker.Closed {
			limits.Outage(time.Now())
		}
	})
	again := retry.New(retry.Config{})
	again.RetryAfter = func() time.Duration {
		if credit, until := guard.Credit(time.Now()); credit == 0 {
			return max(0, time.Until(until))
		}
		return 0
	}
	l.guard = guard
	steps, gates := l.chain([]pool.Gate{gate.Breaker(guard, breaker.ProbeHighest), gate.Limiter(limits)})
	handler := &busy{l: l, Handler: pipeline.New(pipeline.Config{
		Pool: name, Timeout: callTimeout, JobTimeout: 20 * time.Second,
		Rules: pipeline.Rules{
			MaxAttempts: cfg.Redelivery.MaxAttempts, MaxDeferrals: 1000, MaxCrashes: maxCrashes, MaxAge: 24 * time.Hour,
			Backoff:     retry.Policy{Initial: cfg.Redelivery.InitialBackoff, Max: cfg.Redelivery.MaxBackoff, Multiplier: 2, Jitter: 0.5},
			DropExpired: r.w.drops(n),
		},
	}, pipeline.Deps{
		Target: door{r.w.down, l}, Limiter: limits, Breaker: guard, Retry: again, OnTry: l.try,
		Hedge: l.hedger(), OnHedge: l.hedged, Fallback: steps, OnStep: l.stepped, Degrade: fallback.NewSwitch(),
	})}
	deps := pool.Deps{
		Lanes: []pool.Lane{{
			Handler:     handler,
			DeadLetters: undertaker{dlq.New(r.conn, dlq.Config{MaxAge: century}.WithDefaults(), name, name), r},
			Gates:       gates,
		}},
		Ledger: scribe{ledger, r}, Report: l.report,
	}
	var used []job.Priority
	for p := range job.Priority(job.Priorities) {
		used = append(used, p)
		s := r.conn.Source(queue.SourceConfig{
			Stream: "JOBS", Consumer: name + "-" + p.String(), Subjects: []string{subject(n, p.String())}, Create: &stream,
			Priority: p, AckWait: cfg.AckWait, MaxMessage: cfg.MaxMessage, Limit: cfg.Concurrency + cfg.Prefetch + cfg.Window(),
		})
		r.sources = append(r.sources, s)
		deps.Sources[p] = watched{s, l, p}
	}
	deps.Shares = shed.Config{}.WithDefaults().For(used)
	l.pool, l.window = pool.New(name, cfg, deps), cfg.Window()
	if r.w.probes(n) {
		r.asking.Go(func() { l.prober(limits).Run(fetch) })
	}
	return l
}

func (r *replica) report(p pool.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes[p.Outcome.Reason]++
	id, now := idOf(p.Job.Payload), time.Now()
	if p.Outcome.Action == job.Retry || p.Outcome.Reason == job.MaxAttempts {
		r.w.charge(id)
	}
	if p.Outcome.Action == job.Drop {
		r.w.mu.Lock()
		r.w.dropped[id] = true
		r.w.mu.Unlock()
	}
	if p.Outcome.Source == job.Static {
		r.w.mu.Lock()
		r.w.answered[id]++
		r.w.mu.Unlock()
	}
	r.held[id] = append(r.held[id], interval{p.Received, now, p.Job.Deliveries, p.Outcome.Action, p.Outcome.Reason, p.Outcome.After, p.Outcome.Source})
}

// crash ends a replica as SIGKILL does: nothing gets out any more.
func (r *replica) crash() {
	<-r.ready
	r.link.kill()
	r.interrupt(errors.New("sim: killed"))
	r.stopFetching()
	r.conn.Close()
	r.running.Wait()
	r.asking.Wait()
}

// dies lets a replica crash at this very point of one of its jobs. Another
// takes its place.
func (r *replica) dies(where string) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if r.w.over || r.gone.Swap(true) {
		return
	}
	r.link.kill()
	now := time.Now()
	r.w.faults = append(r.w.faults, fault{where, now, now, r})
	r.w.burials.Go(func() {
		r.w.startReplica()
		r.crash()
	})
}

// drain ends a replica as SIGTERM does. It reports whether all went well.
func (r *replica) drain(patience time.Duration) bool {
	if r.gone.Swap(true) {
		return true // it has died meanwhile
	}
	<-r.ready
	r.draining = time.Now()
	r.stopFetching()
	done := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() { r.running.Wait(); close(done) })
	timer := time.NewTimer(patience)
	defer timer.Stop()
	clean := true
	select {
	case <-done:
	case <-timer.C:
		clean = false
		r.interrupt(job.ErrInterrupted)
		waiting.Wait()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if r.conn.Flush(ctx) != nil {
		clean = false
	}
	r.conn.Close()
	r.interrupt(nil)
	waiting.Wait()
	r.asking.Wait()
	if took := time.Since(r.draining); took > patience+20*time.Second {
		r.w.fail("I10: replica %d took %s to drain, it was given %s", r.id, took, patience)
	}
	return clean
}
