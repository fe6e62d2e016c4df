// Package attempts remembers what became of a job's earlier deliveries, for all
// replicas and over restarts, in a key-value bucket of NATS.
//
// The broker's own count will not do: it counts deliveries, and many of these
// never ran. So each failed or deferred delivery is written down here. A job
// that succeeds at its first delivery, as nearly all do, costs nothing.
//
// Guarantees:
//
//  1. Nothing here fails or blocks for long. What cannot be written to the
//     bucket is remembered in memory, for this process; what cannot be read is
//     taken for unknown, and what happens from then on is added to it as soon
//     as it can be read. A job may get more attempts than configured, never fewer.
//  2. What is remembered belongs to one job for good: a stream that was deleted
//     and made again has other jobs under the same numbers.
//  3. Memory and bucket are bounded: entries, their size, their age.
//
// What the numbers mean for a job is for pipeline to say.
package attempts

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/queue"
)

const (
	// patience is how long a single operation on the bucket may take.
	patience = 2 * time.Second
	// memorySize bounds the jobs remembered in memory.
	memorySize = 100_000
	// maxErrors and maxError bound what is kept of the errors of one job.
	maxErrors, maxError = 5, 500
)

// Ledger is the memory of all pools. Any number of goroutines may use it.
type Ledger struct {
	conn *queue.Conn
	cfg  Config

	failed atomic.Uint64

	mu     sync.Mutex
	kv     jetstream.KeyValue // nil until the bucket was found
	memory map[string]memo    // what could not be written
}

// entry is what the bucket holds of a job.
type entry struct {
	// Enqueued is the job's time of publication in nanoseconds, by which it is
	// known from another job of the same number.
	Enqueued  int64    `json:"enqueued"`
	Attempts  int      `json:"attempts,omitempty"`
	Deferrals int      `json:"deferrals,omitempty"`
	Panics    int      `json:"panics,omitempty"`
	Started   int      `json:"started,omitempty"`
	Status    int      `json:"status,omitempty"`
	Errors    []string `json:"errors,omitempty"`
}

// memo is what could not be written of a job.
type memo struct {
	entry
	// unread: what the bucket has could not be read, either. It comes on top.
	unread bool
}

// New returns a ledger. It does not touch the network.
func New(conn *queue.Conn, cfg Config) *Ledger {
	return &Ledger{conn: conn, cfg: cfg, memory: make(map[string]memo)}
}

// Failed is how many operations on the bucket have failed and were made up for
// in memory.
func (l *Ledger) Failed() uint64 { return l.failed.Load() }

// Load returns what is known of a job's earlier deliveries, Unread if the bucket did
// not answer. The first delivery has none, and is not asked for.
func (l *Ledger) Load(ctx context.Context, j *job.Job) job.Record {
	if j.Deliveries <= 1 {
		return job.Record{}
	}
	m, known := l.take(j)
	stored, err := l.get(ctx, j)
	if err != nil {
		r := m.record()
		r.Unread = !known || m.unread
		return r
	}
	return m.with(stored).record()
}

// Save writes down what is known of a job now, and returns it: more than before if
// the record is Unread and what was to be read can be read now.
func (l *Ledger) Save(ctx context.Context, j *job.Job, r job.Record) job.Record {
	m := memo{newEntry(j, r), r.Unread}
	if m.unread {
		stored, err := l.get(ctx, j)
		if err != nil {
			l.failed.Add(1)
			l.remember(key(j), m)
			return r
		}
		m = memo{entry: m.with(stored)}
		if r = m.record(); stored.counts()+m.counts() == 0 {
			return r
		}
	}
	if err := l.put(ctx, j, m.entry); err != nil {
		l.failed.Add(1)
		l.remember(key(j), m)
		return r
	}
	l.forget(key(j))
	return r
}

// Forget removes a job that has come to its end.
func (l *Ledger) Forget(ctx context.Context, j *job.Job) {
	l.forget(key(j))
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if kv, err := l.bucket(ctx); err == nil {
		_ = kv.Delete(ctx, key(j)) // it will expire
	}
}

func newEntry(j *job.Job, r job.Record) entry {
	e := entry{
		Enqueued: j.Enqueued.UnixNano(), Attempts: r.Attempts, Deferrals: r.Deferrals, Panics: r.Panics, Started: r.Started, Status: r.LastStatus,
	}
	for _, text := range r.Errors[max(0, len(r.Errors)-maxErrors):] {
		e.Errors = append(e.Errors, strings.ToValidUTF8(text[:min(len(text), maxError)], ""))
	}
	return e
}

func (e entry) record() job.Record {
	return job.Record{Attempts: e.Attempts, Deferrals: e.Deferrals, Panics: e.Panics, Started: e.Started, LastStatus: e.Status, Errors: e.Errors}
}

// with is what is known if the bucket has something, too. Which of the two is the
// later one the number of deliveries tells.
func (m memo) with(stored entry) entry {
	switch {
	case m.unread:
		return stored.plus(m.entry)
	case stored.Attempts+stored.Deferrals >= m.Attempts+m.Deferrals:
		return stored
	}
	return m.entry
}

func (e entry) counts() int { return e.Attempts + e.Deferrals + e.Panics + e.Started }

// plus is both, if what came after does not include what was before.
func (e entry) plus(after entry) entry {
	after.Attempts += e.Attempts
	after.Deferrals += e.Deferrals
	after.Panics += e.Panics
	after.Started = max(0, after.Started+e.Started)
	if after.Status == 0 {
		after.Status = e.Status
	}
	errs := slices.Concat(e.Errors, after.Errors)
	after.Errors = errs[max(0, len(errs)-maxErrors):]
	return after
}

func (l *Ledger) get(ctx context.Context, j *job.Job) (entry, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := l.conn.AwaitConnected(ctx); err != nil {
		return entry{}, err
	}
	kv, err := l.bucket(ctx)
	if err != nil {
		return entry{}, err
	}
	stored, err := kv.Get(ctx, key(j))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return entry{}, nil
	}
	l.lostBy(err)
	if err != nil {
		return entry{}, fmt.Errorf("read the attempts of %s: %w", j.Key(), err)
	}
	var e entry
	if err := json.Unmarshal(stored.Value(), &e); err != nil || e.Enqueued != j.Enqueued.UnixNano() {
		return entry{}, nil // to be overwritten
	}
	return e, nil
}

func (l *Ledger) put(ctx context.Context, j *job.Job, e entry) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// A cut is soon over, and what is not written down looks to others as if this
	// worker had died of the job.
	if err := l.conn.AwaitConnected(ctx); err != nil {
		return err
	}
	kv, err := l.bucket(ctx)
	if err != nil {
		return err
	}
	value, err := json.Marshal(e)
	if err != nil {
		panic("attempts: an entry that is no JSON: " + err.Error())
	}
	_, err = kv.Put(ctx, key(j), value)
	l.lostBy(err)
	return err
}

// bucket finds the bucket, or makes it if it is absent.
func (l *Ledger) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	if !l.conn.Connected() {
		return nil, errors.New("not connected to NATS")
	}
	l.mu.Lock()
	kv := l.kv
	l.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	kv, err := ensure(ctx, l.conn.JetStream(), l.cfg)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kv = kv
	return kv, nil
}

// lostBy makes the next one look for the bucket again, or make it, if an error says
// that somebody has deleted it.
func (l *Ledger) lostBy(err error) {
	for _, gone := range []error{jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound, nats.ErrNoResponders} {
		if errors.Is(err, gone) {
			l.mu.Lock()
			l.kv = nil
			l.mu.Unlock()
			return
		}
	}
}

// Ensure makes the bucket if it is absent. One that exists is left as it is.
func Ensure(ctx context.Context, conn *queue.Conn, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := ensure(ctx, conn.JetStream(), cfg)
	return err
}

func ensure(ctx context.Context, js jetstream.JetStream, cfg Config) (jetstream.KeyValue, error) {
	kv, err := js.KeyValue(ctx, cfg.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: cfg.Bucket, Description: "attempts of jobs that failed, by workerd", TTL: cfg.TTL, Replicas: cfg.Replicas,
			History: 1, Storage: jetstream.FileStorage,
		})
		if errors.Is(err, jetstream.ErrBucketExists) { // lost a race with another replica
			kv, err = js.KeyValue(ctx, cfg.Bucket)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", cfg.Bucket, err)
	}
	return kv, nil
}

// take returns what is remembered of a job. What comes on top of something else goes
// with it: it must not do so twice, should the broker think that the job is lost and
// give it to us once more.
func (l *Ledger) take(j *job.Job) (memo, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, known := l.memory[key(j)]
	if !known || m.Enqueued != j.Enqueued.UnixNano() {
		return memo{}, false
	}
	if m.unread {
		delete(l.memory, key(j))
	}
	return m, true
}

func (l *Ledger) remember(key string, m memo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.memory[key]; !known && len(l.memory) >= memorySize {
		for victim := range l.memory { // any: better to forget one job's count than to grow
			delete(l.memory, victim)
			break
		}
	}
	l.memory[key] = m
}

func (l *Ledger) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.memory, key)
}

// plainName is what a key of a bucket may be written with.
var plainName = regexp.MustCompile(`^[-_=a-zA-Z0-9]+$`)

// key of a job: its consumer is in it, as two consumers of a stream try the
// same job independently.
func key(j *job.Job) string {
	p, number := prefix(j.Stream, j.Consumer), strconv.FormatUint(j.Sequence, 10)
	if p == encoded {
		return p + base64.RawURLEncoding.EncodeToString([]byte(j.Stream+"."+j.Consumer+"."+number))
	}
	return p + number
}

// encoded precedes the keys of consumers whose names cannot be in a key.
const encoded = "encoded."

// prefix of the keys of a consumer's jobs, with its final dot.
func prefix(stream, consumer string) string {
	if plainName.MatchString(stream) && plainName.MatchString(consumer) {
		return stream + "." + consumer + "."
	}
	return encoded
}
