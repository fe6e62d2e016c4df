package whatif

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/app"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/target"
	"github.com/workerd/workerd/internal/target/httptarget"
)

// glance is how often the state of the pools is looked at, in virtual time.
const glance = time.Second

// world is a test while it runs, in a bubble.
type world struct {
	test    Test
	cfg     *config.File // staged
	broker  *broker
	book    *book
	scripts map[string]*script
	log     *slog.Logger

	mu      sync.Mutex
	current *replica
}

// replica is a workerd of the world.
type replica struct {
	*app.App
	drain context.CancelFunc
	done  chan error // what Run returned
}

// setting is what a world needs from outside of the bubble.
type setting struct {
	dir string       // for the broker's files
	now time.Time    // of the real clock, which the virtual one begins with
	log slog.Handler // what workerd writes; may be discarded
	// over tells that the real time that a test may take is over.
	over func() bool
}

// play runs a test. It must be called in a bubble.
func play(s *Suite, t Test, around setting) (r Result, err error) {
	// Age of messages is partly taken from the real clock.
	pause(context.Background(), time.Until(around.now))
	w := &world{
		test: t, cfg: staged(s.Config), book: newBook(), scripts: map[string]*script{}, log: slog.New(around.log),
		broker: &broker{dir: around.dir, domain: s.Config.NATS.JetstreamDomain},
	}
	for name := range s.Config.Targets {
		w.scripts[name] = &script{steps: t.Targets[name]}
	}
	if err := w.broker.start(); err != nil {
		return Result{}, err
	}
	defer w.broker.stop()
	if err := w.start(); err != nil {
		return Result{}, err
	}
	stopped, err := w.run(around.over)
	drain := w.stop()
	if err == nil && drain != nil && !errors.Is(drain, app.ErrIncomplete) {
		err = drain
	}
	return w.result(s, stopped), err
}

// start starts a workerd.
func (w *world) start() error {
	a, err := app.New(w.cfg, app.Options{Log: w.log, Version: "test", Stage: app.Stage{
		NATS: []nats.Option{nats.InProcessServer(w.broker)}, Target: w.target, Unattended: true,
		OnReport: w.book.report, OnBreaker: w.book.breaker,
	}})
	if err != nil {
		return err
	}
	drain, stop := context.WithCancel(context.Background())
	r := &replica{App: a, drain: stop, done: make(chan error, 1)}
	var running sync.WaitGroup
	running.Go(func() { r.done <- a.Run(drain, context.Background()) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current = r
	return nil
}

// stop drains the current workerd and returns what that ended with.
func (w *world) stop() error {
	r := w.replica()
	r.drain()
	return <-r.done
}

func (w *world) replica() *replica {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current
}

// target is the real one of its kind over a script.
func (w *world) target(name string, cfg config.TargetConfig) (target.Target, error) {
	return httptarget.NewOver(*cfg.HTTP, w.scripts[name])
}

// run publishes the jobs, does what is to be done beside, and waits for the
// end. It says why it did not wait for it.
func (w *world) run(over func() bool) (stopped string, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := w.awaitReady(ctx); err != nil {
		return "", err
	}
	now := time.Now()
	w.book.begin(now)
	for _, s := range w.scripts {
		s.begin(now)
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	publishing := make(chan error, 1)
	beside.Go(func() { publishing <- w.publish(ctx) })
	beside.Go(func() { w.disturb(ctx) })
	beside.Go(func() { w.narrate(ctx) })
	return w.await(publishing, over)
}

// await waits until all jobs are published and have come to their end.
func (w *world) await(publishing <-chan error, over func() bool) (stopped string, err error) {
	limit := time.NewTimer(w.test.Limit)
	defer limit.Stop()
	look := time.NewTicker(glance)
	defer look.Stop()
	for published := false; !published || w.book.open() > 0; {
		select {
		case err := <-publishing:
			if err != nil {
				return "", err
			}
			published = true
		case <-w.book.changed:
		case <-limit.C:
			return "its limit of virtual time (" + short(w.test.Limit) + ") is over", nil
		case <-look.C:
			w.book.look(w.replica().Status(), glance)
			if over() {
				return "the real time it may take is over", nil
			}
		}
	}
	return "", nil
}

// awaitReady waits until workerd takes jobs.
func (w *world) awaitReady(ctx context.Context) error {
	deadline := time.Now().Add(time.Minute)
	for {
		status := w.replica().Status()
		if status.Ready {
			return nil
		}
		if time.Now().After(deadline) {
			var why []error
			for _, c := range status.Checks {
				if !c.OK {
					why = append(why, fmt.Errorf("%s: %s", c.Name, c.Message))
				}
			}
			return fmt.Errorf("workerd does not become ready: %w", errors.Join(why...))
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// publish sends all jobs, each kind on its own.
func (w *world) publish(ctx context.Context) error {
	nc, js, err := w.broker.client()
	if err != nil {
		return err
	}
	defer nc.Close()
	var sending sync.WaitGroup
	failed := make([]error, len(w.test.Jobs))
	for i, kind := range w.test.Jobs {
		sending.Go(func() { failed[i] = w.publishAll(ctx, js, kind, i) })
	}
	sending.Wait()
	return errors.Join(failed...)
}

func (w *world) publishAll(ctx context.Context, js jetstream.JetStream, kind Jobs, nth int) error {
	began := time.Now()
	ends := len(Takers(w.cfg, kind.Subject))
	for n := range kind.Count {
		pause(ctx, time.Until(began.Add(kind.At+time.Duration(n)*kind.Every)))
		if err := w.publishOne(ctx, js, kind.message(nth, n)); err != nil {
			return err
		}
		w.book.published(ends)
	}
	if ctx.Err() == nil {
		w.book.note("%s published to %s", plural(kind.Count, "job"), kind.Subject)
	}
	return nil
}

// message is the n-th job of a kind. Each has an id: without one a publisher
// who does not hear of the broker would send twice.
func (k Jobs) message(nth, n int) *nats.Msg {
	m := nats.NewMsg(k.Subject)
	m.Data = []byte(k.Body)
	for name, v := range k.Headers {
		m.Header.Set(name, v)
	}
	switch {
	case k.ID == "":
		m.Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("%d-%d", nth+1, n+1))
	case k.Count == 1:
		m.Header.Set(jetstream.MsgIDHeader, k.ID)
	default:
		m.Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("%s-%d", k.ID, n+1))
	}
	return m
}

// publishOne tries until the stream has it. What the broker refuses is an error.
func (w *world) publishOne(ctx context.Context, js jetstream.JetStream, m *nats.Msg) error {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := js.PublishMsg(try, m)
		cancel()
		if err == nil {
			return nil
		}
		if _, refused := errors.AsType[*jetstream.APIError](err); refused {
			return fmt.Errorf("a job on %s was refused: %w", m.Subject, err)
		}
		pause(ctx, 200*time.Millisecond)
	}
	return nil
}
