package queue

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// How jobs that left the stream undelivered are counted
//
// The broker says nothing when max_age, a limit, a purge or a message's own TTL
// takes a job away. But a job that waits for a consumer can stop waiting in two
// ways only: it is delivered, or it is gone. So a mark is set now and then: the
// number of jobs pending then. Once the consumer or the stream's beginning has
// passed them all, those that no delivery accounts for are gone; and what is
// missing from one question to the next is gone at once:
//
//	        first     delivered              last
//	stream ───┼───────────┼─ x x  x x x   x x ─┤
//	                      └ pending at the mark ┘
//	lost ≥ pending at the mark − deliveries since − pending now   at any time
//	lost ≥ pending at the mark − deliveries since                 once all are passed
//
// It holds for every retention and every filter, and over all replicas, as the
// broker's own counters are compared and nobody has to say what was done. It is
// a lower bound and never counts a job that was delivered:
//
//   - Redeliveries hide as many losses, unless they came to this replica.
//   - What is published and lost between two questions is not seen, nor is what
//     was lost while workerd was away or disconnected. A loss may be made up for
//     by jobs that come at the same time until the next mark.
//   - A job that is taken away while somebody holds it, or while it waits for its
//     redelivery, is not seen: it had been delivered.
//   - With retention interest a job published while no consumer exists never was.

// reading is what the broker said about a consumer, and shortly before that
// about its stream.
type reading struct {
	at         time.Time
	reconnects uint64
	settings   settings
	leader     string
	stream     streamState
	pending    uint64 // jobs that were never delivered
	deliveries uint64 // made so far, redeliveries included
	delivered  uint64 // sequence of the last job delivered first
	again      uint64 // redeliveries this replica had received before it asked
}

func (r reading) with(stream streamState, i *jetstream.ConsumerInfo) reading {
	r.stream, r.settings = stream, settingsOf(i)
	r.pending, r.deliveries, r.delivered = i.NumPending, i.Delivered.Consumer, i.Delivered.Stream
	if i.Cluster != nil {
		r.leader = i.Cluster.Leader
	}
	return r
}

// continues tells whether two readings are of the same consumer whose counters
// went on: a broker that crashed may have forgotten its last deliveries.
func (r reading) continues(old reading) bool {
	return r.settings == old.settings && r.stream.created == old.stream.created && r.leader == old.leader &&
		r.reconnects == old.reconnects && r.deliveries >= old.deliveries && r.delivered >= old.delivered && r.again >= old.again
}

// mark is a reading that later ones are compared with. It is pure.
type mark struct {
	reading
	set bool
	// bounded: every job that was pending is at sequence last or before. That
	// is known from the next reading on, whose stream was asked for later.
	bounded bool
	last    uint64
	counted uint64 // losses since the mark that were told already

	// Between one reading and the next, too, jobs may vanish that were not
	// there at the mark: purged, for example. These are seen so far.
	before reading
	seen   uint64
}

// note returns how many jobs are known to be lost since the last reading.
func (m *mark) note(r reading) uint64 {
	if !m.set || !r.continues(m.before) {
		*m = mark{reading: r, before: r, set: true}
		return 0
	}
	if r.at.Before(m.before.at) { // another caller asked earlier and was answered later
		return 0
	}
	m.seen += missing(m.before.pending, r.pending+r.deliveries-m.before.deliveries)
	m.before = r
	made := r.deliveries - m.deliveries
	if m.bounded {
		made -= min(made, r.again-m.again)
	} else if r.stream.at.After(m.at) {
		// Redeliveries are deducted from here on only: one that was under way
		// when the mark was set may be counted in it already.
		m.bounded, m.last, m.again = true, r.stream.last, r.again
	}
	passed := m.bounded && (r.delivered >= m.last || r.stream.first > m.last)
	there := made
	if !passed {
		there += r.pending
	}
	total := max(m.seen, missing(m.pending, there))
	lost := missing(total, m.counted)
	m.counted += lost
	if passed {
		*m = mark{reading: r, before: r, set: true}
	}
	return lost
}

// missing is how many of there are not accounted for.
func missing(there, accounted uint64) uint64 { return there - min(there, accounted) }
