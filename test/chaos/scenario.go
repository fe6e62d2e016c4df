package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// scenario is a load and what is done to the processes meanwhile.
type scenario struct {
	name, about string
	replicas    int
	nodes       int // brokers; more than one: a cluster, and as many replicas of the streams
	rate        int // jobs a second
	size        int // of each payload; 0: by job
	concurrency int // per replica
	ackWait     time.Duration
	drain       time.Duration
	links       bool   // a fault proxy between each replica and the rest
	dlq         string // keys of the dead-letter stream, if not the usual
	good        bool   // no job fails by itself
	hostile     bool   // some jobs mean harm
	apartNodes  bool   // each broker in a network namespace of its own
	fullOnly    bool   // not in the run that CI makes
	orphans     bool   // the broker may not have removed what is done
	strict      bool   // nothing explains a call that is broken off
	load        time.Duration
	faults      func(ctx context.Context, w *world) error
	store       func(ctx context.Context, w *world) error // before the brokers start
	prepare     func(ctx context.Context, w *world) error // before the replicas start
	bounds      map[string]float64                        // figures and what they must not exceed, in seconds
	unjudged    bool                                      // they are measured and not judged
	needs       func() error                              // why it cannot run here; nil: it can anywhere
}

// result of a scenario.
type result struct {
	Name     string             `json:"name"`
	Skipped  string             `json:"skipped,omitempty"`
	Verdict  verdict            `json:"verdict"`
	Faults   map[string]int     `json:"faults"`
	Unknown  int                `json:"unknown"`
	Figures  map[string]float64 `json:"figures"` // seconds, or MiB
	Problems []string           `json:"problems,omitempty"`
	// Late says which bounds were not kept.
	Late []string `json:"late,omitempty"`
	// Notes say which were not kept, or only just, and why that is no failure.
	Notes []string `json:"notes,omitempty"`
	// Again is set if that may be the machine's doing and the scenario was
	// played once more, whose bounds count instead.
	Again bool          `json:"again,omitempty"`
	Took  time.Duration `json:"took"`
}

func (r *result) failed() bool {
	return len(r.Problems)+len(r.Verdict.Problems) > 0 || len(r.Late) > 0 && !r.Again
}

// stall is how late the harness itself may be run before a bound that was not
// kept says nothing about workerd.
const stall = 200 * time.Millisecond

// again tells whether a scenario should be played once more: all is well but
// for its bounds, and the machine did not run the harness in time either.
func (r *result) again() bool {
	return len(r.Late) > 0 && len(r.Problems)+len(r.Verdict.Problems) == 0 && r.Figures[stalled] > stall.Seconds()
}

// play runs a scenario: load and faults, heal, quiesce, check.
func play(ctx context.Context, s scenario, seed uint64, dirs [2]string) result {
	began := time.Now()
	r := result{Name: s.name, Faults: map[string]int{}, Figures: map[string]float64{}}
	defer func() { r.Took = time.Since(began) }()
	if s.needs != nil {
		if err := s.needs(); err != nil {
			r.Skipped = err.Error()
			return r
		}
	}
	w, err := newWorld(ctx, s, seed, dirs)
	if err != nil {
		r.Problems = append(r.Problems, "set-up: "+err.Error())
		return r
	}
	defer w.close()
	delay := watchDelay()
	b, err := w.play(ctx)
	r.Figures[stalled] = delay().Seconds()
	if err != nil {
		w.problem("%v", err)
	}
	if b != nil {
		r.Verdict, r.Unknown = b.check(), len(b.Unknown)
		w.measure(&r, b)
		err = save(w.dir, b)
	}
	if err != nil {
		w.event("error", "", err)
	}
	for _, f := range w.faults {
		r.Faults[f.Kind]++
	}
	if s.faults != nil && len(w.faults) == 0 {
		w.problem("no fault was done")
	}
	r.Problems = append(r.Problems, w.problems...)
	r.Took = time.Since(began)
	return r
}

// play returns the books, whatever went wrong.
func (w *world) play(ctx context.Context) (*books, error) {
	load, stop := context.WithTimeout(ctx, w.load)
	defer stop()
	paced := make(chan struct{})
	go func() {
		defer close(paced)
		w.pub.pace(load, w.rate)
	}()
	err := w.faultsOf(load)
	<-paced
	if err == nil {
		err = w.heal(ctx)
	}
	if err == nil {
		err = w.quiesce(ctx)
	}
	if err == nil {
		w.stopWorkers(ctx)
	}
	return w.account(ctx, err)
}

func (w *world) faultsOf(load context.Context) error {
	if w.faults == nil && w.scenario.faults == nil {
		<-load.Done()
		return nil
	}
	vandals := make(chan error, 1)
	go func() {
		if w.hostile {
			vandals <- w.vandal(load)
		}
		close(vandals)
	}()
	err := w.scenario.faults(load, w)
	<-load.Done()
	if vandal := <-vandals; vandal != nil {
		return vandal
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// quiesce waits until the stream is empty, or, if something was done to a
// broker, until its consumers have nothing more to give.
func (w *world) quiesce(ctx context.Context) error {
	began := w.clock()
	err := until(ctx, 90*time.Second, "the stream is empty", func() bool {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		s, err := w.js.Stream(ctx, stream)
		return err == nil && (s.CachedInfo().State.Msgs == 0 || w.orphans && w.idle(ctx, s))
	})
	w.event("quiet", "", round(w.clock()-began), err)
	return err
}

// idle tells whether all that is left in the stream are orphans: its consumers
// take them for done, but the broker could not write down that they are gone,
// as its disk was full or it was killed. If one of them is not done, the books
// say so.
func (w *world) idle(ctx context.Context, s jetstream.Stream) bool {
	for _, name := range []string{"work-high", "work-normal"} {
		c, err := s.Consumer(ctx, name)
		if err != nil {
			return false
		}
		if i := c.CachedInfo(); i.NumPending > 0 || i.NumAckPending > 0 || i.Delivered.Consumer != i.AckFloor.Consumer {
			return false
		}
	}
	return true
}

// stopWorkers ends them as a supervisor does; with nothing to do they end
// cleanly.
func (w *world) stopWorkers(ctx context.Context) {
	for _, k := range w.workers {
		if err := k.signal(syscall.SIGTERM); err != nil {
			w.problem("%s is not there at the end: %v", k.replica(), err)
		}
	}
	for _, k := range w.workers {
		if code, err := k.wait(ctx, w.drain+5*time.Second); err != nil || code != 0 {
			w.problem("%s ended with code %d: %v", k.replica(), code, err)
		}
	}
}

// account collects what everybody says.
func (w *world) account(ctx context.Context, problem error) (*books, error) {
	b := &books{Scenario: w.name, Seed: w.seed, Strict: w.strict, Limit: w.concurrency, Faults: w.faults}
	b.Acked, b.Unknown = w.pub.settle(10 * time.Second)
	b.Unknown = append(b.Unknown, w.unknown...)
	b.Sequences, b.Published = w.pub.sequences, maps.Clone(w.probed)
	for _, s := range w.pub.sent {
		b.Published[s.id] = s.at
	}
	for id, sequence := range w.probes {
		b.Acked = append(b.Acked, id)
		b.Sequences[id] = sequence
	}
	b.Calls = w.down.book()
	b.Tapped, b.Settled = true, w.tap.book()
	var err error
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if b.Left, err = w.ids(ctx, stream); err != nil {
		return b, errors.Join(problem, err)
	}
	b.Letters, err = w.letters(ctx)
	return b, errors.Join(problem, err)
}

// messages of a stream, by reading each.
func (w *world) messages(ctx context.Context, name string, each func(*jetstream.RawStreamMsg)) error {
	s, err := w.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	state := s.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s %d: %w", name, seq, err)
		}
		each(m)
	}
	return nil
}

func (w *world) ids(ctx context.Context, name string) (ids []string, err error) {
	err = w.messages(ctx, name, func(m *jetstream.RawStreamMsg) { ids = append(ids, m.Header.Get("Nats-Msg-Id")) })
	return ids, err
}

func (w *world) letters(ctx context.Context) (letters []letter, err error) {
	err = w.messages(ctx, "WORKERD_DLQ", func(m *jetstream.RawStreamMsg) {
		id := w.whose(m)
		letters = append(letters, letter{
			ID: id, Reason: m.Header.Get("Workerd-Dlq-Reason"), Altered: !slices.Equal(m.Data, payload(w.seed, id, w.size)),
		})
	})
	return letters, err
}

func names(all []scenario) string {
	var s []string
	for _, x := range all {
		s = append(s, fmt.Sprintf("  %-12s %s", x.name, x.about))
	}
	return strings.Join(s, "\n")
}
