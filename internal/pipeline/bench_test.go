package pipeline_test

import (
	"context"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target"
)

// BenchmarkHandle is what the pipeline itself costs a job whose first call is good.
func BenchmarkHandle(b *testing.B) {
	k := newKit(func(context.Context, target.Request) job.Result { return job.Result{Class: job.Success, Status: 200} }, nil)
	j := &job.Job{ID: "j", Stream: "S", Sequence: 1, Enqueued: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		k.tries = k.tries[:0]
		if out := k.Handle(context.Background(), j, job.Record{}, nil); out.Action != job.Done {
			b.Fatal(out)
		}
	}
}
