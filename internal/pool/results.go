package pool

import (
	"context"
	"fmt"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// Results says who may be told how a job ended: whom the job itself names in its
// header Workerd-Reply-To, if that is allowed here.
type Results struct {
	// Subjects that results may be published to, as filters whose first token is
	// literal, for example results.> or _INBOX.>. A job that names another one
	// is run without a result. Default: none, so nobody is told.
	Subjects []string `yaml:"subjects"`
	// Stream that takes up the results. With it a job is not acknowledged before
	// the stream has its result; those to _INBOX.> are sent as they are, as all
	// are without it. Default: none.
	Stream string `yaml:"stream"`
	// MaxBody is the largest reply that is sent along; of a larger one only what
	// became of it, and that it was left out. 1B to 8MiB. Default: 256KiB.
	MaxBody int64 `yaml:"max_body" unit:"size"`
}

// WithDefaults fills in what was not said.
func (r Results) WithDefaults() Results {
	setDefault(&r.MaxBody, 256<<10)
	return r
}

// Validate reports every problem but those of the subjects.
func (r Results) Validate(problem func(field, message string)) {
	if message := outside(r.MaxBody, 1, 8<<20); message != "" {
		problem("max_body", message)
	}
	if r.Stream != "" && len(r.Subjects) == 0 {
		problem("stream", "takes up no results, as there are no subjects they may be sent to")
	}
}

// Answer is what became of a job's result. "" if none was asked for. It is a
// label value of workerd_results_total.
type Answer string

// The answers.
const (
	// Sent: it is with the stream, or on its way.
	Sent Answer = "sent"
	// Lost: it could not be sent. Nobody waits for it to be.
	Lost Answer = "lost"
	// Refused: the job named a subject that is not allowed.
	Refused Answer = "refused"
	// Unsent: it must be sent and could not.
	Unsent Answer = "unsent"
)

// Answers are all but "".
func Answers() []Answer { return []Answer{Sent, Lost, Refused, Unsent} }

// Sender sends the results of jobs to whom they name.
type Sender interface {
	// Send returns once the result is sent as it must be. Only with Unsent there
	// is an error.
	Send(ctx context.Context, j *job.Job, o job.Outcome) (Answer, error)
}

const (
	// resultPatience is how long one attempt to send a result may take.
	resultPatience = 10 * time.Second
	// resultAgain is when a job comes again whose result could not be sent.
	resultAgain = 30 * time.Second
)

// answer sends the result of a job that has come to its end. If it must be sent
// and cannot, the job goes back to the stream; a dead letter does not, as it is
// stored already.
func (p *Pool) answer(h *held, out job.Outcome) (job.Outcome, Answer) {
	final := out.Action == job.Done || out.Action == job.Drop || out.Action == job.DeadLetter
	if p.deps.Results == nil || !final {
		return out, ""
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), resultPatience)
	defer cancel()
	answer, err := p.deps.Results.Send(ctx, h.Job(), out)
	if err == nil || out.Action == job.DeadLetter {
		return out, answer
	}
	return job.Outcome{
		Action: job.Defer, Reason: job.NoResult, After: resultAgain, Tries: out.Tries, Last: out.Last,
		Err: fmt.Errorf("the job is done, but its result could not be sent: %w", err),
	}, answer
}
