// Package dlq keeps the jobs that will not be tried again.
//
// A dead letter is the job as it was published, with the reason and its origin
// in headers, in a stream of its own. It is stored before the job is
// terminated, and once only: the broker drops a second copy of the same job.
package dlq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/queue"
)

// maxError is the longest error text kept in a dead letter, in bytes.
const maxError = 1024

// Store writes the dead letters of one pool. Any number of goroutines may use it.
type Store struct {
	conn         *queue.Conn
	cfg          Config
	pool, target string
}

// New returns the store of a pool.
func New(conn *queue.Conn, cfg Config, pool, target string) *Store {
	return &Store{conn: conn, cfg: cfg, pool: pool, target: target}
}

// Ensure creates the dead-letter stream if it is absent.
func Ensure(ctx context.Context, conn *queue.Conn, cfg Config) error {
	_, err := conn.EnsureStream(ctx, cfg.Stream, queue.StreamConfig{
		Subjects: []string{cfg.Subject + ".>"}, Retention: "limits", Storage: "file", Replicas: cfg.Replicas,
		MaxAge: cfg.MaxAge, MaxBytes: cfg.MaxBytes, DuplicateWindow: cfg.DuplicateWindow,
	})
	return err
}

// Put stores a job and returns once the broker has it on record.
func (s *Store) Put(ctx context.Context, j *job.Job, o job.Outcome, r job.Record) error {
	if err := s.conn.AwaitConnected(ctx); err != nil {
		return err
	}
	m := &nats.Msg{Subject: s.cfg.Subject + "." + s.pool, Header: s.header(j, o, r), Data: j.Payload}
	opts := []jetstream.PublishOpt{jetstream.WithMsgID(dedupeID(j)), jetstream.WithExpectStream(s.cfg.Stream)}
	_, err := s.conn.JetStream().PublishMsg(ctx, m, opts...)
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		if err = Ensure(ctx, s.conn, s.cfg); err == nil {
			_, err = s.conn.JetStream().PublishMsg(ctx, m, opts...)
		}
	}
	if err != nil {
		return fmt.Errorf("publish to %s: %w", m.Subject, err)
	}
	return nil
}

// dedupeID names a job for good: a stream that was deleted and made again
// starts its sequences anew, and its jobs must not pass for the old ones.
func dedupeID(j *job.Job) string {
	return j.Key() + ":" + strconv.FormatInt(j.Enqueued.UnixNano(), 36)
}

// header is the job's own header, made harmless, and what there is to say.
func (s *Store) header(j *job.Job, o job.Outcome, r job.Record) nats.Header {
	h := sanitise(j.Header)
	text := ""
	if o.Err != nil {
		text = o.Err.Error()
	}
	attempts := r.Attempts
	if o.Charged {
		attempts++
	}
	for key, value := range map[string]string{
		job.HeaderDLQReason:     string(o.Reason),
		job.HeaderDLQError:      printable(text),
		job.HeaderDLQSubject:    j.Subject,
		job.HeaderDLQStream:     j.Stream,
		job.HeaderDLQSequence:   strconv.FormatUint(j.Sequence, 10),
		job.HeaderDLQAttempts:   strconv.Itoa(attempts),
		job.HeaderDLQDeliveries: strconv.Itoa(j.Deliveries),
		job.HeaderDLQEnqueued:   j.Enqueued.UTC().Format(time.RFC3339Nano),
		job.HeaderDLQAt:         time.Now().UTC().Format(time.RFC3339Nano),
		job.HeaderDLQLastStatus: strconv.Itoa(o.Last.Status),
		job.HeaderDLQPool:       s.pool,
		job.HeaderDLQTarget:     s.target,
	} {
		h[key] = []string{value}
	}
	for _, text := range r.Errors {
		h[job.HeaderDLQHistory] = append(h[job.HeaderDLQHistory], printable(text))
	}
	return h
}

// sanitise copies a job's header. Nats-* headers command the broker (roll up,
// expire, deduplicate, trace); under our credentials they must not act, so
// they are kept under another name. What claims to be ours is left out.
func sanitise(from job.Header) nats.Header {
	h := make(nats.Header, len(from)+12)
	for key, values := range from {
		switch lower := strings.ToLower(key); {
		case strings.HasPrefix(lower, "nats-"):
			h[job.HeaderOrigPrefix+key] = values
		case strings.HasPrefix(lower, "workerd-dlq-"):
		default:
			h[key] = values
		}
	}
	return h
}

// printable makes a text fit for a header: one line, bounded.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxError {
		text = strings.ToValidUTF8(text[:maxError], "") + "…"
	}
	return strings.TrimSpace(text)
}
