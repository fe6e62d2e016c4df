// Package app builds workerd from its configuration and owns every lifetime in
// it.
//
// The process is an object: New builds, Run works until it is told to drain and
// returns when nothing is left. Two can live in one process, and tests start
// whole daemons. Nothing here decides what happens to a job; app only joins
// the parts that do.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/attempts"
	"github.com/workerd/workerd/internal/broker"
	"github.com/workerd/workerd/internal/cache"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/metrics"
	"github.com/workerd/workerd/internal/pressure"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/shutdown"
)

// ErrIncomplete says that the drain ended with jobs interrupted or settlements not
// confirmed. Nothing is lost; the stream has the jobs.
var ErrIncomplete = errors.New("drain incomplete")

// Options are what the surroundings give.
type Options struct {
	Log     *slog.Logger
	Version string
	// Stage replaces parts of the world outside. The zero Stage is the real one.
	Stage Stage
}

// App is a whole workerd.
type App struct {
	cfg     *config.File
	opts    Options
	log     *slog.Logger
	started time.Time
	id      string

	broker   *broker.Server // nil unless embedded
	conn     *queue.Conn
	attempts *attempts.Ledger
	targets  map[string]*lane
	pools    map[string]*compartment
	metrics  *metrics.Metrics
	admin    *admin.Server
	listener net.Listener
	observer *observer
	pressure *pressure.Meter
	cache    *cache.Cache

	phase       atomic.Pointer[phase]
	interrupted atomic.Int64 // jobs handed back unfinished while draining
	handedBack  atomic.Int64 // jobs handed back unstarted while draining
	background  sync.WaitGroup
	drained     chan struct{} // closed when the pools have settled everything, or were given up
}

// phase is where a shutdown is.
type phase struct {
	name    string
	since   time.Time
	drain   time.Time // when the drain began; zero before
	running int       // jobs that were running then
}

// New builds a workerd. It listens on the admin address, and it starts the
// embedded broker if there is to be one; it does not wait for NATS. What it
// has opened is closed again if it fails.
func New(cfg *config.File, opts Options) (_ *App, err error) {
	a := &App{cfg: cfg, opts: opts, log: opts.Log, started: time.Now(), id: instanceID(), drained: make(chan struct{})}
	a.phase.Store(&phase{name: "starting", since: a.started})
	var opened []func()
	defer func() {
		if err != nil {
			for i := range opened {
				opened[len(opened)-1-i]()
			}
		}
	}()
	if a.listener, err = opts.Stage.listen(cfg.Admin.Listen); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	opened = append(opened, func() { _ = a.listener.Close() })
	if cfg.NATS.Embedded {
		if a.broker, err = a.startBroker(); err != nil {
			return nil, err
		}
		opened = append(opened, a.broker.Shutdown)
	}
	if a.conn, err = queue.Dial(a.natsConfig(), a.log, opts.Stage.NATS...); err != nil {
		return nil, err
	}
	opened = append(opened, a.conn.Close)
	a.conn.Need(Permissions(cfg))
	a.attempts = attempts.New(a.conn, cfg.Attempts)
	if err = a.build(); err != nil {
		return nil, err
	}
	return a, nil
}

// natsConfig is the configuration with the address of the embedded broker.
func (a *App) natsConfig() queue.Config {
	cfg := a.cfg.NATS
	if a.broker != nil {
		cfg.URL = a.broker.URL()
	}
	return cfg
}

// build makes everything that needs no closing.
func (a *App) build() error {
	registry := prometheus.NewRegistry()
	metrics.Runtime(registry)
	a.metrics = metrics.New(registry, a.names())
	a.observer = newObserver(a)
	a.pressure = pressure.New(a.cfg.Pressure)
	a.cache = cache.New(a.cfg.Cache)
	if err := a.buildTargets(); err != nil {
		return err
	}
	a.buildPools()
	a.metrics.Watch(a.sources())
	a.admin = admin.New(a.cfg.Admin, a, metrics.Handler(registry), a.log)
	return nil
}

// Addr is the address of the admin listener.
func (a *App) Addr() net.Addr { return a.listener.Addr() }

// BrokerURL is the address of the embedded broker, empty if there is none.
func (a *App) BrokerURL() string {
	if a.broker == nil {
		return ""
	}
	return a.broker.URL()
}

// Drained is closed during a shutdown, when no job is running any more.
func (a *App) Drained() <-chan struct{} { return a.drained }

// Run works until drain ends, then stops in order: readiness off, no more
// pulling, unstarted jobs handed back, running ones finished or interrupted,
// settlements confirmed, connections closed. When hurry ends the waiting is
// cut short. The error is ErrIncomplete if a job was interrupted or a
// settlement not confirmed. Run is called once.
func (a *App) Run(drain, hurry context.Context) error {
	serve, stopServing := context.WithCancel(context.Background())
	fetch, stopFetching := context.WithCancel(context.Background())
	work, interrupt := context.WithCancelCause(context.Background())
	defer stopServing()
	defer stopFetching()
	defer interrupt(nil)

	var web sync.WaitGroup
	web.Go(func() { a.serve(serve) })
	a.background.Go(func() { a.setUp(fetch) })
	a.background.Go(func() { a.watch(fetch) })
	a.startProbers(fetch)
	pools := a.startPools(fetch, work)
	a.enter("running")
	a.log.Info("workerd is running", "instance", a.id, "version", a.opts.Version,
		"admin", a.Addr().String(), "pools", len(a.pools), "targets", len(a.targets))

	<-drain.Done()
	a.log.Info("draining", "cause", context.Cause(drain))
	defer context.AfterFunc(hurry, func() {
		a.log.Warn("hurrying: what still runs is interrupted and handed back; another signal ends workerd at once", "cause", context.Cause(hurry))
	})()
	err := shutdown.Run(hurry, a.phases(run{
		stopFetching: stopFetching, interrupt: interrupt, pools: pools,
		closeAdmin: func() { stopServing(); web.Wait() },
	}), a.reportPhase)
	return a.verdict(err)
}

// startPools returns what is closed when every pool has settled everything.
// The phases of the shutdown wait for it; only a call that ignores the end of
// its context can outlast them, and it must not keep the process.
func (a *App) startPools(fetch, work context.Context) <-chan struct{} {
	var running, all sync.WaitGroup
	for _, c := range a.pools {
		running.Go(func() { c.pool.Run(fetch, work) })
	}
	settled := make(chan struct{})
	all.Go(func() { running.Wait(); close(settled) })
	return settled
}

// serve answers on the admin listener. Work goes on without it.
func (a *App) serve(ctx context.Context) {
	if err := a.admin.Serve(ctx, a.listener); err != nil {
		a.log.Error("the admin listener has ended", "err", err)
	}
}
