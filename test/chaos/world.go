package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// world is all that a scenario runs in: real processes, and the parties of the
// ledger.
type world struct {
	scenario
	seed    uint64
	dir     string
	began   time.Time
	brokers []*broker
	workers []*worker
	down    *downstream
	pub     *publisher
	nc      *nats.Conn
	js      jetstream.JetStream
	tap     *tap
	undo    []func()
	lab     *lab // nil: all is on one machine
	front   int  // process in front of the downstream; 0: none

	mu       sync.Mutex
	faults   []fault
	journal  *os.File
	problems []string
	probes   map[string]uint64 // sequences of jobs published beside the publisher
	probed   map[string]time.Duration
	unknown  []string // and not known to be
}

func (w *world) clock() time.Duration { return time.Since(w.began) }

// newWorld starts everything and returns when all replicas are ready.
func newWorld(ctx context.Context, s scenario, seed uint64, dirs [2]string) (*world, error) {
	w := &world{scenario: s, seed: seed, dir: dirs[0], began: time.Now(), probes: map[string]uint64{}, probed: map[string]time.Duration{}}
	if err := w.open(ctx, dirs[1]); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) open(ctx context.Context, binary string) (err error) {
	if err = os.Mkdir(w.dir, 0o750); err != nil { // one that is there has the streams of another run
		return err
	}
	if w.journal, err = os.Create(filepath.Join(w.dir, "events.jsonl")); err != nil {
		return err
	}
	if w.down, err = startDownstream(w.seed, w.size, w.clock); err != nil {
		return err
	}
	if w.brokers, err = newBrokers(w.dir, max(1, w.nodes)); err != nil {
		return err
	}
	if w.apartNodes {
		w.lab, err = newLab(len(w.brokers))
		w.undo = append(w.undo, w.lab.close)
		if err != nil {
			return err
		}
		w.lab.house(w.brokers)
	}
	if w.store != nil {
		if err = w.store(ctx, w); err != nil {
			return err
		}
	}
	if err = w.startBrokers(); err != nil {
		return err
	}
	if err = w.connect(ctx); err != nil {
		return err
	}
	if w.tap, err = newTap(w.brokers, w.clock); err != nil {
		return err
	}
	w.undo = append(w.undo, w.tap.close)
	ports, err := freePorts(w.replicas)
	if err != nil {
		return err
	}
	for i := range w.replicas {
		k := &worker{name: fmt.Sprintf("w%d", i+1), dir: w.dir, binary: binary, render: w.render, admin: ports[i]}
		w.workers = append(w.workers, k)
		if w.links {
			if err := w.interpose(k); err != nil {
				return err
			}
		}
	}
	if w.prepare != nil {
		if err := w.prepare(ctx, w); err != nil {
			return err
		}
	}
	return w.startWorkers(ctx)
}

// interpose puts a link between a replica and each of what it talks to.
func (w *world) interpose(k *worker) (err error) {
	if k.up, err = newLink(strings.TrimPrefix(w.brokers[0].url(), "nats://")); err != nil {
		return err
	}
	w.undo = append(w.undo, k.up.close)
	if k.down, err = newLink(w.down.addr); err != nil {
		return err
	}
	w.undo = append(w.undo, k.down.close)
	return nil
}

// startBrokers starts those that are down, side by side, as the nodes of a
// cluster wait for each other.
func (w *world) startBrokers() error {
	errs := make([]error, len(w.brokers))
	var wg sync.WaitGroup
	for i, b := range w.brokers {
		if !b.running() {
			wg.Go(func() { errs[i] = b.start() })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (w *world) urls() string {
	var urls []string
	for _, b := range w.brokers {
		urls = append(urls, b.url())
	}
	return strings.Join(urls, ",")
}

func (w *world) connect(ctx context.Context) error {
	nc, err := nats.Connect(w.urls(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(3), nats.IgnoreAuthErrorAbort(),
		nats.FlusherTimeout(2*time.Second), nats.ReconnectOnFlusherError(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return err
	}
	w.nc = nc
	if w.js, err = jetstream.New(nc, jetstream.WithPublishAsyncTimeout(5*time.Second), jetstream.WithPublishAsyncMaxPending(4000)); err != nil {
		return err
	}
	prefix := w.name
	if w.good {
		prefix = good + prefix
	}
	w.pub = &publisher{seed: w.seed, prefix: prefix, size: w.size, js: w.js, clock: w.clock, hostile: w.hostile, sequences: map[string]uint64{}}
	cfg := jetstream.StreamConfig{
		Name: stream, Subjects: []string{"jobs.>"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, Replicas: max(1, w.nodes),
	}
	return until(ctx, 30*time.Second, "the stream is made", func() bool {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := w.js.CreateStream(ctx, cfg)
		return err == nil
	})
}

// render is the configuration of a replica.
func (w *world) render(k *worker, replica string) string {
	replicas := max(1, w.nodes)
	urls, target := w.urls(), w.down.addr
	if k.up != nil {
		urls, target = "nats://"+k.up.addr(), k.down.addr()
	}
	return fmt.Sprintf(`nats: {url: %q}
targets:
  work: {http: {url: "http://%s/work", headers: {X-Replica: %q}}, timeout: 3s, retry: {initial_backoff: 20ms}}
pools:
  work:
    target: work
    stream: JOBS
    subjects: {high: [jobs.high], normal: [jobs.normal]}
    concurrency: %d
    ack_wait: %s
    max_park: 2s
    redelivery: {max_attempts: 20, initial_backoff: 200ms, max_backoff: 2s, multiplier: 2, max_crashes: 50}
dlq: {%s}
attempts: {replicas: %d}
drain: {timeout: %s}
admin: {listen: "127.0.0.1:%d"}
log: {format: json}
`, urls, target, replica, w.concurrency, w.ackWait, cmp.Or(w.dlq, fmt.Sprintf("replicas: %d", replicas)), replicas, w.drain, k.admin)
}

// startWorkers starts those that do not run, and waits until all are ready.
func (w *world) startWorkers(ctx context.Context) error {
	for _, k := range w.workers {
		if !k.running() {
			if err := k.start(); err != nil {
				return err
			}
		}
	}
	for _, k := range w.workers {
		if err := k.ready(ctx, time.Minute); err != nil {
			return err
		}
		if !k.running() {
			return fmt.Errorf("%s ended by itself, see %s.log", k.replica(), k.name)
		}
	}
	return nil
}

// event goes into the journal.
func (w *world) event(kind, whom string, more ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line, err := json.Marshal(map[string]any{"at": w.clock().Seconds(), "kind": kind, "whom": whom, "more": fmt.Sprint(more...)})
	if err == nil && w.journal != nil {
		_, _ = w.journal.Write(append(line, '\n'))
	}
}

// did records a fault that has really happened.
func (w *world) did(f fault) {
	if f.Ended < f.Began {
		f.Ended = f.Began
	}
	w.mu.Lock()
	w.faults = append(w.faults, f)
	w.mu.Unlock()
	w.event("fault "+f.Kind, f.Whom, round(f.Ended-f.Began))
}

// problem is something wrong that the ledger does not show.
func (w *world) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.mu.Lock()
	w.problems = append(w.problems, text)
	w.mu.Unlock()
	w.event("problem", "", text)
}

// heal undoes what is still broken.
func (w *world) heal(ctx context.Context) error {
	for _, k := range w.workers {
		if k.running() {
			_ = k.signal(syscall.SIGCONT)
		}
	}
	for _, b := range w.brokers {
		if b.running() {
			_ = b.signal(syscall.SIGCONT)
		}
	}
	for _, k := range w.workers {
		if k.up != nil {
			k.up.thaw()
			k.up.shape(0, 0, 0)
			k.down.thaw()
			k.down.shape(0, 0, 0)
		}
	}
	if w.lab != nil {
		if err := w.lab.heal(); err != nil {
			return err
		}
	}
	if err := w.startBrokers(); err != nil {
		return err
	}
	w.event("healed", "")
	return w.startWorkers(ctx)
}

// close ends everything, whatever state it is in.
func (w *world) close() {
	for _, k := range w.workers {
		k.end()
	}
	if w.nc != nil {
		w.nc.Close()
	}
	for _, b := range w.brokers {
		b.kill()
	}
	if w.down != nil {
		w.down.close()
	}
	for _, undo := range slices.Backward(w.undo) {
		undo()
	}
	if w.journal != nil {
		_ = w.journal.Close()
	}
}
