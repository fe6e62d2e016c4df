package gate_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/probe"
)

// asks a target of that lane from now on; stop ends it.
func (l *lane) asks(cfg probe.Config, answer func(ctx context.Context) job.Result) (asked *atomic.Int64, stop func()) {
	asked = new(atomic.Int64)
	p := &probe.Prober{
		Config: cfg.WithDefaults(10 * time.Second), Breaker: l.breaker,
		HeldUntil: func(time.Time) time.Time { return time.Time{} },
		OnProbe:   func(job.Result, time.Duration) {},
		Ask:       func(ctx context.Context, _ string) job.Result { asked.Add(1); return answer(ctx) },
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	return asked, func() { cancel(); running.Wait() }
}

// TestProbe_ofHalfAnHourSpendsNoJob is the outage of half an hour again, with
// a health check: nothing is pulled and nobody pays until it is over, two pools
// wait for one prober, and then the ramp is as ever.
func TestProbe_ofHalfAnHourSpendsNoJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency = 8
		l := newLane(2*concurrency, limiter.Config{}, limiter.Rate{})
		down := always(job.Failure, job.Status5xx, 503)
		var well atomic.Bool
		l.service.does(down)
		asked, stop := l.asks(probe.Config{Path: "/healthz", Interval: 5 * time.Second}, func(ctx context.Context) job.Result {
			if well.Load() {
				return result(job.Success, job.OK, 200)
			}
			return down(ctx, 0)
		})
		defer stop()
		a, b := l.work(newStream(500), concurrency), l.work(newStream(500), concurrency)
		defer a.stop()
		defer b.stop()
		time.Sleep(4 * time.Second) // the breaker is open
		synctest.Wait()
		if s := l.breaker.Stats(time.Now()); s.State != breaker.Open {
			t.Fatalf("the breaker is %v", s.State)
		}
		calls, charged := l.service.calls(), a.ledger.charged()+b.ledger.charged()
		time.Sleep(30 * time.Minute)
		if more := l.service.calls() - calls; more != 0 || a.ledger.charged()+b.ledger.charged() != charged {
			t.Errorf("%d jobs were spent in half an hour, besides %d probes", more, asked.Load())
		}
		if n := asked.Load(); n < 355 || n > 460 {
			t.Errorf("%d probes, want one each 4 to 5 s", n)
		}
		well.Store(true)
		l.service.does(fine(time.Millisecond))
		before := asked.Load()
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if s := l.breaker.Stats(time.Now()); s.State != breaker.Closed || asked.Load() != before+1 {
			t.Errorf("6 s after the end of the outage the breaker is %v, after %d probes", s.State, asked.Load()-before)
		}
		time.Sleep(11 * time.Minute) // the longest backoff
		synctest.Wait()
		for _, w := range []*worker{a, b} {
			if _, acked, dead, left := w.stream.counts(); acked != 500 || dead != 0 || left != 0 {
				t.Errorf("afterwards %d done, %d dead, %d left", acked, dead, left)
			}
		}
	})
}
