package metrics

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/cache"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

// Watch sets what gauges are read from. Until then they show zero. It may be
// called again, when parts were replaced.
func (m *Metrics) Watch(s Sources) { m.collector.sources.Store(&s) }

// collector reads every source at each scrape. It keeps no values.
type collector struct {
	names   Names
	sources atomic.Pointer[Sources]
	build   *prometheus.Desc
	process processDescs
	pool    poolDescs
	queue   queueDescs
	target  targetDescs
	cache   cacheDescs
}

func newCollector(names Names) *collector {
	if names.GoVersion == "" {
		names.GoVersion = runtime.Version()
	}
	c := &collector{
		names:   names,
		build:   desc("build_info", "What this binary was built from.", "version", "revision", "goversion"),
		process: newProcessDescs(), pool: newPoolDescs(), queue: newQueueDescs(), target: newTargetDescs(), cache: newCacheDescs(),
	}
	c.sources.Store(&Sources{})
	return c
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector: the series depend on nothing but
// the names, so one collection describes them.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s, out := c.sources.Load(), emitter{ch}
	out.gauge(c.build, 1, c.names.Version, c.names.Revision, c.names.GoVersion)
	c.process.collect(out, c.names.Phases, s)
	now := time.Now()
	for _, p := range c.names.Pools {
		c.pool.collect(out, p, read(s.Pools[p.Name]), now)
		c.queue.collect(out, p, s.Consumers[p.Name])
	}
	for _, t := range c.names.Targets {
		c.target.collect(out, t, s.Targets[t])
	}
	c.cache.collect(out, read(s.Cache))
}

// emitter sends values to a scrape.
type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (e emitter) counter(d *prometheus.Desc, v uint64, labels ...string) {
	e.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

// flag is a gauge of 0 or 1.
func (e emitter) flag(d *prometheus.Desc, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	e.gauge(d, v, labels...)
}

// processDescs are the series of the process as a whole.
type processDescs struct {
	ready, phase, connected, reconnects, unsettled, resent, abandoned *prometheus.Desc
}

func newProcessDescs() processDescs {
	return processDescs{
		ready:      desc("ready", "1 while this replica takes jobs, as /readyz says."),
		phase:      desc("shutdown_phase", "1 for the phase of the shutdown that is running; all 0 before it.", "phase"),
		connected:  desc("nats_connected", "1 while connected to NATS."),
		reconnects: desc("nats_reconnects_total", "Connections to NATS regained."),
		unsettled:  desc("unsettled_acks", "Settlements the broker has not confirmed yet."),
		resent:     desc("acks_resent_total", "Settlements sent again for want of a confirmation."),
		abandoned:  desc("acks_abandoned_total", "Settlements given up without a confirmation; their jobs may run again."),
	}
}

func (d processDescs) collect(out emitter, phases []string, s *Sources) {
	out.flag(d.ready, read(s.Ready))
	phase := read(s.ShutdownPhase)
	for _, p := range phases {
		out.flag(d.phase, p == phase, p)
	}
	conn := read(s.Conn)
	out.flag(d.connected, conn.Connected)
	out.counter(d.reconnects, conn.Reconnects)
	out.gauge(d.unsettled, float64(conn.Unsettled))
	out.counter(d.resent, conn.Resent)
	out.counter(d.abandoned, conn.Abandoned)
}

// poolDescs are the series of a pool's state.
type poolDescs struct {
	info, inHand, inFlight, waiting, aside, parked, limit, held, oldest, last *prometheus.Desc
}

func newPoolDescs() poolDescs {
	return poolDescs{
		info:     desc("pool_info", "A target of a pool, to join series by.", "pool", "target"),
		inHand:   desc("pool_in_hand", "Jobs received and not yet settled: waiting, running or being settled.", "pool", "priority"),
		inFlight: desc("pool_in_flight", "Jobs that run.", "pool"),
		waiting:  desc("pool_waiting", "Jobs in hand that wait for a permit.", "pool"),
		aside:    desc("pool_set_aside", "Jobs given back for now so that the jobs of other tenants behind them are seen.", "pool"),
		parked:   desc("pool_parked", "Jobs in hand that wait for their target, in a pool with several.", "pool"),
		limit:    desc("pool_concurrency_limit", "Jobs that may run at once now; below the configured concurrency while something holds the pool.", "pool"),
		held:     desc("pool_held", "1 while no job may start, or with mostly_dead one a second is asked for, by reason.", "pool", "reason"),
		oldest:   desc("pool_oldest_job_age_seconds", "Time the oldest job in hand has been here; 0 if there is none.", "pool"),
		last:     desc("pool_last_completion_timestamp_seconds", "When a job was settled last; 0 if none was.", "pool"),
	}
}

func (d poolDescs) collect(out emitter, p PoolNames, s pool.Stats, now time.Time) {
	for _, target := range p.Targets {
		out.gauge(d.info, 1, p.Name, target)
	}
	for _, priority := range p.Priorities {
		out.gauge(d.inHand, float64(s.Held[priority]), p.Name, priority.String())
	}
	out.gauge(d.inFlight, float64(s.InFlight), p.Name)
	out.gauge(d.waiting, float64(s.Waiting), p.Name)
	out.gauge(d.parked, float64(s.Parked), p.Name)
	out.gauge(d.aside, float64(s.SetAside), p.Name)
	out.gauge(d.limit, float64(s.Limit), p.Name)
	for _, reason := range pool.HoldReasons() {
		holds := s.Hold.Holds(s.InFlight) || s.Hold.Reason == pool.MostlyDead
		out.flag(d.held, holds && s.Hold.Reason == reason, p.Name, reason)
	}
	age, last := 0.0, 0.0
	if !s.OldestHeld.IsZero() {
		age = seconds(now.Sub(s.OldestHeld))
	}
	if !s.LastSettled.IsZero() {
		last = float64(s.LastSettled.UnixMilli()) / 1000
	}
	out.gauge(d.oldest, age, p.Name)
	out.gauge(d.last, last, p.Name)
}

// queueDescs are the series of a pool's consumers.
type queueDescs struct {
	received, suppressed, lost, pending, ackPending, redelivered, waitingPulls, core, unheard *prometheus.Desc
}

func newQueueDescs() queueDescs {
	return queueDescs{
		received:     desc("jobs_received_total", "Deliveries from the broker.", "pool"),
		suppressed:   desc("redeliveries_suppressed_total", "Deliveries of jobs that were in hand or done here already, and so were not run.", "pool"),
		lost:         desc("jobs_expired_unprocessed_total", "Jobs the stream dropped before anybody took them (too old, too many, purged); at least so many, each replica counts them, use max().", "pool"),
		pending:      desc("consumer_pending", "Jobs in the stream that nobody was given; one replica's view, use max().", "pool", "priority"),
		ackPending:   desc("consumer_ack_pending", "Jobs that some replica holds or that wait for their delay; one replica's view, use max().", "pool", "priority"),
		redelivered:  desc("consumer_redelivered", "Jobs among the ack pending ones that were delivered more than once; use max().", "pool", "priority"),
		waitingPulls: desc("consumer_waiting_pulls", "Pull requests of all replicas that wait for jobs; use max().", "pool", "priority"),
		core:         desc("core_undone_total", "Messages of core NATS that were not done: refused for want of room, expired while they waited, or given back.", "pool", "why"),
		unheard:      desc("core_lost_total", "Of core_undone_total, those whose sender wanted no reply, and so does not know.", "pool"),
	}
}

func (d queueDescs) collect(out emitter, p PoolNames, consumers [job.Priorities]func() Consumer) {
	var received, suppressed, lost uint64
	for _, priority := range p.Priorities {
		c, name := read(consumers[priority]), priority.String()
		received += c.Delivered
		suppressed += c.Suppressed
		lost += c.Lost
		out.gauge(d.pending, float64(c.Pending), p.Name, name)
		out.gauge(d.ackPending, float64(c.AckPending), p.Name, name)
		out.gauge(d.redelivered, float64(c.Redelivered), p.Name, name)
		out.gauge(d.waitingPulls, float64(c.WaitingPulls), p.Name, name)
	}
	c := read(consumers[job.Normal])
	out.counter(d.core, c.Refused, p.Name, "refused")
	out.counter(d.core, c.Expired, p.Name, "expired")
	out.counter(d.core, c.Undone, p.Name, "given_back")
	out.counter(d.unheard, c.Unheard, p.Name)
	out.counter(d.received, received, p.Name)
	out.counter(d.suppressed, suppressed, p.Name)
	out.counter(d.lost, lost, p.Name)
}

// targetDescs are the series of a target's guards.
type targetDescs struct {
	state, rejected, budget, degraded *prometheus.Desc
}

func newTargetDescs() targetDescs {
	return targetDescs{
		state:    desc("breaker_state", "1 for the state a breaker is in.", "target", "state"),
		rejected: desc("breaker_rejected_total", "Calls a breaker did not permit.", "target"),
		budget:   desc("retry_budget_ratio", "Retry budget left; 1 is full.", "target"),
		degraded: desc("target_degraded", "1 while a target is not called and its jobs go straight to the fallback: by an operator, its health checks or the rate of fallbacks.", "target"),
	}
}

func (d targetDescs) collect(out emitter, name string, source func() Target) {
	t := read(source)
	for _, state := range breaker.States() {
		out.flag(d.state, source != nil && t.Breaker.State == state, name, state.String())
	}
	out.counter(d.rejected, t.Breaker.Rejected, name)
	out.gauge(d.budget, t.RetryBudget, name)
	out.flag(d.degraded, t.Degraded, name)
}

// cacheDescs are the series of the replies kept for fallbacks.
type cacheDescs struct {
	entries, bytes, requests, evictions *prometheus.Desc
}

func newCacheDescs() cacheDescs {
	return cacheDescs{
		entries:   desc("cache_entries", "Replies of targets that are kept for fallbacks."),
		bytes:     desc("cache_bytes", "Memory that the kept replies take, about."),
		requests:  desc("cache_requests_total", "Times a fallback asked for a kept reply. hit: it stood in for the target; miss: none was kept; stale: it was older than the step allows.", "result"),
		evictions: desc("cache_evictions_total", "Kept replies given up for want of room."),
	}
}

func (d cacheDescs) collect(out emitter, s cache.Stats) {
	out.gauge(d.entries, float64(s.Entries))
	out.gauge(d.bytes, float64(s.Bytes))
	out.counter(d.requests, s.Hits, "hit")
	out.counter(d.requests, s.Misses, "miss")
	out.counter(d.requests, s.Stale, "stale")
	out.counter(d.evictions, s.Evicted)
}
