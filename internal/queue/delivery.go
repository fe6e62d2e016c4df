package queue

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// delivery is a job in hand and its lease.
//
//	        Settle(Ack|Nak|Term)
//	held ───────────────────────────► settled
//	 │  ▲ Extend confirmed                ▲
//	 │  └── lease moves                   │ Settle(Ack) only
//	 ├─ LeaseUntil passes ──► lost ───────┤
//	 │                                    │
//	 └─ the consumer is ───► orphaned ────┘
//	    made anew                └─ the new one brings the job here ──► held
type delivery struct {
	*lease
	job     *job.Job
	source  *Source
	settled atomic.Bool
}

// lease is what outlives a delivery until the broker has confirmed its end. It
// knows nothing of the job: a payload must not be held for want of an answer.
type lease struct {
	received time.Time
	ackWait  time.Duration
	end      atomic.Int64 // nanoseconds from received
	orphan   atomic.Bool  // the consumer it is of is gone; that made anew may have given the job to anybody

	mu    sync.Mutex
	reply string // where the broker wants to hear of it; a redelivery replaces it
}

func newDelivery(j *job.Job, s *Source, reply string, now time.Time) *delivery {
	l := &lease{received: now, ackWait: s.AckWait(), reply: reply}
	l.end.Store(int64(l.ackWait))
	return &delivery{lease: l, job: j, source: s}
}

// Job implements job.Delivery.
func (d *delivery) Job() *job.Job { return d.job }

// LeaseUntil implements job.Delivery.
func (l *lease) LeaseUntil() time.Time {
	return l.received.Add(time.Duration(l.end.Load()))
}

// Extend implements job.Delivery. A lost lease stays lost: the broker confirms
// a sign of life even if the job is about to go, or has gone, to somebody else.
func (d *delivery) Extend() {
	if !d.settled.Load() && time.Now().Before(d.LeaseUntil()) {
		d.source.conn.settler.extend(d.lease)
	}
}

// extended moves the lease after the broker confirmed a sign of life sent at
// the given time. It never moves backwards, and not at all if it is over: what
// was sent in time may have stood still on its way, and arrived when the job was
// somebody else's.
func (l *lease) extended(sent time.Time) {
	until := int64(sent.Sub(l.received)) + int64(l.ackWait)
	for {
		old := l.end.Load()
		if int64(time.Since(l.received)) > old || old >= until || l.end.CompareAndSwap(old, until) {
			return
		}
	}
}

func (l *lease) replySubject() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reply
}

// adopt takes over the reply subject of a redelivery of the same job.
func (l *lease) adopt(reply string) {
	l.mu.Lock()
	l.reply = reply
	l.mu.Unlock()
	l.orphan.Store(false)
}

// ours tells whether what ends a delivery, other than the ack of a success, may
// be said at a time. Otherwise it would hit the run of whoever has the job: the
// broker compares neither deliveries nor the consumer with one of the same name
// that was there before.
func (l *lease) ours(now time.Time) bool {
	return !l.orphan.Load() && !now.After(l.LeaseUntil())
}

// Settle implements job.Delivery.
func (d *delivery) Settle(v job.Verb, after time.Duration) error {
	if d.settled.Swap(true) {
		panic("queue: delivery settled twice: " + d.job.Key())
	}
	d.source.recent.finish(d, v == job.Ack || v == job.Term)
	if v != job.Ack && !d.ours(time.Now()) {
		return job.ErrLeaseLost
	}
	d.source.conn.settler.settle(d.lease, v, after)
	return nil
}

func verbPayload(v job.Verb, after time.Duration) []byte {
	switch {
	case v == job.Ack:
		return []byte("+ACK")
	case v == job.Term:
		return []byte("+TERM")
	case after <= 0:
		return []byte("-NAK")
	}
	return append(strconv.AppendInt([]byte(`-NAK {"delay":`), int64(after), 10), '}')
}
