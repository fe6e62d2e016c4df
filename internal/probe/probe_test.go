package probe_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a prober at work in a bubble.
type world struct {
	breaker *breaker.Breaker
	prober  *probe.Prober

	mu            sync.Mutex
	began         []time.Time
	ended         []job.Result
	running, most int
}

func good(context.Context) job.Result { return job.Result{Class: job.Success, Reason: job.OK} }
func down(context.Context) job.Result { return job.Result{Class: job.Failure, Reason: job.Connect} }

// hanging waits for the end of ctx, as a target that says nothing.
func hanging(ctx context.Context) job.Result {
	<-ctx.Done()
	if errors.Is(context.Cause(ctx), job.ErrTryTimeout) {
		return job.Result{Class: job.Timeout, Reason: job.TimedOut}
	}
	return job.Result{Class: job.Ignored, Reason: job.Interrupted}
}

func newWorld(interval time.Duration, ask func(context.Context) job.Result) *world {
	w := &world{breaker: breaker.New(breaker.Config{ConsecutiveFailures: 1}, nil)}
	w.prober = &probe.Prober{
		Config: probe.Config{Path: "/healthz", Interval: interval}.WithDefaults(time.Second), Breaker: w.breaker,
		HeldUntil: func(time.Time) time.Time { return time.Time{} },
		OnProbe: func(r job.Result, _ time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ended = append(w.ended, r)
		},
		Ask: func(ctx context.Context, path string) job.Result {
			w.enter()
			defer w.leave()
			if path != "/healthz" {
				panic("asked for " + path)
			}
			return ask(ctx)
		},
	}
	return w
}

func (w *world) enter() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.began = append(w.began, time.Now())
	w.running++
	w.most = max(w.most, w.running)
}

func (w *world) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
}

// run returns what stops it.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.prober.Run(ctx) })
	synctest.Wait()
	return func() { cancel(); running.Wait() }
}

// job makes a call if it may.
func (w *world) job(v breaker.Verdict) (ran bool) {
	p, err := w.breaker.Acquire(time.Now())
	if err == nil {
		p.Done(time.Now(), v, 0)
	}
	return err == nil
}

func (w *world) probes() int { return len(w.times()) }

// times at which a probe began.
func (w *world) times() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.began)
}

// TestOutage_costsNoJob: half an hour, jobs that are tried all the time.
func TestOutage_costsNoJob(t *testing.T) {
	for name, c := range map[string]struct {
		interval    time.Duration
		ask         func(context.Context) job.Result
		least, most int
	}{
		"growing waits":      {0, down, 15, 30},
		"steady":             {5 * time.Second, down, 355, 460},
		"hangs":              {0, hanging, 15, 30},
		"panics":             {0, func(context.Context) job.Result { panic("boom") }, 15, 30},
		"panics, steady":     {time.Second, func(context.Context) job.Result { panic("boom") }, 1700, 2300},
		"throttled for good": {0, func(context.Context) job.Result { return job.Result{Class: job.Throttled} }, 15, 30},
		"ignored":            {0, func(context.Context) job.Result { return job.Result{Class: job.Ignored} }, 15, 30},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var well atomic.Bool
				w := newWorld(c.interval, func(ctx context.Context) job.Result {
					if well.Load() {
						return good(ctx)
					}
					return c.ask(ctx)
				})
				stop := w.run()
				defer stop()
				w.job(breaker.Bad)
				for range 30 * 60 {
					time.Sleep(time.Second)
					if w.job(breaker.Bad) {
						t.Fatalf("a job ran after %d probes", w.probes())
					}
				}
				if n := w.probes(); n < c.least || n > c.most {
					t.Errorf("%d probes in half an hour, want %d to %d", n, c.least, c.most)
				}
				well.Store(true)
				time.Sleep(2*time.Minute + time.Second)
				for range 2 {
					if !w.job(breaker.Good) {
						t.Fatal("no job may run though the target is well")
					}
				}
				if s := w.breaker.Stats(time.Now()); s.State != breaker.Closed {
					t.Errorf("the breaker is %v", s.State)
				}
				if stop(); w.most != 1 {
					t.Errorf("%d probes at once", w.most)
				}
			})
		})
	}
}

// TestProbe_thatIsGoodThoughJobsFailCostsOneJobForEachWait: a health check that
// lies does no more harm than none at all.
func TestProbe_thatIsGoodThoughJobsFailCostsOneJobForEachWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Second, good)
		defer w.run()()
		jobs := 0
		for range 30 * 60 {
			time.Sleep(time.Second)
			if w.job(breaker.Bad) {
				jobs++
			}
		}
		if jobs < 10 || jobs > 30 {
			t.Errorf("%d jobs were spent in half an hour", jobs)
		}
	})
}

// TestRun_endsInTheMiddle: the probe says nothing then.
func TestRun_endsInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(0, hanging)
		w.prober.Config.Timeout = 10 * time.Second
		stop := w.run()
		w.job(breaker.Bad)
		time.Sleep(6 * time.Second)
		stop()
		if s := w.breaker.Stats(time.Now()); s.State != breaker.HalfOpen || s.Probes != 0 || len(w.ended) != 1 {
			t.Errorf("%+v after %d probes", s, len(w.ended))
		}
		time.Sleep(15 * time.Second)
		if !w.job(breaker.Good) {
			t.Error("no job may probe though the prober is gone")
		}
	})
}

// TestAsk_whateverBecomesOfItThePermitIsEnded: a goroutine that ends, and one
// that does not listen to its context.
func TestAsk_whateverBecomesOfItThePermitIsEnded(t *testing.T) {
	for name, ask := range map[string]func(context.Context) job.Result{
		"goexit": func(context.Context) job.Result { runtime.Goexit(); return job.Result{} },
		"deaf":   func(ctx context.Context) job.Result { time.Sleep(time.Hour); return down(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(0, ask)
				stop := w.run()
				defer stop()
				w.job(breaker.Bad)
				for range 60 {
					time.Sleep(time.Second)
					if w.job(breaker.Good) {
						return
					}
				}
				t.Errorf("no job may run: %+v", w.breaker.Stats(time.Now()))
			})
		})
	}
}

func TestRun_leavesATargetAloneThatAskedForTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Second, down)
		began := time.Now()
		w.prober.HeldUntil = func(time.Time) time.Time { return began.Add(12 * time.Second) }
		defer w.run()()
		w.job(breaker.Bad)
		time.Sleep(30 * time.Second)
		if at := w.times(); len(at) == 0 || at[0].Before(began.Add(12*time.Second)) {
			t.Errorf("%d probes at %v, want the first 12 s after %v", len(at), at, began)
		}
	})
}

// TestReplicas_doNotProbeInStep although their breakers open at the same time.
func TestReplicas_doNotProbeInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := map[time.Time]int{}
		var worlds []*world
		for range 20 {
			w := newWorld(5*time.Second, down)
			defer w.run()()
			w.job(breaker.Bad)
			worlds = append(worlds, w)
		}
		time.Sleep(time.Minute)
		for _, w := range worlds {
			for _, began := range w.times() {
				at[began.Truncate(time.Millisecond)]++
			}
		}
		for when, n := range at {
			if n > 4 {
				t.Errorf("%d of 20 replicas probed at once at %v", n, when)
			}
		}
	})
}

// TestRun_neverTwoAtOnce whatever answers, jobs and operators do.
func TestRun_neverTwoAtOnce(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 1))
			answers := rand.New(rand.NewPCG(seed, 2)) // the prober's goroutine has its own
			w := newWorld([]time.Duration{0, time.Second}[seed%2], func(ctx context.Context) job.Result {
				time.Sleep(time.Duration(answers.Int64N(int64(2 * time.Second))))
				return []func(context.Context) job.Result{good, down, hanging}[answers.IntN(3)](ctx)
			})
			stop := w.run()
			for range 200 {
				time.Sleep(time.Duration(dice.Int64N(int64(3 * time.Second))))
				switch dice.IntN(12) {
				case 0:
					_ = w.breaker.Override(breaker.ForcedOpen, time.Minute, "", time.Now())
				case 1:
					w.breaker.Reset(time.Now())
				case 2, 3, 4:
					w.job(breaker.Good)
				default:
					w.job(breaker.Bad)
				}
			}
			stop()
			if w.most > 1 || len(w.began) != len(w.ended) {
				t.Errorf("seed %d: %d probes at once, %d began and %d ended", seed, w.most, len(w.began), len(w.ended))
			}
		})
	}
}
