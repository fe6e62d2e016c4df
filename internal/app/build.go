package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/broker"
	"github.com/workerd/workerd/internal/codel"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/gate"
	"github.com/workerd/workerd/internal/hedge"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/probe"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/result"
	"github.com/workerd/workerd/internal/retry"
	"github.com/workerd/workerd/internal/target"
	"github.com/workerd/workerd/internal/target/httptarget"
	"github.com/workerd/workerd/internal/valve"
)

// lane is a target with what guards it. Pools share it.
type lane struct {
	name    string
	cfg     config.TargetConfig
	target  target.Target
	breaker *breaker.Breaker
	retry   *retry.Loop
	limiter *limiter.Limiter
	degrade *fallback.Switch
	monitor *fallback.Monitor // nil: only operators degrade
	checker *fallback.Checker // nil: nobody asks how it is
	hedge   *hedge.Hedger     // nil: off
	prober  *probe.Prober     // nil: jobs probe

	degraded fallback.State // as seen last; of the goroutine that watches
}

// compartment is a pool with its sources.
type compartment struct {
	name    string
	cfg     pool.Config
	pool    *pool.Pool
	sources [job.Priorities]*queue.Source
	core    *queue.Core // nil for a pool with a stream
	lag     lag
	valve   *valve.Valve
	pause   *gate.Pause
}

func (a *App) buildTargets() error {
	a.targets = make(map[string]*lane, len(a.cfg.Targets))
	for name, cfg := range a.cfg.Targets {
		t, err := a.newTarget(name, cfg)
		if err != nil {
			return fmt.Errorf("target %s: %w", name, err)
		}
		l := &lane{name: name, cfg: cfg, target: t, limiter: limiter.New(cfg.Concurrency, cfg.RateLimit, a.concurrencyOf(name)), degrade: fallback.NewSwitch()}
		l.breaker = breaker.New(cfg.Breaker, func(c breaker.Change) {
			if c.To != breaker.Closed { // at once: nothing must get ahead of the ramp when it closes
				l.limiter.Outage(time.Now())
			}
			a.observer.breakerChanged(name, c)
		})
		l.retry = retry.New(cfg.Retry)
		l.retry.RetryAfter = func() time.Duration { return openFor(l.breaker, time.Now()) }
		if cfg.Hedge != nil {
			l.hedge = hedge.New(*cfg.Hedge, cfg.Timeout)
		}
		if l.prober, err = a.newProber(l); err != nil {
			return fmt.Errorf("target %s: %w", name, err)
		}
		if err = a.newMonitor(l); err != nil {
			return fmt.Errorf("target %s: %w", name, err)
		}
		a.targets[name] = l
	}
	return nil
}

// openFor is how long the breaker will still refuse calls, 0 if it does not.
func openFor(b *breaker.Breaker, now time.Time) time.Duration {
	if n, until := b.Credit(now); n == 0 && until.After(now) {
		return until.Sub(now)
	}
	return 0
}

// concurrencyOf is how many calls the pools make at most at once to a target, as
// theirs or as a fallback.
func (a *App) concurrencyOf(target string) int {
	n := 0
	for _, p := range a.cfg.Pools {
		if slices.ContainsFunc(p.Targets(), func(name string) bool { return name == target || fallsBackTo(a.cfg.Targets[name], target) }) {
			n += p.Concurrency
		}
	}
	return max(1, n)
}

func (a *App) newTarget(name string, cfg config.TargetConfig) (target.Target, error) {
	if a.opts.Stage.Target != nil {
		return a.opts.Stage.Target(name, cfg)
	}
	http := *cfg.HTTP // the only protocol so far; config has checked that it is given
	if http.MaxIdleConns == 0 {
		http.MaxIdleConns = a.concurrencyOf(name)
	}
	return httptarget.New(http)
}

func (a *App) buildPools() {
	a.pools = make(map[string]*compartment, len(a.cfg.Pools))
	for name, cfg := range a.cfg.Pools {
		a.pools[name] = a.newCompartment(name, cfg)
	}
}

func (a *App) newCompartment(name string, cfg pool.Config) *compartment {
	c := &compartment{name: name, cfg: cfg, valve: valve.New(cfg.Valve), pause: gate.NewPause()}
	targets := cfg.Targets()
	deps := pool.Deps{
		Ledger: a.attempts,
		Route:  func(j *job.Job) int { return slices.Index(targets, config.TargetOf(cfg, j.Subject)) },
		Gates:  []pool.Gate{gate.Valve(c.valve), gate.Pressure(a.pressure, cfg.Concurrency), c.pause},
		Report: a.observer.report,
	}
	for _, target := range targets {
		l := a.targets[target]
		deps.Lanes = append(deps.Lanes, pool.Lane{
			Target: target, Handler: gate.Valved(a.newPipeline(name, cfg, l), c.valve, func(out job.Outcome) { a.observer.judged(c, out) }), DeadLetters: dlq.New(a.conn, a.cfg.DLQ, name, target), Gates: a.targetGates(l),
		})
	}
	if len(cfg.Results.Subjects) > 0 {
		deps.Results = result.New(a.conn, cfg.Results)
	}
	var used []job.Priority
	for priority := range job.Priority(job.Priorities) {
		if !cfg.Uses(priority) {
			continue
		}
		used = append(used, priority)
		if cfg.Core != nil {
			c.core = a.conn.Core(coreConfig(cfg, priority))
			deps.Sources[priority], deps.Ledger = c.core, pool.NoLedger{}
			continue
		}
		c.sources[priority] = a.conn.Source(sourceConfig(a.cfg, name, cfg, priority))
		deps.Sources[priority] = c.sources[priority]
	}
	deps.Shares = a.cfg.Shed.For(used)
	c.pool = pool.New(name, cfg, deps)
	return c
}

// coreConfig: a message waits at most max_wait while there are more than can be
// done, which are twice the target.
func coreConfig(cfg pool.Config, priority job.Priority) queue.CoreConfig {
	return queue.CoreConfig{
		Subject: cfg.Core.Subject, Queue: cfg.Core.Queue, Priority: priority, Trust: cfg.TrustPriority, MaxMessage: cfg.MaxMessage,
		Local: codel.Config{
			Capacity: cfg.Core.Capacity, Bytes: cfg.Core.MaxBytes,
			Target: cfg.Core.MaxWait / 2, Interval: max(cfg.Core.MaxWait/10, time.Millisecond),
		},
	}
}

func (a *App) newPipeline(name string, cfg pool.Config, l *lane) *pipeline.Pipeline {
	deps := pipeline.Deps{
		Target: l.target, Limiter: l.limiter, Breaker: l.breaker, Retry: l.retry,
		OnTry: func(t pipeline.Try) { a.observer.try(l.name, t) },
		Hedge: l.hedge, OnHedge: func(r hedge.Result) { a.metrics.Hedge(l.name, r) },
		Fallback: a.chain(l.cfg.Fallback), Degrade: l.degrade, Cache: a.cache, Park: parker(dlq.New(a.conn, a.cfg.DLQ, name, l.name)),
		OnStep: func(s pipeline.StepDone) { a.metrics.Fallback(l.name, s) },
	}
	if l.monitor != nil {
		deps.OnSaid = func(r job.Result) { l.monitor.Job(time.Now(), r) }
	}
	return pipeline.New(pipeline.Config{
		Pool: name, Target: l.name, Timeout: l.cfg.Timeout, Keep: int(a.cfg.Cache.MaxEntry), KeepResult: keptForResults(cfg), JobTimeout: cfg.JobTimeout,
		Rules: Rules(cfg),
	}, deps)
}

// Rules are those by which the attempts of a pool's jobs are judged.
func Rules(cfg pool.Config) pipeline.Rules {
	r := cfg.Redelivery
	return pipeline.Rules{
		MaxAttempts: r.MaxAttempts, MaxDeferrals: r.MaxDeferrals, MaxCrashes: r.MaxCrashes, MaxAge: r.MaxAge,
		Backoff:     retry.Policy{Initial: r.InitialBackoff, Max: r.MaxBackoff, Multiplier: r.Multiplier, Jitter: redeliveryJitter},
		DropExpired: cfg.OnExpired == "drop",
	}
}

// redeliveryJitter spreads redeliveries over the upper half of their backoff.
const redeliveryJitter = 0.5

func (a *App) startBroker() (*broker.Server, error) {
	u, err := url.Parse(a.cfg.NATS.URL)
	if err != nil {
		return nil, fmt.Errorf("nats.url: %w", err)
	}
	port := 0
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil {
			return nil, fmt.Errorf("nats.url: port %q: %w", p, err)
		}
	}
	return broker.Start(broker.Config{
		Host: u.Hostname(), Port: port, StoreDir: a.cfg.NATS.StoreDir,
		Complain: func(text string) { a.log.Warn("the embedded broker complains", "text", text) },
	})
}

func listen(address string) (net.Listener, error) {
	var lc net.ListenConfig
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return lc.Listen(context.Background(), "tcp", address)
	}
	l, err := lc.Listen(context.Background(), "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && abandoned(path) && os.Remove(path) == nil {
		return lc.Listen(context.Background(), "unix", path)
	}
	return l, err
}

// abandoned tells whether nobody listens on a socket: who made it was killed.
func abandoned(path string) bool {
	if file, err := os.Lstat(path); err != nil || file.Mode().Type() != os.ModeSocket {
		return false
	}
	c, err := new(net.Dialer).DialContext(context.Background(), "unix", path)
	if err == nil {
		_ = c.Close() // it was only a question
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// instanceID names this process among its replicas: some letters by chance,
// and the host.
func instanceID() string {
	host, _ := os.Hostname()
	return strings.ToLower(rand.Text()[:4]) + "@" + host
}

// sortedNames returns the keys of a map in order.
func sortedNames[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
