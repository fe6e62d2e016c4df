package app

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/oneline"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
)

// recentFailures is how many failures the status page shows.
const recentFailures = 20

// Bounds in bytes of what a job, or the target of one, may write in a log line
// or on the status page. A subject alone may have kilobytes.
const (
	maxJobText = 256
	maxError   = 1024
)

func shown(text string) string { return oneline.Of(text, maxJobText) }

// observer hands what happened to everybody who watches: metrics, log, status.
// Its methods are called from the goroutines of the jobs and do not block.
type observer struct {
	app      *App
	pools    map[string]*tally
	calls    map[string]*callTally
	failures ring
}

// tally counts what became of the deliveries of one pool, by action.
type tally struct {
	by   [job.Park]atomic.Uint64
	rate rate // of jobs that have come to their end
}

// callTally counts the calls to one target.
type callTally struct {
	total, failed atomic.Uint64
	rate          rate
}

func newObserver(a *App) *observer {
	o := &observer{app: a, pools: map[string]*tally{}, calls: map[string]*callTally{}}
	for name := range a.cfg.Pools {
		o.pools[name] = &tally{}
	}
	for name := range a.cfg.Targets {
		o.calls[name] = &callTally{}
	}
	return o
}

// takeRates is called once a second, by one goroutine.
func (o *observer) takeRates(now time.Time) {
	for _, t := range o.pools {
		t.rate.note(now, t.by[job.Done].Load()+t.by[job.DeadLetter].Load()+t.by[job.Drop].Load())
	}
	for _, c := range o.calls {
		c.rate.note(now, c.total.Load())
	}
	for _, l := range o.app.targets {
		o.watchDegraded(l, now)
	}
}

// report is where each delivery ends.
func (o *observer) report(r pool.Report) {
	o.app.metrics.Job(r)
	o.pools[r.Pool].by[r.Outcome.Action].Add(1)
	switch {
	case r.Outcome.Reason == job.Interrupted:
		o.app.interrupted.Add(1)
		o.app.handedBack.Add(1)
	case r.Outcome.Reason == job.Released && o.app.draining():
		o.app.handedBack.Add(1)
	}
	if failed(r.Outcome) {
		o.failures.add(o.failure(r))
	}
	o.log(r)
	if o.app.opts.Stage.OnReport != nil {
		o.app.opts.Stage.OnReport(r)
	}
}

// judged tells the pool's valve how a job ended.
func (o *observer) judged(c *compartment, out job.Outcome) {
	if out.Action != job.Done && out.Action != job.DeadLetter && out.Action != job.Drop {
		return
	}
	v, why := c.valve, ""
	bad := out.Action == job.DeadLetter && out.Last.Class == job.Permanent
	if bad && out.Err != nil {
		why = out.Err.Error()
	}
	if !v.Final(time.Now(), bad, why) {
		return
	}
	if s := v.Stats(); s.Closed {
		o.app.log.Error("pool is held: too many of its last jobs became dead letters", "pool", c.name, "last", s.Last, "until", s.Until.Format(time.RFC3339))
		return
	}
	o.app.log.Info("pool goes on: its jobs succeed again", "pool", c.name)
}

// failed tells whether something went wrong that is worth showing: giving a
// job back unharmed is not.
func failed(out job.Outcome) bool {
	return out.Action == job.Retry || out.Action == job.DeadLetter || out.Reason == job.NoDLQ || out.Reason == job.LeaseLost
}

func (o *observer) failure(r pool.Report) admin.Failure {
	f := admin.Failure{
		At: time.Now(), Pool: r.Pool, Target: r.Target, JobID: shown(r.Job.ID), Subject: shown(r.Job.Subject),
		Outcome: r.Outcome.Action.String(), Reason: string(r.Outcome.Reason), Status: r.Outcome.Last.Status,
		NextSeconds: r.Outcome.After.Seconds(),
	}
	if r.Outcome.Err != nil {
		f.Error = oneline.Of(r.Outcome.Err.Error(), maxError)
	}
	return f
}

// log writes the one line of a job, if the configuration wants it.
func (o *observer) log(r pool.Report) {
	level := levelOf(r.Outcome)
	if r.SettleErr != nil {
		level = slog.LevelWarn
	}
	if !o.wanted(r, level) || !o.app.log.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("pool", r.Pool), slog.String("job", shown(r.Job.ID)), slog.String("subject", shown(r.Job.Subject)),
		slog.String("outcome", r.Outcome.Action.String()), slog.String("reason", string(r.Outcome.Reason)),
		slog.Int("delivery", r.Job.Deliveries), slog.Int("tries", r.Outcome.Tries),
		slog.Duration("age", r.Age.Round(time.Millisecond)), slog.Duration("waited", r.Waited.Round(time.Microsecond)),
		slog.Duration("took", r.Took.Round(time.Microsecond)),
	}
	if r.Outcome.Source != "" && r.Outcome.Source != job.Primary {
		attrs = append(attrs, slog.String("done_by", string(r.Outcome.Source)))
	}
	if r.Answer != "" {
		attrs = append(attrs, slog.String("result", string(r.Answer)))
	}
	if r.Outcome.Last.Status != 0 {
		attrs = append(attrs, slog.Int("status", r.Outcome.Last.Status))
	}
	if r.Outcome.After > 0 {
		attrs = append(attrs, slog.Duration("next", r.Outcome.After.Round(time.Millisecond)))
	}
	if r.Outcome.Err != nil {
		attrs = append(attrs, slog.String("err", oneline.Of(r.Outcome.Err.Error(), maxError)))
	}
	if r.SettleErr != nil {
		attrs = append(attrs, slog.String("settle_err", r.SettleErr.Error()))
	}
	o.app.log.LogAttrs(context.Background(), level, "job", attrs...)
}

// wanted applies log.job.
func (o *observer) wanted(r pool.Report, level slog.Level) bool {
	switch o.app.cfg.Log.Job {
	case "all":
		return true
	case "none":
		return false
	case "dead":
		return r.Outcome.Action == job.DeadLetter || level > slog.LevelWarn
	}
	return level > slog.LevelDebug
}

func levelOf(out job.Outcome) slog.Level {
	switch out.Action {
	case job.Retry:
		return slog.LevelInfo
	case job.DeadLetter, job.Drop:
		return slog.LevelWarn
	case job.Defer:
		if out.Reason == job.NoDLQ || out.Reason == job.NoResult {
			return slog.LevelError
		}
	case job.Done, job.Release, job.Park:
	}
	if out.Reason == job.LeaseLost {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// try is called after every call to a target.
func (o *observer) try(target string, t pipeline.Try) {
	o.app.metrics.Try(target, t)
	c := o.calls[target]
	c.total.Add(1)
	if t.Result.Class != job.Success && t.Result.Class != job.Ignored { // what we gave up has not failed
		c.failed.Add(1)
	}
}

// breakerChanged is called at each transition, in order.
func (o *observer) breakerChanged(target string, c breaker.Change) {
	o.app.metrics.BreakerChanged(target, c)
	if o.app.opts.Stage.OnBreaker != nil {
		o.app.opts.Stage.OnBreaker(target, c)
	}
	level := slog.LevelWarn
	if c.To == breaker.Closed || c.To == breaker.HalfOpen {
		level = slog.LevelInfo
	}
	if p := o.app.cfg.Targets[target].Probe; p != nil && p.Interval > 0 && c.From != breaker.Closed && c.To != breaker.Closed {
		level = slog.LevelDebug // probing at a steady pace is nothing new
	}
	o.app.log.Log(context.Background(), level, "breaker", "target", target, "from", c.From.String(), "to", c.To.String(), "reason", string(c.Reason))
}

// ring keeps the last failures. Any goroutine may use it.
type ring struct {
	mu   sync.Mutex
	list []admin.Failure
	next int
}

func (r *ring) add(f admin.Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) < recentFailures {
		r.list = append(r.list, f)
		return
	}
	r.list[r.next] = f
	r.next = (r.next + 1) % recentFailures
}

// newest returns the failures, the newest first.
func (r *ring) newest() []admin.Failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]admin.Failure, 0, len(r.list))
	for i := range r.list {
		out = append(out, r.list[(r.next+len(r.list)-1-i)%len(r.list)])
	}
	return out
}
