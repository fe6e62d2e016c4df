package metrics_test

import (
	"testing"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
)

// BenchmarkJobAndTry is what a successful job costs: one report, one call.
func BenchmarkJobAndTry(b *testing.B) {
	for name, took := range map[string]time.Duration{"fast": 300 * time.Microsecond, "slow": 3 * time.Second} {
		b.Run(name, func(b *testing.B) {
			_, m := start()
			report := pool.Report{Pool: "email", Outcome: job.Outcome{Action: job.Done, Reason: job.OK, Tries: 1}, Age: took, Waited: took, Took: took}
			try := pipeline.Try{Result: job.Result{Class: job.Success, Reason: job.OK}, Took: took}
			b.ReportAllocs()
			for b.Loop() {
				m.Try("mailer", try)
				m.Job(report)
			}
		})
	}
}
