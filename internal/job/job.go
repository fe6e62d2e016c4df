// Package job is the vocabulary of workerd: what a job is, how it reached us,
// what can become of it, and why.
//
// It holds words, not behaviour. Every other package speaks in them, and none
// of them is said in two ways.
package job

import (
	"errors"
	"fmt"
	"time"
)

// Job is one unit of work as it lay in the stream. The queue makes it; from
// then on nobody writes to it, so it may be read from any goroutine.
type Job struct {
	// ID names the job in logs, on pages and towards the target: the
	// publisher's Nats-Msg-Id if it is printable and at most [MaxID] bytes,
	// otherwise [Job.Key].
	ID string
	// Stream, Consumer and Sequence say where the job lies. Stream and
	// Sequence together are its identity.
	Stream   string
	Consumer string
	Sequence uint64
	// Subject the job was published to.
	Subject string
	// Header as published; never trusted.
	Header Header
	// Payload as published, byte for byte.
	Payload []byte
	// Priority the job wishes for, otherwise that of its source. What it gets
	// within its pool is the pool's decision.
	Priority Priority
	// Deliveries counts how often NATS handed the job to anybody, this time
	// included: 1 at the first delivery.
	Deliveries int
	// Enqueued is the broker's time of publication.
	Enqueued time.Time
	// Deadline after which the job must not start any more. Zero: none.
	Deadline time.Time
	// Invalid says what makes the job impossible to run (a malformed header,
	// an oversized payload). Nil for a job that can be tried.
	Invalid error
}

// MaxID is the longest job ID taken over from a publisher, in bytes.
const MaxID = 128

// Key is the identity of the job in its broker: "<stream>:<sequence>". It is
// the dedupe id of its dead letter and the default idempotency key.
func (j *Job) Key() string { return fmt.Sprintf("%s:%d", j.Stream, j.Sequence) }

// Delivery is a job in hand together with the duty to settle it exactly once.
// All methods may be called from any goroutine.
type Delivery interface {
	// Job that was delivered.
	Job() *Job
	// Extend asks the broker to keep the job ours for another ack_wait,
	// counted from now. It does not wait for the answer.
	Extend()
	// LeaseUntil is the instant until which the broker keeps the job ours, as
	// far as it has confirmed. It moves when an Extend is confirmed.
	LeaseUntil() time.Time
	// Settle ends the delivery. It returns once the broker's confirmation is
	// being pursued, not once it is there. After the lease is lost only Ack
	// is sent; Nak and Term would hit somebody else's run and are dropped
	// with ErrLeaseLost. A second Settle is a programming error and panics.
	Settle(v Verb, after time.Duration) error
}

// Receiver takes what a source brings. The source's goroutine calls it; it
// must not block.
type Receiver interface {
	// Deliver hands over a job and the number of jobs the source has left.
	Deliver(d Delivery, backlog uint64)
	// Returned says that n of the requested deliveries will not come, as there
	// are no jobs.
	Returned(n int)
}

// Verb is what the broker is told about a delivery.
type Verb uint8

// The verbs of JetStream that end a delivery.
const (
	// Ack: the job is done.
	Ack Verb = iota
	// Nak: give the job to anybody again, not before the stated delay.
	Nak
	// Term: never deliver the job again. Only after its dead letter is stored.
	Term
)

// String returns the verb in lower case.
func (v Verb) String() string { return [...]string{"ack", "nak", "term"}[v] }

// Causes with which the context of a job ends.
var (
	// ErrInterrupted: the drain timeout has passed.
	ErrInterrupted = errors.New("interrupted by shutdown")
	// ErrLeaseLost: the broker may have given the job to somebody else.
	ErrLeaseLost = errors.New("lease lost")
	// ErrTryTimeout: one call took longer than the target's timeout.
	ErrTryTimeout = errors.New("call timed out")
	// ErrJobTimeout: the job as a whole took longer than the pool's job_timeout.
	ErrJobTimeout = errors.New("job timed out")
)

// ErrTooLarge is why a job cannot be stored elsewhere, and not be sooner than somebody
// raises a limit.
var ErrTooLarge = errors.New("too large")

// Record is what is known of a job's earlier deliveries.
type Record struct {
	// Attempts that ran and were charged to the job.
	Attempts int
	// Deferrals: deliveries given back without being charged.
	Deferrals int
	// Panics among the attempts.
	Panics int
	// Started counts marks left by workers that began to run the job after a
	// delivery without a known end, and have not come back since.
	Started int
	// Errors of the last few attempts, oldest first.
	Errors []string
	// LastStatus is the last protocol status seen, 0 if none.
	LastStatus int
	// Unread: what is known from before could not be read. The rest is what
	// happened since.
	Unread bool
}

// Unexplained is how many of a job's deliveries before the current one, the
// given number, ended without a word: the worker died, or the delivery never
// reached one.
func (r Record) Unexplained(deliveries int) int {
	return max(0, deliveries-1-r.Attempts-r.Deferrals)
}

// Crashes is how many workers are taken to have died while they ran the job.
// The first unexplained delivery makes a suspect, whose every further run
// leaves a mark before it begins; so of the further ones only those count that
// had begun.
func (r Record) Crashes(deliveries int) int {
	return min(r.Unexplained(deliveries), r.Started)
}
