package metrics

import (
	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/cache"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

// Sources are the snapshots that gauges are read from at each scrape. Each
// function is called from the scraper's goroutine, at most one scrape at a
// time per gatherer; it must return at once. One that is nil or missing makes
// its series show zero. The maps must not be changed after [Metrics.Watch].
type Sources struct {
	// Pools by name.
	Pools map[string]func() pool.Stats
	// Consumers of each pool, by priority.
	Consumers map[string][job.Priorities]func() Consumer
	// Targets by name.
	Targets map[string]func() Target
	// Cache of the replies that fallbacks use.
	Cache func() cache.Stats
	// Conn is the connection to NATS.
	Conn func() Conn
	// Ready is what /readyz says.
	Ready func() bool
	// ShutdownPhase is one of [Names].Phases, or "" before the shutdown.
	ShutdownPhase func() string
}

// Consumer is a source of jobs: what has come through it, and how far it is
// behind, as the broker last told.
type Consumer struct {
	// Delivered jobs since the start. Suppressed ones among them were in hand
	// or done here already and got no report of their own.
	Delivered, Suppressed uint64
	// Lost jobs left the stream undelivered since the start, all replicas seen
	// together.
	Lost uint64
	// Pending jobs that nobody was given yet.
	Pending uint64
	// AckPending jobs that somebody holds or that wait for their delay, and
	// Redelivered ones among them.
	AckPending, Redelivered int
	// WaitingPulls of all replicas.
	WaitingPulls int
	// Refused, Expired and Undone messages of core NATS, and of these the
	// Unheard ones, whose sender wanted no reply. 0 for a stream.
	Refused, Expired, Undone, Unheard uint64
}

// Target is the state of a target's guards.
type Target struct {
	Breaker breaker.Stats
	// Degraded: it is not called, and its fallback does what there is to do.
	Degraded bool
	// RetryBudget left, 0 to 1. 1: full, or switched off.
	RetryBudget float64
}

// Conn is the state of the connection to NATS.
type Conn struct {
	Connected  bool
	Reconnects uint64
	// Unsettled acks are not confirmed yet; Resent and Abandoned ones since
	// the start were sent again, or given up.
	Unsettled         int
	Resent, Abandoned uint64
}

// read calls a source that may be missing.
func read[T any](source func() T) T {
	if source == nil {
		var zero T
		return zero
	}
	return source()
}
