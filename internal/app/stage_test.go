package app_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/workerd/workerd/internal/app"
	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/target"
)

// failing answers every call in the same way.
type failing struct{ calls atomic.Int64 }

func (f *failing) Call(context.Context, target.Request) job.Result {
	f.calls.Add(1)
	return job.Result{Class: job.Failure, Reason: job.Connect}
}

func (*failing) Close() {}

func TestStage_standsInForTheWorldAndIsToldWhatHappens(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	k.publish(10)
	actor := new(failing)
	var retried, opened atomic.Int64
	stage := app.Stage{
		Unattended: true,
		Target:     func(string, config.TargetConfig) (target.Target, error) { return actor, nil },
		OnReport: func(r pool.Report) {
			if r.Outcome.Action == job.Retry {
				retried.Add(1)
			}
		},
		OnBreaker: func(name string, c breaker.Change) {
			if name == "t" && c.To == breaker.Open {
				opened.Add(1)
			}
		},
	}
	d := k.runOn(k.load(described), stage)
	await(t, "reports and changes are told", func() bool { return retried.Load() >= 4 && opened.Load() == 1 })
	if actor.calls.Load() < 5 || k.calls.Load() > 0 {
		t.Errorf("%d calls to what stands in, %d to the real one", actor.calls.Load(), k.calls.Load())
	}
	if a := d.Addr().String(); strings.Contains(a, ":") {
		t.Errorf("it listens on %s", a)
	}
	if err := d.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}
