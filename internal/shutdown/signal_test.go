package shutdown_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/shutdown"
)

// The name of the variable that turns the test binary into a daemon.
const roleVariable = "WORKERD_SHUTDOWN_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		goleak.VerifyTestMain(m)
	case "signals":
		os.Exit(relaySignals(context.Background()))
	case "phases":
		os.Exit(runPhases(context.Background()))
	case "stopped":
		_, _, stop := shutdown.Signals(context.Background())
		stop()
		fmt.Println("ready")
		select {}
	}
}

// relaySignals says what becomes of its signals, and never gives in to two.
func relaySignals(ctx context.Context) int {
	drain, hurry, stop := shutdown.Signals(ctx)
	defer stop()
	fmt.Println("ready")
	<-drain.Done()
	fmt.Println("drain:", context.Cause(drain))
	<-hurry.Done()
	fmt.Println("hurry:", context.Cause(hurry))
	select {}
}

// runPhases shuts down; its phase "busy" ends when a line comes in.
func runPhases(ctx context.Context) int {
	drain, hurry, stop := shutdown.Signals(ctx)
	context.AfterFunc(hurry, func() { fmt.Println("hurry") })
	fmt.Println("ready")
	<-drain.Done()
	err := shutdown.Run(hurry, []shutdown.Phase{
		{Name: "busy", Timeout: time.Minute, Run: func(ctx context.Context) error {
			fmt.Println("busy")
			_, err := bufio.NewReader(os.Stdin).ReadString('\n')
			return errors.Join(err, ctx.Err())
		}},
		{Name: "drain", Timeout: time.Hour, Waits: true, Run: func(ctx context.Context) error {
			fmt.Println("draining")
			<-ctx.Done()
			return nil
		}},
		{Name: "flush", Timeout: time.Minute, Run: func(ctx context.Context) error { return ctx.Err() }},
	}, func(r shutdown.Report) { fmt.Println(r.Name, r.Err, r.Hurried) })
	stop()
	fmt.Println("end:", err)
	return 7
}

// daemon is the test binary in one of its roles.
type daemon struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, role string) *daemon {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The end of the test's time ends the daemon too, and so every wait for it.
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &daemon{t, cmd, in, bufio.NewReader(out)}
	patience := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		patience.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	d.expect("ready")
	return d
}

func (d *daemon) expect(want string) {
	d.t.Helper()
	got, err := d.out.ReadString('\n')
	if got = strings.TrimSuffix(got, "\n"); got != want {
		d.t.Fatalf("the daemon says %q (%v), want %q", got, err, want)
	}
}

func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// wait returns how the daemon ended, as its parent sees it.
func (d *daemon) wait() syscall.WaitStatus {
	d.t.Helper()
	if rest, err := io.ReadAll(d.out); err != nil || len(rest) > 0 {
		d.t.Errorf("the daemon also says %q (%v)", rest, err)
	}
	_ = d.cmd.Wait()
	return d.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func TestSignals_drainThenHurryThenDeath(t *testing.T) {
	for _, c := range []struct {
		signals [3]syscall.Signal
		names   [2]string
	}{
		{[3]syscall.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGTERM}, [2]string{"SIGTERM", "SIGTERM"}},
		{[3]syscall.Signal{syscall.SIGINT, syscall.SIGINT, syscall.SIGINT}, [2]string{"SIGINT", "SIGINT"}},
		{[3]syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGTERM}, [2]string{"SIGTERM", "SIGINT"}},
		{[3]syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGINT}, [2]string{"SIGINT", "SIGTERM"}},
	} {
		t.Run(fmt.Sprint(c.signals), func(t *testing.T) {
			d := start(t, "signals")
			d.signal(c.signals[0])
			d.expect("drain: received " + c.names[0])
			d.signal(c.signals[1])
			d.expect("hurry: received " + c.names[1])
			d.signal(c.signals[2])
			if status := d.wait(); !status.Signaled() || status.Signal() != c.signals[2] {
				t.Errorf("ended with %v (exit %d), want death by %v", status, status.ExitStatus(), c.signals[2])
			}
		})
	}
}

func TestSignals_aSignalDuringAPhaseIsNotLost(t *testing.T) {
	d := start(t, "phases")
	d.signal(syscall.SIGTERM)
	d.expect("busy")
	d.signal(syscall.SIGTERM) // while a phase runs that hurry does not touch
	d.expect("hurry")
	if _, err := io.WriteString(d.in, "go on\n"); err != nil {
		t.Fatal(err)
	}
	d.expect("busy <nil> false")
	d.expect("draining")
	d.expect("drain <nil> true")
	d.expect("flush <nil> false")
	d.expect("end: <nil>")
	if status := d.wait(); status.ExitStatus() != 7 {
		t.Errorf("ended with %v, want its own exit code", status)
	}
}

func TestSignals_thirdSignalKillsAPhaseThatHangs(t *testing.T) {
	d := start(t, "phases")
	d.signal(syscall.SIGTERM)
	d.expect("busy")
	d.signal(syscall.SIGINT)
	d.expect("hurry")
	d.signal(syscall.SIGTERM)
	if status := d.wait(); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want death by SIGTERM", status)
	}
}

func TestSignals_afterStopASignalDoesWhatItDoesByDefault(t *testing.T) {
	d := start(t, "stopped")
	d.signal(syscall.SIGTERM)
	if status := d.wait(); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want death by SIGTERM", status)
	}
}

func TestSignals_stopMayBeCalledByAllAndMoreThanOnce(t *testing.T) {
	drain, hurry, stop := shutdown.Signals(t.Context())
	if drain.Err() != nil || hurry.Err() != nil {
		t.Error("ended without a signal")
	}
	var callers sync.WaitGroup
	for range 10 {
		callers.Go(stop)
	}
	callers.Wait()
	if drain.Err() == nil || hurry.Err() == nil {
		t.Error("stop leaves a context behind")
	}
	goleak.VerifyNone(t, goleak.IgnoreCurrent())
}

func TestSignals_endOfTheParentDrainsAndDoesNotHurry(t *testing.T) {
	errDone := errors.New("all work is done")
	type key struct{}
	ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
	drain, hurry, stop := shutdown.Signals(ctx)
	defer stop()
	cancel(errDone)
	if !errors.Is(context.Cause(drain), errDone) || hurry.Err() != nil {
		t.Errorf("drain ended with %v, hurry with %v", context.Cause(drain), hurry.Err())
	}
	if hurry.Value(key{}) != "value" {
		t.Error("hurry has lost its values")
	}
}

func TestSignalError_canBeAskedFor(t *testing.T) {
	err := fmt.Errorf("drain: %w", shutdown.SignalError{Signal: syscall.SIGINT})
	if got, ok := errors.AsType[shutdown.SignalError](err); !ok || got.Signal != syscall.SIGINT {
		t.Errorf("got %v", got)
	}
	for want, s := range map[string]syscall.Signal{"received SIGTERM": syscall.SIGTERM, "received SIGINT": syscall.SIGINT, "received signal 1": syscall.SIGHUP} {
		if got := (shutdown.SignalError{Signal: s}).Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
