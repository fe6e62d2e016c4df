package pool

import (
	"context"
	"slices"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// ledgerErrors bounds the errors remembered per job.
const ledgerErrors = 5

// Ledger remembers what became of a job's earlier deliveries. It does not
// fail: what it cannot keep for all replicas it keeps for this one.
type Ledger interface {
	Load(ctx context.Context, j *job.Job) job.Record
	// Save returns what is known then, which may be more than before.
	Save(ctx context.Context, j *job.Job, r job.Record) job.Record
	Forget(ctx context.Context, j *job.Job)
}

// mark writes down that a job is about to be run, if an earlier delivery of it
// ended without a word: its worker may have died of it. Other jobs need no
// mark, so that nearly none costs one.
func (p *Pool) mark(h *held) {
	if h.record.Unexplained(h.Job().Deliveries-h.aside) == 0 {
		return
	}
	h.marked = true
	h.record.Started++
	h.record = p.deps.Ledger.Save(context.WithoutCancel(h.ctx), h.Job(), h.record)
}

// note writes down what became of a delivery. A job that was given back unrun
// is not worth the trouble: nothing is to be counted.
func (p *Pool) note(h *held, out job.Outcome) {
	ctx := context.WithoutCancel(h.ctx)
	if done := out.Action == job.Done || out.Action == job.Drop; !done && time.Now().After(h.LeaseUntil()) {
		p.unmark(ctx, h)
		return
	}
	switch out.Action {
	case job.Done, job.Drop, job.DeadLetter:
		if h.Job().Deliveries-h.aside > 1 || h.marked {
			p.deps.Ledger.Forget(ctx, h.Job())
		}
	case job.Retry, job.Defer:
		if out.Reason == job.Fairness { // as one that is released
			return
		}
		p.deps.Ledger.Save(ctx, h.Job(), after(h.record, out, h.marked))
	case job.Release, job.Park:
		if h.marked {
			p.deps.Ledger.Save(ctx, h.Job(), after(h.record, out, h.marked))
		}
	}
}

// unmark takes back the mark of a run of a job that is somebody else's by now. What
// else is known of it there is more than here.
func (p *Pool) unmark(ctx context.Context, h *held) {
	if h.marked {
		p.deps.Ledger.Save(ctx, h.Job(), job.Record{Started: -1, Unread: true})
	}
}

// after is the record of a job after one more delivery.
func after(r job.Record, out job.Outcome, marked bool) job.Record {
	if marked {
		r.Started-- // it has come back
	}
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
	return r
}
