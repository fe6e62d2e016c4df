package sim

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/attempts"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/queue"
)

// TestLedger_whatIsWrittenDuringACutReachesTheOthers: else a job that came back
// twice looks to them as if it had killed its workers (found by I12).
func TestLedger_whatIsWrittenDuringACutReachesTheOthers(t *testing.T) {
	forgetTimers()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		defer f.stop()
		replica := func() (*attempts.Ledger, *link) {
			l := &link{to: f}
			conn, err := queue.Dial(queue.Config{URL: "nats://sim"}.WithDefaults(), slog.New(slog.DiscardHandler), nats.InProcessServer(l))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(conn.Close)
			return attempts.New(conn, attempts.Config{}.WithDefaults()), l
		}
		one, way := replica()
		other, _ := replica()
		j := &job.Job{Stream: "JOBS", Consumer: "c", Sequence: 1, Deliveries: 2, Enqueued: time.Now()}
		synctest.Wait()
		one.Save(t.Context(), j, job.Record{Started: 1})
		way.cut()
		synctest.Wait()
		one.Save(t.Context(), j, job.Record{Attempts: 1})
		if n := one.Failed(); n != 0 {
			t.Errorf("%d records were not written", n)
		}
		if got := other.Load(t.Context(), j); got.Attempts != 1 || got.Started != 0 {
			t.Errorf("another replica reads %+v, want one attempt", got)
		}
	})
}
