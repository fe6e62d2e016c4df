// Package target says what a call to a downstream system is.
//
// Each protocol has a package of its own below this one; they know nothing of
// each other. Every one of them answers in the same words, job.Result, and is
// held to the same promises by the suite in targettest.
package target

import (
	"context"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// Request is one call to be made for a job.
type Request struct {
	// Job whose payload is sent. Never modified.
	Job *job.Job
	// Pool that runs the job.
	Pool string
	// Attempt is 1 plus the number of attempts already charged to the job.
	Attempt int
	// Try counts the calls within this attempt, from 1.
	Try int
	// Timeout the call has been given, for the target's information.
	Timeout time.Duration
	// Keep is how many bytes of the answer's body are wanted in Result.Reply.
	// 0: no Reply at all.
	Keep int
}

// Target is a downstream system.
type Target interface {
	// Call makes one call and says how it ended. It returns only after the
	// whole answer was read or the call was given up; after that it does not
	// use the request any more. The context ends with the cause
	// job.ErrTryTimeout when the call took too long, and with another cause
	// when workerd gave it up. Whatever the job or the downstream sends is
	// answered with a Result, never with a panic. Any number of goroutines
	// may call at once.
	Call(ctx context.Context, r Request) job.Result
	// Close gives back what the target holds, once no call is running.
	Close()
}
