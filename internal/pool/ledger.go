package pool

import (
	"context"
	"slices"

	"github.com/workerd/workerd/internal/job"
)

// ledgerErrors bounds the errors remembered per job.
const ledgerErrors = 5

// Ledger remembers what became of a job's earlier deliveries. It does not
// fail: what it cannot keep for all replicas it keeps for this one.
type Ledger interface {
	Load(ctx context.Context, j *job.Job) job.Record
	// Save writes down all that is known.
	Save(ctx context.Context, j *job.Job, r job.Record)
	// Add writes down what has happened since, and returns all that is known then.
	Add(ctx context.Context, j *job.Job, since job.Record) job.Record
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
	h.record = p.deps.Ledger.Add(context.WithoutCancel(h.ctx), h.Job(), job.Record{Started: 1})
}

// note writes down what became of a delivery. A job that was given back unrun
// is not worth the trouble: nothing is to be counted. Several replicas may know of a
// suspect, so that only what has changed is written of it.
func (p *Pool) note(h *held, out job.Outcome) {
	ctx, ledger := context.WithoutCancel(h.ctx), p.deps.Ledger
	done := out.Action == job.Done || out.Action == job.Drop
	again := out.Action == job.Retry || out.Action == job.Defer
	switch {
	case !done && h.leaseOver(): // others know better
		if h.marked {
			ledger.Add(ctx, h.Job(), job.Record{Started: -1})
		}
	case done || out.Action == job.DeadLetter:
		if h.Job().Deliveries-h.aside > 1 || h.marked {
			ledger.Forget(ctx, h.Job())
		}
	case again && out.Reason == job.Fairness: // as one that is released
	case h.marked || again && h.record.Unread:
		ledger.Add(ctx, h.Job(), after(job.Record{}, out, h.marked))
	case again:
		ledger.Save(ctx, h.Job(), after(h.record, out, false))
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
