package shutdown

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// SignalError is the cause of a context that a signal has ended.
type SignalError struct {
	Signal syscall.Signal
}

// Error names the signal.
func (e SignalError) Error() string {
	switch e.Signal {
	case syscall.SIGTERM:
		return "received SIGTERM"
	case syscall.SIGINT:
		return "received SIGINT"
	}
	return fmt.Sprintf("received signal %d", int(e.Signal))
}

// Signals relays SIGTERM and SIGINT, which mean the same. The first ends
// drain, the second hurry, each with a [SignalError] as cause. The third kills
// the process in the way it does by default, so that the parent sees a death
// by signal (143 or 130 to a shell).
//
// When ctx ends so does drain, with the same cause, and the next signal is the
// second. hurry has the values of ctx but outlives it.
//
// stop ends the relay and waits for it; it acts on signals already received,
// ends both contexts, and leaves later signals to their default. It may be
// called more than once, by any goroutine.
func Signals(ctx context.Context) (drain, hurry context.Context, stop func()) {
	drain, endDrain := context.WithCancelCause(ctx)
	hurry, endHurry := context.WithCancelCause(context.WithoutCancel(ctx))
	// Room for all signals that have a meaning: os/signal drops what does not
	// fit, and the relay may not get to run at once.
	received := make(chan os.Signal, 3)
	signal.Notify(received, syscall.SIGTERM, syscall.SIGINT)
	var relay sync.WaitGroup
	relay.Go(func() {
		for s := range received {
			switch cause := (SignalError{s.(syscall.Signal)}); {
			case drain.Err() == nil:
				endDrain(cause)
			case hurry.Err() == nil:
				endHurry(cause)
			default:
				die(cause.Signal)
			}
		}
	})
	return drain, hurry, sync.OnceFunc(func() {
		signal.Stop(received) // from here on nothing is sent
		close(received)
		relay.Wait()
		endDrain(nil)
		endHurry(nil)
	})
}

// die ends the process by the signal, at once.
func die(s syscall.Signal) {
	// Everybody's subscription, not only ours, or it would not be deadly.
	signal.Reset(s)
	// Process 1 of a container is immune to its own signals: Linux ignores
	// them, and the runtime would then exit with 2.
	if pid := os.Getpid(); pid != 1 {
		if self, err := os.FindProcess(pid); err == nil && self.Signal(s) == nil {
			<-time.NewTimer(grace).C // it need not take effect before it returns
		}
	}
	// Still here, so the signal is ignored, as SIGINT is after nohup or in a
	// script's background. Say the same in the way of a shell.
	os.Exit(128 + int(s)) //nolint:revive // deep-exit: the third signal asks for exactly this
}
