package pool_test

import (
	"context"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/shed"
)

// faucet delivers as many jobs as are asked for, at once.
type faucet struct{ asked chan int }

func (f faucet) Request(n int)        { f.asked <- n }
func (faucet) AckWait() time.Duration { return time.Minute }

func (f faucet) Run(ctx context.Context, to job.Receiver) {
	j := &job.Job{ID: "1", Stream: "S", Sequence: 1, Deliveries: 1, Subject: "jobs.a", Enqueued: time.Now()}
	until := time.Now().Add(time.Hour)
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-f.asked:
			for range n {
				to.Deliver(drop{j, until}, 1<<20)
			}
		}
	}
}

// drop is a delivery that costs nothing to settle.
type drop struct {
	job   *job.Job
	until time.Time
}

func (d drop) Job() *job.Job                      { return d.job }
func (drop) Extend()                              {}
func (d drop) LeaseUntil() time.Time              { return d.until }
func (drop) Settle(job.Verb, time.Duration) error { return nil }

// instant does a job in no time.
type instant struct{}

func (instant) Handle(context.Context, *job.Job, job.Record, <-chan struct{}) job.Outcome {
	return job.Outcome{Action: job.Done, Reason: job.OK}
}

// BenchmarkJob is what the pool adds to a job: from its delivery to its report.
func BenchmarkJob(b *testing.B) {
	done := make(chan struct{}, 1024)
	deps := pool.Deps{
		Lanes:  []pool.Lane{{Target: "t", Handler: instant{}, DeadLetters: &letters{}, Gates: []pool.Gate{newGate()}}},
		Ledger: pool.NoLedger{},
		Shares: shed.Config{}.WithDefaults().For([]job.Priority{job.Normal}),
		Report: func(pool.Report) { done <- struct{}{} },
	}
	deps.Sources[job.Normal] = faucet{make(chan int, 1024)}
	p := pool.New("p", pool.Config{Concurrency: 64}.WithDefaults(), deps)
	fetch, stop := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { p.Run(fetch, context.WithoutCancel(b.Context())); close(ended) }()
	b.ReportAllocs()
	for b.Loop() {
		<-done
	}
	stop()
	for {
		select {
		case <-done:
		case <-ended:
			return
		}
	}
}
