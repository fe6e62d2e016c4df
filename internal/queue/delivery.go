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
//	 └─ LeaseUntil passes ──► lost ───────┘
type delivery struct {
	job      *job.Job
	source   *Source
	received time.Time
	ackWait  time.Duration
	lease    atomic.Int64 // nanoseconds from received to the end of the lease
	settled  atomic.Bool

	mu    sync.Mutex
	reply string // where the broker wants to hear of it; a redelivery replaces it
}

func newDelivery(j *job.Job, s *Source, reply string, now time.Time) *delivery {
	d := &delivery{job: j, source: s, received: now, ackWait: s.AckWait(), reply: reply}
	d.lease.Store(int64(d.ackWait))
	return d
}

// Job implements job.Delivery.
func (d *delivery) Job() *job.Job { return d.job }

// LeaseUntil implements job.Delivery.
func (d *delivery) LeaseUntil() time.Time {
	return d.received.Add(time.Duration(d.lease.Load()))
}

// Extend implements job.Delivery. A lost lease stays lost: the broker confirms
// a sign of life even if the job is about to go, or has gone, to somebody else.
func (d *delivery) Extend() {
	if !d.settled.Load() && time.Now().Before(d.LeaseUntil()) {
		d.source.conn.settler.extend(d)
	}
}

// extended moves the lease after the broker confirmed a sign of life sent at
// the given time. It never moves backwards, and not at all if it was over then.
func (d *delivery) extended(sent time.Time) {
	at := int64(sent.Sub(d.received))
	until := at + int64(d.ackWait)
	for {
		old := d.lease.Load()
		if at > old || old >= until || d.lease.CompareAndSwap(old, until) {
			return
		}
	}
}

func (d *delivery) replySubject() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reply
}

// adopt takes over the reply subject of a redelivery of the same job.
func (d *delivery) adopt(reply string) {
	d.mu.Lock()
	d.reply = reply
	d.mu.Unlock()
}

// Settle implements job.Delivery.
func (d *delivery) Settle(v job.Verb, after time.Duration) error {
	if d.settled.Swap(true) {
		panic("queue: delivery settled twice: " + d.job.Key())
	}
	d.source.recent.finish(d, v == job.Ack || v == job.Term)
	if v != job.Ack && time.Now().After(d.LeaseUntil()) {
		return job.ErrLeaseLost
	}
	d.source.conn.settler.settle(d, verbPayload(v, after), v != job.Ack)
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
