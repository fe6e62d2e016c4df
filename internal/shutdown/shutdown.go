// Package shutdown ends a process in an orderly way: it turns signals into
// "drain" and "hurry", and runs named phases in order, each under its own
// timeout.
//
//	signals   1st: drain ends         2nd: hurry ends          3rd: the process dies of it
//	              │                        ┊                          ┊
//	              ▼                        ┊ cuts short what waits    ┊
//	phases    announce ─► stop pulling ─► drain ─► interrupt ─► flush ─► close
//	          waits                       waits
//	              └───────────────┴──────────┴──────────┴──────────┴──► Report each,
//	                    the errors of all, joined, at the end
//
// The phases here are those of workerd; the package knows only their names.
//
// Guarantees:
//
//  1. Phases run one after the other in the order given, and each of them
//     runs, whatever the ones before did: fail, panic, or not return.
//  2. A phase's context ends at its timeout with cause [ErrTimeout]. A phase
//     that has not returned a second after its context ended is left behind.
//     So all phases together take at most their timeouts and a second each.
//  3. Hurry ends the contexts of phases that only wait, the running one and
//     those to come, and no other.
//  4. Each phase is reported once, when it has ended, before the next begins.
//  5. From the return of [Signals] to that of stop, a signal is acted on,
//     whatever phase is running. The operating system does not count: of two
//     equal signals in the same instant it may deliver one.
//  6. After stop the process is as it was before: no goroutine is left, and a
//     signal does what it does by default.
//
// To others it leaves: what the phases do, logging, and the exit code.
package shutdown

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// grace is how long a phase may take to return once its context has ended.
const grace = time.Second

// Errors of phases.
var (
	// ErrTimeout is the cause with which a phase's context ends at its timeout.
	ErrTimeout = errors.New("phase timed out")
	// ErrLeftBehind is the error of a phase that did not return although its
	// context had ended.
	ErrLeftBehind = errors.New("did not return when its time was up, left behind")

	errGoexit = errors.New("ended its goroutine without returning")
)

// Phase is one step of a shutdown.
type Phase struct {
	// Name in reports and errors.
	Name string
	// Timeout of the phase's context. 0 or less: it has ended from the start.
	Timeout time.Duration
	// Waits: the phase only waits for something, so hurry may cut it short.
	Waits bool
	// Run does the work, in a goroutine of its own. It should return soon
	// after ctx has ended; whether that is an error is for it to say.
	Run func(ctx context.Context) error
}

// Report tells how a phase went.
type Report struct {
	Name string
	// Took from the phase's start to its return, or until it was left behind.
	Took time.Duration
	// Err is what Run returned, a *PanicError, or ErrLeftBehind.
	Err error
	// Hurried: the phase's context was ended by hurry.
	Hurried bool
}

// PanicError is a panic in a phase, turned into data.
type PanicError struct {
	Value any
	Stack []byte
}

// Error tells the value; the stack is for whoever asks.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Run runs the phases in order and returns their errors, joined, each with
// the name of its phase. hurry ends when somebody is in a hurry; phases get
// its values. report, if not nil, is called after each phase from the
// caller's goroutine.
func Run(hurry context.Context, phases []Phase, report func(Report)) error {
	if report == nil {
		report = func(Report) {}
	}
	var errs []error
	for _, p := range phases {
		r := p.run(hurry)
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, r.Err))
		}
		if err := protect(func() error { report(r); return nil }); err != nil {
			errs = append(errs, fmt.Errorf("report of %s: %w", p.Name, err))
		}
	}
	return errors.Join(errs...)
}

// run runs one phase to its end, or to that of our patience.
func (p Phase) run(hurry context.Context) Report {
	parent := hurry
	if !p.Waits {
		parent = context.WithoutCancel(hurry)
	}
	ctx, cancel := context.WithTimeoutCause(parent, p.Timeout, ErrTimeout)
	defer cancel()
	started := time.Now()
	err := p.await(ctx)
	return Report{
		Name: p.Name, Took: time.Since(started), Err: err,
		Hurried: ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrTimeout),
	}
}

// await starts the phase and waits for it. It has a goroutine of its own only
// because there is no other way to go on without one that hangs; who does not
// return is the one goroutine nobody waits for, as the process is ending.
func (p Phase) await(ctx context.Context) error {
	ended := make(chan error, 1)
	var phase sync.WaitGroup
	phase.Go(func() {
		err := errGoexit
		defer func() { ended <- err }()
		err = protect(func() error { return p.Run(ctx) })
	})
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case err := <-ended:
		return err
	case <-patience.C:
		return ErrLeftBehind
	}
}

// protect turns a panic in f into an error.
func protect(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
	}()
	return f()
}
