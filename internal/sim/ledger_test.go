package sim

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/workerd/workerd/internal/attempts"
	"github.com/workerd/workerd/internal/job"
)

// historian is someone with a ledger.
type historian struct {
	*someone
	*attempts.Ledger
}

func (l *lab) historian() historian {
	l.Helper()
	s := l.stranger()
	l.wait(time.Second) // connected
	return historian{s, attempts.New(s.conn, attempts.Config{}.WithDefaults())}
}

func suspect() *job.Job {
	return &job.Job{Stream: jobStream, Consumer: "c", Sequence: 1, Deliveries: 2, Enqueued: time.Now()}
}

// TestSim_whatIsWrittenDuringACutReachesTheOthers: else a job that came back
// twice looks to them as if it had killed its workers (found by I12).
func TestSim_whatIsWrittenDuringACutReachesTheOthers(t *testing.T) {
	conforms(t, func(l *lab) {
		one, other := l.historian(), l.historian()
		defer one.stop()
		defer other.stop()
		j := suspect()
		one.Add(l.Context(), j, job.Record{Started: 1})
		one.link.cut()
		synctest.Wait()
		one.Add(l.Context(), j, job.Record{Attempts: 1, Started: -1})
		if n := one.Failed(); n != 0 {
			l.Errorf("%d records were not written", n)
		}
		if got := other.Load(l.Context(), j); got.Attempts != 1 || got.Started != 0 {
			l.Errorf("another replica reads %+v, want one attempt", got)
		}
	})
}

// TestSim_attemptsThatCannotBeReadAreNotForgotten: who cannot read what others wrote
// down counts from zero, and writes that down as soon as it can.
func TestSim_attemptsThatCannotBeReadAreNotForgotten(t *testing.T) {
	conforms(t, func(l *lab) {
		one, other := l.historian(), l.historian()
		defer one.stop()
		defer other.stop()
		j := suspect()
		other.Save(l.Context(), j, job.Record{Attempts: 3})
		one.link.leave()
		synctest.Wait()
		one.Load(l.Context(), j)
		one.Add(l.Context(), j, job.Record{Started: 1})
		one.link.back()
		l.wait(10 * time.Second)
		one.Add(l.Context(), j, job.Record{Attempts: 1, Started: -1})
		if got := other.Load(l.Context(), j); got.Attempts != 4 {
			l.Errorf("another replica reads %+v, want four attempts", got)
		}
	})
}
