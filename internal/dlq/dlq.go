// Package dlq keeps the jobs that will not be tried again, and brings them back
// when somebody says so.
//
// A dead letter is the job as it was published, with the reason and its origin
// in headers, in a stream of its own. A Store writes letters, for the daemon; a
// Box reads, replays, removes, exports and imports them, for people.
//
// Guarantees:
//  1. Put returns without error only once the dead-letter stream has the letter
//     on record.
//  2. A job is stored once, however often it is put within duplicate_window.
//  3. The payload is the job's, byte for byte. Its headers are all there; those
//     that would command the broker, and those that could not be written, are
//     under another name.
//  4. Nothing is left behind for later: while the broker is away nothing is
//     sent, so no letter turns up for a job that was done meanwhile.
//  5. A replay removes the letter once the job's stream has the job on record,
//     and no sooner. Cut short and done again it is still one job, within the
//     duplicate window of that stream.
//  6. Neither a job nor a letter can command the broker by what it carries.
//
// A [Shelf] keeps jobs in the same way under a subject that is somebody else's,
// for a fallback.
//
// A job whose letter cannot be stored stays where it is; that is pool's part.
package dlq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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

// Ensure creates the dead-letter stream if it is absent. One that exists is left
// as it is; how it differs from the configuration is returned.
func Ensure(ctx context.Context, conn *queue.Conn, cfg Config) ([]string, error) {
	return conn.EnsureStream(ctx, cfg.Stream, queue.StreamConfig{
		Subjects: []string{cfg.Subject + ".>"}, Retention: "limits", Storage: "file", Replicas: cfg.Replicas,
		MaxAge: cfg.MaxAge, MaxBytes: cfg.MaxBytes, DuplicateWindow: cfg.DuplicateWindow,
	})
}

// Put stores a job and returns once the broker has it on record. While the
// broker is away it waits, until ctx ends.
func (s *Store) Put(ctx context.Context, j *job.Job, o job.Outcome, r job.Record) error {
	m := &nats.Msg{Subject: s.cfg.Subject + "." + s.pool, Header: s.header(j, o, r), Data: j.Payload}
	return s.put(m, "stream "+s.cfg.Stream, func() error { return s.publish(ctx, m, dedupeID(j)) })
}

// Shelf is a subject where jobs are parked for somebody else.
type Shelf struct {
	store   *Store
	subject string
}

// Shelf returns the one of a subject, which a stream must take up.
func (s *Store) Shelf(subject string) Shelf { return Shelf{s, subject} }

// Put publishes a job, as a dead letter would be. It returns once a stream has it
// on record; if none takes up the subject that is an error.
func (s Shelf) Put(ctx context.Context, j *job.Job, o job.Outcome, r job.Record) error {
	m := &nats.Msg{Subject: s.subject, Header: s.store.header(j, o, r), Data: j.Payload}
	return s.store.put(m, "its stream", func() error {
		if err := s.store.conn.AwaitConnected(ctx); err != nil {
			return err
		}
		_, err := s.store.conn.JetStream().PublishMsg(ctx, m, jetstream.WithMsgID(dedupeID(j)))
		return err
	})
}

// luxuries may be left out of a letter that is too large, one line after the other:
// what is said about the job makes room for the job. The rest is needed to replay it.
func luxuries() [][]string {
	return [][]string{
		{job.HeaderDLQHistory, job.HeaderDLQError},
		{
			job.HeaderDLQFingerprint, job.HeaderDLQAttempts, job.HeaderDLQDeliveries, job.HeaderDLQEnqueued, job.HeaderDLQAt, job.HeaderDLQLastStatus,
			job.HeaderDLQPool, job.HeaderDLQTarget,
		},
	}
}

// put publishes, with fewer words about the job if they are too many. The error is
// job.ErrTooLarge if none would help.
func (s *Store) put(m *nats.Msg, stream string, publish func() error) error {
	err := publish()
	for _, less := range luxuries() {
		if !tooLarge(err) {
			break
		}
		for _, key := range less {
			delete(m.Header, key)
		}
		err = publish()
	}
	switch {
	case tooLarge(err):
		return fmt.Errorf("publish to %s: %w: %d bytes with headers are more than the server or %s takes (max_payload is %d): %w",
			m.Subject, job.ErrTooLarge, m.Size(), stream, s.client().MaxPayload(), err)
	case err != nil:
		return fmt.Errorf("publish to %s: %w", m.Subject, err)
	}
	return nil
}

func (s *Store) client() *nats.Conn { return s.conn.JetStream().Conn() }

const (
	// answerWithin is how long the stream may take to answer before it is asked
	// again: the answer may be lost with its leader. A fraction of most leases, as
	// nobody knows whether the letter is stored when one ends meanwhile. A letter
	// takes its time to be sent, too, at slowest bytes a second.
	answerWithin, slowest = 2 * time.Second, 1 << 20
	// electionPause is how long a stream without a leader is left alone.
	electionPause = 250 * time.Millisecond
)

// publish asks until there is an answer: otherwise each job would go back while
// the nodes of a cluster elect a leader, and be run again for nothing.
func (s *Store) publish(ctx context.Context, m *nats.Msg, id string) error {
	for {
		err := s.ask(ctx, m, id)
		if err == nil || !unanswered(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(electionPause):
		}
	}
}

// ask publishes once, and makes the stream if nobody has it.
func (s *Store) ask(ctx context.Context, m *nats.Msg, id string) error {
	err := s.send(ctx, m, id)
	if !errors.Is(err, jetstream.ErrNoStreamResponse) {
		return err
	}
	differs, ensured := Ensure(ctx, s.conn, s.cfg)
	if ensured != nil {
		return ensured
	}
	err = s.send(ctx, m, id)
	if errors.Is(err, jetstream.ErrNoStreamResponse) && slices.ContainsFunc(differs, aboutSubjects) { // waiting does not help
		return errors.New(err.Error() + "; stream " + s.cfg.Stream + ": " + strings.Join(differs, ", "))
	}
	return err
}

func aboutSubjects(difference string) bool { return strings.HasPrefix(difference, "subjects ") }

func (s *Store) send(ctx context.Context, m *nats.Msg, id string) error {
	if err := s.conn.AwaitConnected(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin+time.Duration(m.Size())*time.Second/slowest)
	defer cancel()
	ack, err := s.conn.JetStream().PublishMsg(ctx, m, jetstream.WithMsgID(id), jetstream.WithExpectStream(s.cfg.Stream))
	if err == nil && ack.Stream != s.cfg.Stream {
		err = fmt.Errorf("went to stream %s, not to %s", ack.Stream, s.cfg.Stream)
	}
	return err
}

// unanswered tells whether an error is what a server says, or does not say, while
// its cluster has no leader or the connection breaks.
func unanswered(err error) bool {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.ErrorCode == codeUnavailable || api.ErrorCode == codeInProcess
	}
	return slices.ContainsFunc([]error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrDisconnected, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
	}, func(known error) bool { return errors.Is(err, known) })
}

// Codes of the server's JetStream API, from its errors.json.
const (
	codeUnavailable     = 10008 // JSClusterNotAvailErr
	codeMessageTooLarge = 10054 // JSStreamMessageExceedsMaximumErr
	codeHeaderTooLarge  = 10097 // JSStreamHeaderExceedsMaximumErr
	codeInProcess       = 10158 // JSStreamDuplicateMessageConflict: it was asked for before, and that has no answer yet
)

func tooLarge(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return errors.Is(err, nats.ErrMaxPayload) || ok && (api.ErrorCode == codeMessageTooLarge || api.ErrorCode == codeHeaderTooLarge)
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
		job.HeaderDLQReason:      string(o.Reason),
		job.HeaderDLQError:       printable(text),
		job.HeaderDLQFingerprint: Fingerprint(string(o.Reason), printable(text)),
		job.HeaderDLQSubject:     j.Subject,
		job.HeaderDLQStream:      j.Stream,
		job.HeaderDLQSequence:    strconv.FormatUint(j.Sequence, 10),
		job.HeaderDLQAttempts:    strconv.Itoa(attempts),
		job.HeaderDLQDeliveries:  strconv.Itoa(j.Deliveries),
		job.HeaderDLQEnqueued:    j.Enqueued.UTC().Format(time.RFC3339Nano),
		job.HeaderDLQAt:          time.Now().UTC().Format(time.RFC3339Nano),
		job.HeaderDLQLastStatus:  strconv.Itoa(o.Last.Status),
		job.HeaderDLQPool:        s.pool,
		job.HeaderDLQTarget:      s.target,
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
// they are kept under another name. What claims to be ours is left out. The
// order decides which of two that end up under one name comes first: the real.
func sanitise(from job.Header) nats.Header {
	h := make(nats.Header, len(from)+12)
	for _, key := range slices.Sorted(maps.Keys(from)) {
		name := writable(key)
		switch lower := strings.ToLower(key); {
		case strings.HasPrefix(lower, "nats-"):
			name = job.HeaderOrigPrefix + name
		case strings.HasPrefix(lower, "workerd-dlq-"):
			continue
		}
		h[name] = append(h[name], from[key]...)
	}
	return h
}

// writable is a key as the client can write it. It reads more than that: spaces,
// letters beyond ASCII. Those are escaped as in URLs.
func writable(key string) string {
	var b strings.Builder
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c > '~' || strings.IndexByte(`"()/,:;<=>?@[\]{}`, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
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
