package job

import "strings"

// Header is a job's header as published. NATS keeps the case of keys, so two
// keys may differ in case only; Get finds a key in any case.
type Header map[string][]string

// Get returns the first value under key, compared case-insensitively, or "".
// An exact match wins over others, and of these the first in byte order, so
// that every replica reads the same.
func (h Header) Get(key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	found, value := "", ""
	for k, v := range h {
		if len(v) > 0 && strings.EqualFold(k, key) && (found == "" || k < found) {
			found, value = k, v[0]
		}
	}
	return value
}

// Headers a publisher may set. All are optional and read case-insensitively.
const (
	// HeaderMsgID is the broker's dedupe id, taken over as the job's ID.
	HeaderMsgID = "Nats-Msg-Id"
	// HeaderDeadline is the instant (RFC 3339) after which the job must not start.
	HeaderDeadline = "Workerd-Deadline"
	// HeaderTTL is how long after publication the job may start, as a duration ("90s").
	HeaderTTL = "Workerd-TTL"
	// HeaderPriority (critical, high, normal, low) ranks the job within its pool.
	// It may always rank it lower than its subject does, and higher only if the
	// pool trusts it. Anything else in it is ignored: a wish that cannot be read
	// harms nobody.
	HeaderPriority = "Workerd-Priority"
	// HeaderKey names the tenant whose job it is, in a pool that is fair between
	// tenants.
	HeaderKey = "Workerd-Key"
	// HeaderIdempotencyKey replaces the default idempotency key.
	HeaderIdempotencyKey = "Workerd-Idempotency-Key"
	// HeaderReplyTo is the subject to which the result is published, if the
	// pool allows it.
	HeaderReplyTo = "Workerd-Reply-To"
)

// Headers workerd sends to a target with each call.
const (
	HeaderJobID      = "Workerd-Job-Id"
	HeaderAttempt    = "Workerd-Attempt"
	HeaderDelivery   = "Workerd-Delivery"
	HeaderPool       = "Workerd-Pool"
	HeaderSubject    = "Workerd-Subject"
	HeaderEnqueuedAt = "Workerd-Enqueued-At"
	HeaderTimeoutMS  = "Workerd-Timeout-Ms"
	// HeaderDisposition is read from a target's response: ack, retry, dead or
	// drop. It overrides what the status says.
	HeaderDisposition = "Workerd-Disposition"
)

// Headers of a result, beside [HeaderJobID].
const (
	// HeaderOutcome is what became of the job: ok, dead or dropped.
	HeaderOutcome = "Workerd-Outcome"
	// HeaderSource says who did it, see [Source].
	HeaderSource = "Workerd-Source"
	// HeaderReason is the [Reason], HeaderError the same for people.
	HeaderReason = "Workerd-Reason"
	HeaderError  = "Workerd-Error"
	// HeaderStatus of the last call, 0 if there was none.
	HeaderStatus = "Workerd-Status"
	// HeaderAgeSeconds of a reply from the cache.
	HeaderAgeSeconds = "Workerd-Age-Seconds"
	// HeaderOmitted says why the reply's body is left out.
	HeaderOmitted = "Workerd-Omitted"
)

// Headers of a dead letter, beside the job's own ones.
const (
	HeaderDLQReason = "Workerd-Dlq-Reason"
	HeaderDLQError  = "Workerd-Dlq-Error"
	// HeaderDLQFingerprint names the cause: the same for errors that differ only
	// in numbers, ids and the like.
	HeaderDLQFingerprint = "Workerd-Dlq-Fingerprint"
	// HeaderDLQHistory has a value for each of the last few attempts before, the
	// oldest first.
	HeaderDLQHistory    = "Workerd-Dlq-History"
	HeaderDLQSubject    = "Workerd-Dlq-Subject"
	HeaderDLQStream     = "Workerd-Dlq-Stream"
	HeaderDLQSequence   = "Workerd-Dlq-Sequence"
	HeaderDLQAttempts   = "Workerd-Dlq-Attempts"
	HeaderDLQDeliveries = "Workerd-Dlq-Deliveries"
	HeaderDLQEnqueued   = "Workerd-Dlq-Enqueued-At"
	HeaderDLQAt         = "Workerd-Dlq-At"
	HeaderDLQLastStatus = "Workerd-Dlq-Last-Status"
	HeaderDLQPool       = "Workerd-Dlq-Pool"
	HeaderDLQTarget     = "Workerd-Dlq-Target"
	// HeaderOrigPrefix precedes the job's own Nats-* headers in a dead
	// letter, where they must not act on the broker.
	HeaderOrigPrefix = "Workerd-Orig-"
	// HeaderDLQPrefix is that of everything said about a dead letter.
	HeaderDLQPrefix = "Workerd-Dlq-"
)
