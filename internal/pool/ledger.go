package pool

import (
	"slices"
	"sync"

	"github.com/workerd/workerd/internal/job"
)

const (
	// ledgerSize bounds the jobs remembered.
	ledgerSize = 100_000
	// ledgerErrors bounds the errors remembered per job.
	ledgerErrors = 5
)

// ledger counts the attempts of jobs that failed here, in memory. The broker's
// own count will not do: it counts deliveries, and many of these never ran.
// Attempts made by another replica, or before a restart, are not known; a job
// may therefore get more attempts than configured, never fewer.
type ledger struct {
	mu      sync.Mutex
	records map[string]job.Record
}

func newLedger() *ledger { return &ledger{records: make(map[string]job.Record)} }

// load returns what is known of earlier deliveries. A first delivery costs nothing.
func (l *ledger) load(j *job.Job) job.Record {
	if j.Deliveries <= 1 {
		return job.Record{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.records[j.Key()]
}

// note writes down what became of a delivery that had the given record before.
func (l *ledger) note(j *job.Job, out job.Outcome, before job.Record) {
	switch out.Action {
	case job.Done, job.Drop, job.DeadLetter:
		if j.Deliveries > 1 {
			l.forget(j.Key())
		}
		return
	case job.Retry, job.Defer, job.Release, job.Park:
	}
	r := before
	if out.Charged {
		r.Attempts++
	} else {
		r.Deferrals++
	}
	if out.Reason == job.PanicReason {
		r.Panics++
	}
	if out.Err != nil {
		r.Errors = append(slices.Clip(r.Errors), out.Err.Error())
		r.Errors = r.Errors[max(0, len(r.Errors)-ledgerErrors):]
	}
	if out.Last.Status != 0 {
		r.LastStatus = out.Last.Status
	}
	l.put(j.Key(), r)
}

func (l *ledger) put(key string, r job.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.records[key]; !known && len(l.records) >= ledgerSize {
		for victim := range l.records { // any: better to forget one job's count than to grow
			delete(l.records, victim)
			break
		}
	}
	l.records[key] = r
}

func (l *ledger) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.records, key)
}
