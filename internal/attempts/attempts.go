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
//     (Two replicas that add to the same job within a millisecond or so are not
//     told apart: one of the two is lost.)
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
	// askAgain is how often a bucket that may be gone is looked for.
	askAgain = time.Second
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
	doubt  bool               // it may be gone
	asked  time.Time          // when it was looked for last
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
	all  entry // all that was known
	more entry // what has happened since something could not be read: it comes on top of the rest
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
	stored, err := l.get(ctx, j)
	l.mu.Lock()
	defer l.mu.Unlock()
	m, known := l.remembered(j)
	if err != nil {
		r := m.with(entry{}).record()
		r.Unread = true
		return r
	}
	sum := m.with(stored)
	if known { // all of it now: it must not come on top once more
		l.memory[key(j)] = memo{all: sum}
	}
	return sum.record()
}

// Save writes down what is known of a job now, all of it. It must have been read:
// whoever could not, or is not the only one that has the job, can but Add.
func (l *Ledger) Save(ctx context.Context, j *job.Job, r job.Record) {
	l.save(ctx, j, newEntry(j, r))
}

// Add writes down what has happened since a job was read, on top of what is known of it
// by now, and returns the sum. It is Unread if that was in vain. Started may be -1:
// a mark is taken back.
func (l *Ledger) Add(ctx context.Context, j *job.Job, since job.Record) job.Record {
	more := newEntry(j, since)
	stored, err := l.get(ctx, j)
	if err != nil {
		l.failed.Add(1)
		r := l.rememberMore(j, more)
		r.Unread = true
		return r
	}
	l.mu.Lock()
	m, _ := l.remembered(j)
	l.mu.Unlock()
	sum := m.with(stored).plus(more)
	sum.Started = max(0, sum.Started)
	if stored.counts()+sum.counts() > 0 {
		l.save(ctx, j, sum)
	}
	return sum.record()
}

func (l *Ledger) save(ctx context.Context, j *job.Job, e entry) {
	err := l.put(ctx, j, e)
	if err != nil {
		l.failed.Add(1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.memory, key(j))
		return
	}
	l.remember(key(j), memo{all: e})
}

// Forget removes a job that has come to its end.
func (l *Ledger) Forget(ctx context.Context, j *job.Job) {
	l.mu.Lock()
	delete(l.memory, key(j))
	l.mu.Unlock()
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
	return job.Record{Attempts: e.Attempts, Deferrals: e.Deferrals, Panics: e.Panics, Started: max(0, e.Started), LastStatus: e.Status, Errors: e.Errors}
}

// with is what is known if the bucket has something, too.
func (m memo) with(stored entry) entry {
	if m.all.later(stored) {
		stored = m.all
	}
	return stored.plus(m.more)
}

// later tells whether an entry was written after another one of the same job. A run
// is marked before it ends.
func (e entry) later(than entry) bool {
	if ends, others := e.Attempts+e.Deferrals, than.Attempts+than.Deferrals; ends != others {
		return ends > others
	}
	return e.Started > than.Started
}

func (e entry) counts() int { return e.Attempts + e.Deferrals + e.Panics + e.Started }

// plus is both, if what came after does not include what was before.
func (e entry) plus(after entry) entry {
	after.Attempts += e.Attempts
	after.Deferrals += e.Deferrals
	after.Panics += e.Panics
	after.Started += e.Started
	if after.Status == 0 {
		after.Status = e.Status
	}
	errs := slices.Concat(e.Errors, after.Errors)
	after.Errors = errs[max(0, len(errs)-maxErrors):]
	if after.Enqueued == 0 {
		after.Enqueued = e.Enqueued
	}
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
	l.heed(err)
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
	l.heed(err)
	return err
}

// bucket finds the bucket, or makes it if it is absent.
func (l *Ledger) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	if !l.conn.Connected() {
		return nil, errors.New("not connected to NATS")
	}
	l.mu.Lock()
	was, look := l.kv, l.kv == nil || l.doubt && time.Since(l.asked) > askAgain
	if look && was != nil {
		l.asked = time.Now()
	}
	l.mu.Unlock()
	if !look {
		return was, nil
	}
	kv, err := ensure(ctx, l.conn.JetStream(), l.cfg)
	if err != nil && was != nil {
		return was, nil
	}
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kv, l.doubt = kv, false
	return kv, nil
}

// heed notes an error that says that somebody has deleted the bucket, or that its
// cluster has no leader: the next one looks for it, or makes it.
func (l *Ledger) heed(err error) {
	for _, gone := range []error{jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound, nats.ErrNoResponders} {
		if errors.Is(err, gone) {
			l.mu.Lock()
			l.doubt = true
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

// remembered is what could not be written of a job. The caller holds mu.
func (l *Ledger) remembered(j *job.Job) (memo, bool) {
	m, known := l.memory[key(j)]
	if max(m.all.Enqueued, m.more.Enqueued) != j.Enqueued.UnixNano() { // of another job, if any
		return memo{}, false
	}
	return m, known
}

// rememberMore adds to it, and returns the sum.
func (l *Ledger) rememberMore(j *job.Job, more entry) job.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, _ := l.remembered(j)
	m.more = m.more.plus(more)
	l.remember(key(j), m)
	return m.with(entry{}).record()
}

// remember keeps what could not be written. The caller holds mu.
func (l *Ledger) remember(key string, m memo) {
	if _, known := l.memory[key]; !known && len(l.memory) >= memorySize {
		for victim := range l.memory { // any: better to forget one job's count than to grow
			delete(l.memory, victim)
			break
		}
	}
	l.memory[key] = m
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
