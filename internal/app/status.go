package app

import (
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/metrics"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/retry"
)

// Status implements admin.Backend.
func (a *App) Status() admin.Status {
	now := time.Now()
	conn := a.conn.Stats()
	s := admin.Status{
		Version: a.opts.Version, GoVersion: runtime.Version(), Instance: a.id, Now: now, Started: a.started,
		Checks:   a.Ready(),
		NATS:     admin.NATS{Connected: conn.Connected, URL: conn.URL, Reconnects: conn.Reconnects, UnsettledAcks: conn.Unsettled},
		Failures: a.observer.failures.newest(),
	}
	s.Ready = holds(s.Checks)
	for _, name := range sortedNames(a.pools) {
		s.Pools = append(s.Pools, a.poolStatus(a.pools[name]))
	}
	for _, name := range sortedNames(a.targets) {
		s.Targets = append(s.Targets, a.targetStatus(a.targets[name], now))
	}
	s.Drain, s.Cache = a.drainStatus(s.Pools), a.cacheStatus()
	s.Complete()
	return s
}

// Ready implements admin.Backend: this replica takes jobs. A breaker that is
// open or a pool that is held does not make it unready; no other replica would
// do better.
func (a *App) Ready() []admin.Check {
	checks := []admin.Check{{Name: "shutdown", OK: !a.draining()}, a.natsCheck()}
	if a.draining() {
		checks[0].Message = "this replica is shutting down"
	}
	for _, name := range sortedNames(a.pools) {
		check := admin.Check{Name: "pool:" + name, OK: true}
		if core := a.pools[name].core; core != nil && !core.Stats().Ready {
			check.OK, check.Message = false, "core "+core.Stats().Subject+": "+core.Stats().Problem
		}
		for _, s := range a.pools[name].sources {
			if s == nil {
				continue
			}
			switch st := s.Stats(); {
			case !st.Ready:
				check.OK, check.Message = false, "consumer "+st.Consumer+": "+st.Problem
			case check.OK && st.Notice != "":
				check.Message = st.Notice
			}
		}
		checks = append(checks, check)
	}
	return checks
}

// natsCheck: connected, and permitted to do what is needed.
func (a *App) natsCheck() admin.Check {
	problems := a.conn.Missing()
	if !a.conn.Connected() {
		problems = []string{a.conn.Outage(time.Now())}
	}
	return admin.Check{Name: "nats", OK: len(problems) == 0, Message: strings.Join(problems, "; ")}
}

// Live implements admin.Backend: whoever answers is alive. Dependencies do not
// count: restarting would not help them.
func (a *App) Live() []admin.Check { return []admin.Check{{Name: "process", OK: true}} }

func holds(checks []admin.Check) bool {
	for _, c := range checks {
		if !c.OK {
			return false
		}
	}
	return true
}

func (a *App) poolStatus(c *compartment) admin.Pool {
	s := c.pool.Stats()
	p := admin.Pool{
		Name: c.name, Target: c.cfg.Target, Concurrency: s.Concurrency, Limit: s.Limit, InFlight: s.InFlight, Waiting: s.Waiting, SetAside: s.SetAside, Parked: s.Parked,
		LastCompletion: s.LastSettled, Jobs: a.observer.pools[c.name].jobs(), JobsPerSecond: a.observer.pools[c.name].rate.perSecond(),
	}
	if !s.OldestHeld.IsZero() {
		p.OldestJobAgeSeconds = time.Since(s.OldestHeld).Seconds()
	}
	if all := c.cfg.Targets(); len(all) > 1 {
		p.Targets = all
	}
	p.Consumers = c.consumers()
	p.State = poolState(s, p.Consumers)
	switch p.State {
	case admin.PoolStarting:
		if !c.everReady() { // otherwise nobody noted since when
			p.Since = a.started
		}
	case admin.PoolHeld, admin.PoolRunning:
		p.Since, p.HoldReason, p.Until = s.HeldSince, s.Hold.Reason, s.Hold.Until
		p.HoldNote, p.HoldTarget = a.holdNote(c, p.HoldReason), s.Hold.Target
	case admin.PoolDraining:
		p.Since = a.phase.Load().drain
	case admin.PoolStopped:
	}
	return p
}

// holdNote is what there is to say of what holds a pool.
func (a *App) holdNote(c *compartment, reason string) string {
	switch job.Reason(reason) {
	case job.ValveClosed:
		return c.valve.Stats().Last
	case job.Pressure:
		return a.pressure.State().Of
	case job.Paused:
		return c.pause.Note(time.Now())
	}
	return ""
}

// everReady tells whether a consumer of the pool has been ready: it was asked.
func (c *compartment) everReady() bool {
	return slices.ContainsFunc(c.sources[:], func(s *queue.Source) bool { return s != nil && s.Stats().Pulls > 0 })
}

func poolState(s pool.Stats, consumers []admin.Consumer) admin.PoolState {
	ready := false
	for _, c := range consumers {
		ready = ready || c.Ready
	}
	switch {
	case s.Hold.Reason == "draining":
		return admin.PoolDraining
	case !ready:
		return admin.PoolStarting
	case s.Hold.Holds(s.InFlight):
		return admin.PoolHeld
	}
	return admin.PoolRunning
}

func (c *compartment) consumers() []admin.Consumer {
	var list []admin.Consumer
	if c.core != nil {
		s := c.core.Stats()
		list = append(list, admin.Consumer{
			Name: s.Subject, Stream: "core NATS", Priority: job.Normal.String(), Ready: s.Ready, Problem: s.Problem, Pending: uint64(s.Waiting),
		})
	}
	lags := c.lag.all()
	for priority, s := range c.sources {
		if s == nil {
			continue
		}
		st, lag := s.Stats(), lags[priority]
		list = append(list, admin.Consumer{
			Name: st.Consumer, Stream: st.Stream, Priority: job.Priority(priority).String(),
			Ready: st.Ready, Problem: st.Problem, Pending: lag.Pending, AckPending: lag.AckPending,
		})
	}
	return list
}

func (t *tally) jobs() admin.Jobs {
	return admin.Jobs{
		OK: t.by[job.Done].Load(), Retry: t.by[job.Retry].Load(), Deferred: t.by[job.Defer].Load(),
		Released: t.by[job.Release].Load(), Dead: t.by[job.DeadLetter].Load(), Dropped: t.by[job.Drop].Load(),
	}
}

// shownURL is a target's URL without its query, where keys like to live.
func shownURL(raw string) string {
	address, _, _ := strings.Cut(raw, "?")
	return address
}

func (a *App) targetStatus(l *lane, now time.Time) admin.Target {
	b, calls := l.breaker.Stats(now), a.observer.calls[l.name]
	t := admin.Target{
		Name: l.name, Kind: "http", URL: shownURL(l.cfg.HTTP.URL), Calls: calls.total.Load(), Failed: calls.failed.Load(), CallsPerSecond: calls.rate.perSecond(),
		Breaker: admin.Breaker{
			State: b.State.String(), Reason: string(b.Reason), Note: b.Note, Since: b.Since, Until: b.Until, Opens: b.Opens,
			Total: b.Total, Bad: b.Bad, Slow: b.Slow, Probes: b.Probes, Proven: b.Proven, Asking: b.Reserved, Rejected: b.Rejected,
		},
	}
	if l.cfg.Probe != nil {
		t.Breaker.Probe = l.cfg.Probe.Path
	}
	t.Degraded = l.degradedStatus(now)
	limit := l.limiter.Stats(now)
	t.Limit = admin.Limit{Now: limit.Limit, Max: limit.Max, Ramping: limit.Ramping}
	if budget := l.retry.Budget.Stats(now); !budget.Unlimited {
		ratio := budgetRatio(budget)
		t.RetryBudgetRatio = &ratio
	}
	return t
}

// degradedStatus is nil if there is nothing to say.
func (l *lane) degradedStatus(now time.Time) *admin.Degraded {
	s := l.degrade.State(now)
	if !s.On && s.Planned.IsZero() {
		return nil
	}
	d := &admin.Degraded{On: s.On, By: string(s.By), Note: s.Note, Since: s.Since, Until: s.Until, Planned: s.Planned}
	if s.By == fallback.ByHealth {
		d.Probe, d.Healthy = l.cfg.Probe.Path, l.cfg.DegradeWhen.Healthy
	}
	return d
}

// cacheStatus is nil if no fallback uses the cache.
func (a *App) cacheStatus() *admin.Cache {
	for _, t := range a.cfg.Targets {
		if !slices.ContainsFunc(t.Fallback, func(s fallback.Step) bool { return s.Kind() == fallback.Cached }) {
			continue
		}
		s := a.cache.Stats()
		return &admin.Cache{
			Entries: s.Entries, MaxEntries: a.cfg.Cache.MaxEntries, Bytes: s.Bytes, MaxBytes: a.cfg.Cache.MaxBytes,
			Hits: s.Hits, Misses: s.Misses, Stale: s.Stale, Evicted: s.Evicted,
		}
	}
	return nil
}

func (a *App) drainStatus(pools []admin.Pool) *admin.Drain {
	p := a.phase.Load()
	if p.drain.IsZero() {
		return nil
	}
	d := &admin.Drain{
		Phase: p.name, Since: p.drain, Timeout: a.cfg.Drain.Timeout.Seconds(), AtStart: p.running,
		HandedBack: int(a.handedBack.Load()), Interrupted: int(a.interrupted.Load()),
	}
	for _, pool := range pools {
		d.Running += pool.InFlight
	}
	return d
}

// names are the label values of all metrics.
func (a *App) names() metrics.Names {
	n := metrics.Names{Version: a.opts.Version, GoVersion: runtime.Version(), Targets: sortedNames(a.cfg.Targets), Phases: phaseNames(), Fallbacks: a.steps(), Probed: a.probed()}
	for _, name := range n.Targets {
		if a.cfg.Targets[name].Hedge != nil {
			n.Hedged = append(n.Hedged, name)
		}
	}
	for _, name := range sortedNames(a.cfg.Pools) {
		p := metrics.PoolNames{Name: name, Targets: a.cfg.Pools[name].Targets()}
		for priority := range job.Priority(job.Priorities) {
			if a.cfg.Pools[name].Uses(priority) {
				p.Priorities = append(p.Priorities, priority)
			}
		}
		n.Pools = append(n.Pools, p)
	}
	return n
}

// sources are the snapshots that metrics are read from at each scrape.
func (a *App) sources() metrics.Sources {
	s := metrics.Sources{
		Pools: map[string]func() pool.Stats{}, Targets: map[string]func() metrics.Target{},
		Consumers: map[string][job.Priorities]func() metrics.Consumer{},
		Conn: func() metrics.Conn {
			c := a.conn.Stats()
			return metrics.Conn{Connected: c.Connected, Reconnects: c.Reconnects, Unsettled: c.Unsettled, Resent: c.Resent, Abandoned: c.Abandoned}
		},
		Cache:         a.cache.Stats,
		Ready:         func() bool { return holds(a.Ready()) },
		ShutdownPhase: a.shutdownPhase,
	}
	for name, c := range a.pools {
		s.Pools[name] = c.pool.Stats
		s.Consumers[name] = c.metrics()
	}
	for name, l := range a.targets {
		s.Targets[name] = func() metrics.Target {
			now := time.Now()
			return metrics.Target{Breaker: l.breaker.Stats(now), Degraded: l.degrade.State(now).On, RetryBudget: budgetRatio(l.retry.Budget.Stats(now))}
		}
	}
	return s
}

func (c *compartment) metrics() (list [job.Priorities]func() metrics.Consumer) {
	if c.core != nil {
		list[job.Normal] = func() metrics.Consumer {
			s := c.core.Stats()
			return metrics.Consumer{
				Delivered: s.Received - s.Refused - s.Expired - uint64(s.Waiting), Pending: uint64(s.Waiting),
				Refused: s.Refused, Expired: s.Expired, Undone: s.Undone, Unheard: s.Lost,
			}
		}
	}
	for priority, s := range c.sources {
		if s == nil {
			continue
		}
		list[priority] = func() metrics.Consumer {
			st, lag := s.Stats(), c.lag.all()[priority]
			return metrics.Consumer{
				Delivered: st.Delivered, Suppressed: st.Suppressed, Lost: st.Lost, Pending: lag.Pending, AckPending: lag.AckPending,
				Redelivered: lag.Redelivered, WaitingPulls: lag.Waiting,
			}
		}
	}
	return list
}

// budgetRatio is how full a retry budget is, 1 if there is no limit.
func budgetRatio(b retry.BudgetStats) float64 {
	if b.Unlimited || b.Max == 0 {
		return 1
	}
	return b.Tokens / b.Max
}

func (a *App) shutdownPhase() string {
	if !a.draining() {
		return ""
	}
	return a.phase.Load().name
}
