package admin

import (
	"cmp"
	"time"
)

// Backend is what the server shows. Its methods are called from any goroutine
// and must return at once, from memory.
type Backend interface {
	// Status is the whole document; the server fills in what is derived, see
	// [Status.Complete].
	Status() Status
	// Ready lists what must hold for this replica to take jobs.
	Ready() []Check
	// Live lists what must hold for this process not to be restarted. A
	// dependency is never among it.
	Live() []Check
	// Control does what an operator wants, at once. The error is
	// ErrUnknownName, or says why it cannot be done.
	Control(c Control) error
}

// Check is one condition of health.
type Check struct {
	// Name in lower case, without spaces.
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Message says why it does not hold, or what there is to know if it does.
	Message string `json:"message,omitempty"`
}

// Status is everything there is to show of a running workerd.
type Status struct {
	Version   string `json:"version"`
	Revision  string `json:"revision,omitempty"`
	GoVersion string `json:"go_version,omitempty"`
	// Instance names this replica.
	Instance string `json:"instance"`
	// Now is when the document was made.
	Now           time.Time `json:"now"`
	Started       time.Time `json:"started"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	// Ready: all Checks hold.
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
	NATS   NATS    `json:"nats"`
	// Drain is nil until the shutdown begins.
	Drain   *Drain   `json:"drain,omitempty"`
	Pools   []Pool   `json:"pools"`
	Targets []Target `json:"targets"`
	// Cache is nil if no fallback uses it.
	Cache *Cache `json:"cache,omitempty"`
	// Failures are the last ones, newest first.
	Failures []Failure `json:"failures"`
}

// NATS is the connection to the broker.
type NATS struct {
	Connected bool `json:"connected"`
	// URL without credentials; empty while disconnected.
	URL        string `json:"url,omitempty"`
	Reconnects uint64 `json:"reconnects"`
	// UnsettledAcks are not confirmed by the broker yet.
	UnsettledAcks int `json:"unsettled_acks"`
}

// PoolState is one of the Pool… constants.
type PoolState string

// The states of a pool.
const (
	// PoolStarting: no consumer of the pool is ready.
	PoolStarting PoolState = "starting"
	PoolRunning  PoolState = "running"
	// PoolHeld: no job may start, for HoldReason.
	PoolHeld     PoolState = "held"
	PoolDraining PoolState = "draining"
	PoolStopped  PoolState = "stopped"
)

// Pool is a compartment and its jobs.
type Pool struct {
	Name   string `json:"name"`
	Target string `json:"target"`
	// Targets are all there are, Target first, if the pool has several.
	Targets []string  `json:"targets,omitempty"`
	State   PoolState `json:"state"`
	// Why is a sentence: why the pool is not running, since when, and what
	// comes next. Empty: [Status.Complete] writes it.
	Why string `json:"why,omitempty"`
	// HoldReason is the pool's own word for what holds it, or keeps it from
	// running more; HoldNote what there is to say of that.
	HoldReason string `json:"hold_reason,omitempty"`
	HoldNote   string `json:"hold_note,omitempty"`
	// HoldTarget is the target that it is about, in a pool with several.
	HoldTarget string `json:"hold_target,omitempty"`
	// Since when the state holds, and Until when it ends by itself, if it does.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`

	// Concurrency as configured; Limit as it is now.
	Concurrency int `json:"concurrency"`
	Limit       int `json:"limit"`
	InFlight    int `json:"in_flight"`
	Waiting     int `json:"waiting"`
	// SetAside jobs were given back so that those of other tenants are seen.
	SetAside int `json:"set_aside,omitempty"`
	// Parked jobs are in hand and wait for their target, in a pool with several.
	Parked int `json:"parked,omitempty"`
	// OldestJobAgeSeconds is how long the oldest job in hand has been here.
	OldestJobAgeSeconds float64 `json:"oldest_job_age_seconds"`
	// JobsPerSecond settled lately. Nil: not measured.
	JobsPerSecond  *float64   `json:"jobs_per_second,omitempty"`
	LastCompletion time.Time  `json:"last_completion,omitzero"`
	Jobs           Jobs       `json:"jobs"`
	Consumers      []Consumer `json:"consumers"`
}

// Jobs are deliveries settled since the start, by outcome.
type Jobs struct {
	OK       uint64 `json:"ok"`
	Retry    uint64 `json:"retry"`
	Deferred uint64 `json:"deferred"`
	Released uint64 `json:"released"`
	Dead     uint64 `json:"dead"`
	Dropped  uint64 `json:"dropped"`
}

// Consumer is where the jobs of one priority come from.
type Consumer struct {
	Name     string `json:"name"`
	Stream   string `json:"stream"`
	Priority string `json:"priority"`
	Ready    bool   `json:"ready"`
	// Problem says why it is not ready.
	Problem string `json:"problem,omitempty"`
	// Pending jobs in the stream that nobody was given, AckPending ones that
	// some replica holds or that wait for their delay.
	Pending    uint64 `json:"pending"`
	AckPending int    `json:"ack_pending"`
}

// Target is a downstream system and its guards.
type Target struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// URL without credentials.
	URL     string  `json:"url,omitempty"`
	Breaker Breaker `json:"breaker"`
	Limit   Limit   `json:"limit"`
	// Degraded: its jobs go straight to the fallback, or will. Nil: they do not.
	Degraded *Degraded `json:"degraded,omitempty"`
	// Why is a sentence if calls are refused or watched. Empty:
	// [Status.Complete] writes it.
	Why string `json:"why,omitempty"`
	// Calls made since the start, and Failed ones among them.
	Calls  uint64 `json:"calls"`
	Failed uint64 `json:"failed"`
	// CallsPerSecond lately. Nil: not measured.
	CallsPerSecond *float64 `json:"calls_per_second,omitempty"`
	// RetryBudgetRatio left, 0 to 1. Nil: switched off.
	RetryBudgetRatio *float64 `json:"retry_budget_ratio,omitempty"`
}

// Who leads jobs straight to the fallback of their target.
const (
	ByOperator = "operator"
	ByHealth   = "health"
	ByRate     = "fallback_rate"
)

// Degraded target: it is not called, and its fallback does what there is to do.
type Degraded struct {
	// On: now. Otherwise it is only planned.
	On bool `json:"on"`
	// By is one of the By… constants, Note what there is to say of why.
	By   string `json:"by,omitempty"`
	Note string `json:"note,omitempty"`
	// Since when, and Until when it ends by itself, if that is known.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Planned is when it is to begin, if it is not on.
	Planned time.Time `json:"planned,omitzero"`
	// Probe is the path that is asked for, and Healthy how many good answers in a
	// row end it, if it is ByHealth.
	Probe   string `json:"probe,omitempty"`
	Healthy int    `json:"healthy,omitempty"`
}

// Cache of replies that fallbacks use.
type Cache struct {
	Entries    int   `json:"entries"`
	MaxEntries int   `json:"max_entries"`
	Bytes      int64 `json:"bytes"`
	MaxBytes   int64 `json:"max_bytes"`
	// Hits since the start: replies that stood in for the target. Misses: nothing
	// was kept; Stale: only something too old; Evicted entries, for want of room.
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
	Stale   uint64 `json:"stale"`
	Evicted uint64 `json:"evicted"`
}

// Limit of the calls that a target gets at once, of all pools together.
type Limit struct {
	// Now is the limit, Max the most it can be.
	Now int `json:"now"`
	Max int `json:"max"`
	// Ramping: it is low because the target is warming up after an outage.
	Ramping bool `json:"ramping,omitempty"`
}

// The states of a breaker.
const (
	BreakerClosed      = "closed"
	BreakerOpen        = "open"
	BreakerHalfOpen    = "half_open"
	BreakerForcedOpen  = "forced_open"
	BreakerDisabled    = "disabled"
	BreakerMetricsOnly = "metrics_only"
)

// Breaker of a target.
type Breaker struct {
	// State is one of the Breaker… constants.
	State string `json:"state"`
	// Reason for the state, a word of the breaker; Note an operator left.
	Reason string `json:"reason,omitempty"`
	Note   string `json:"note,omitempty"`
	// Since when, and Until when an open one probes or an override ends.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Opens in close succession; each lengthens the wait.
	Opens int `json:"opens"`
	// Total calls in the window, Bad and Slow ones among them. While not
	// closed: as they stood when it opened.
	Total int `json:"total"`
	Bad   int `json:"bad"`
	Slow  int `json:"slow"`
	// Probes that run, and Proven ones that were good, while half open.
	Probes int `json:"probes"`
	Proven int `json:"proven"`
	// Probe is the path that workerd asks for before any job probes, "" if a job
	// does; Asking while half open until there is a good answer.
	Probe  string `json:"probe,omitempty"`
	Asking bool   `json:"asking,omitempty"`
	// Rejected calls since the start.
	Rejected uint64 `json:"rejected"`
}

// Failure is something that went wrong with a job.
type Failure struct {
	At      time.Time `json:"at"`
	Pool    string    `json:"pool"`
	Target  string    `json:"target,omitempty"`
	JobID   string    `json:"job_id"`
	Subject string    `json:"subject,omitempty"`
	// Attempt that failed, from 1. 0: the job did not run.
	Attempt int    `json:"attempt,omitempty"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	// Status of the protocol, 0 if there was none.
	Status int    `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
	// NextSeconds is the delay until the job comes again, if it does.
	NextSeconds float64 `json:"next_seconds,omitempty"`
}

// Drain is a shutdown under way.
type Drain struct {
	Phase   string    `json:"phase"`
	Since   time.Time `json:"since"`
	Timeout float64   `json:"timeout_seconds"`
	Elapsed float64   `json:"elapsed_seconds"`
	// AtStart jobs were running; Running ones still are.
	AtStart int `json:"at_start"`
	Running int `json:"running"`
	// HandedBack jobs went to other replicas; Interrupted ones among them had
	// been running.
	HandedBack  int `json:"handed_back"`
	Interrupted int `json:"interrupted"`
}

// Complete fills in what follows from the rest: uptime and elapsed time, the
// sentences nobody wrote, and empty lists in place of missing ones.
func (s *Status) Complete() {
	s.UptimeSeconds = s.Now.Sub(s.Started).Seconds()
	s.Checks, s.Pools, s.Targets, s.Failures = list(s.Checks), list(s.Pools), list(s.Targets), list(s.Failures)
	if d := s.Drain; d != nil {
		d.Elapsed = s.Now.Sub(d.Since).Seconds()
	}
	targets := make(map[string]*Target, len(s.Targets))
	for i := range s.Targets {
		t := &s.Targets[i]
		targets[t.Name] = t
		if t.Why == "" {
			t.Why = t.sentence(s.Now)
		}
	}
	for i := range s.Pools {
		p := &s.Pools[i]
		p.Consumers = list(p.Consumers)
		if p.Why == "" {
			about := *p
			about.Target = cmp.Or(p.HoldTarget, p.Target)
			p.Why = about.sentence(cmp.Or(targets[about.Target], &Target{Name: about.Target}), s.Now)
		}
	}
}

// list makes a missing list an empty one, so that JSON shows [] and not null.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
