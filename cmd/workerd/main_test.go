package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/broker"
)

var update = flag.Bool("update", false, "rewrite the expected output in the scripts")

func TestMain(m *testing.M) {
	testscript.Main(withoutLeaks{m}, map[string]func(){"workerd": main})
}

// withoutLeaks runs the tests and then looks for goroutines they left.
type withoutLeaks struct{ m *testing.M }

func (w withoutLeaks) Run() int {
	code := w.m.Run()
	// Package-level workers of the embedded broker, started once for good.
	broker := goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.init.0.func1")
	if err := goleak.Find(broker); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestScripts runs the program as a user would, one process for each command.
// Beside what testscript knows, scripts may say:
//
//	code N program args...   runs it and expects that exit code
//	broker                   starts a NATS server, its URL in $NATS_URL
//	silent NAME              listens; its address in $NAME, connections fail the script
//	freeport NAME            an address nobody listens on, in $NAME
//	start NAME args...       runs workerd until it is stopped
//	await NAME PATH TEXT     waits until its $ADMIN answers PATH with TEXT
//	says NAME TEXT           waits until it has written TEXT
//	end NAME SIGNAL  CODE    sends TERM or INT and expects the exit code
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("NO_COLOR", "1")
			e.Values[daemons{}] = map[string]*process{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code, "broker": startBroker, "silent": silent, "freeport": freePort,
			"start": startDaemon, "await": await, "says": says, "end": end,
		},
	})
}

func code(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func startBroker(ts *testscript.TestScript, _ bool, _ []string) {
	s, err := broker.Start(broker.Config{Port: -1, StoreDir: ts.MkAbs("broker"), Lazy: true})
	ts.Check(err)
	ts.Defer(s.Shutdown)
	ts.Setenv("NATS_URL", s.URL())
}

func silent(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], l.Addr().String())
	var visits atomic.Int32
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			visits.Add(1)
			_ = c.Close()
		}
	})
	ts.Defer(func() {
		_ = l.Close()
		accepting.Wait()
		if n := visits.Load(); n > 0 {
			ts.Fatalf("%d connections were made to %s", n, args[0])
		}
	})
}

func freePort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer l.Close()
	ts.Setenv(args[0], l.Addr().String())
}

// daemons is the key of a script's running programs.
type daemons struct{}

// process is a workerd that runs beside the script.
type process struct {
	cmd  *exec.Cmd
	out  string // file with all it has written
	done chan struct{}
}

func startDaemon(ts *testscript.TestScript, _ bool, args []string) {
	exe, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), ":")[0], "workerd"))
	ts.Check(err)
	out, err := os.Create(ts.MkAbs(args[0] + ".out"))
	ts.Check(err)
	p := &process{cmd: exec.Command(exe, args[1:]...), out: out.Name(), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = ts.MkAbs("."), out, out
	for _, name := range []string{"NATS_URL", "ADMIN", "DOWNSTREAM", "NO_COLOR", "HOME", "PATH", "WORKERD_DEV_ADMIN", "WORKERD_DEV_NATS", "WORKERD_DEV_DOWNSTREAM"} {
		if v := ts.Getenv(name); v != "" {
			p.cmd.Env = append(p.cmd.Env, name+"="+v)
		}
	}
	ts.Check(p.cmd.Start())
	var waiting sync.WaitGroup
	waiting.Go(func() { _ = p.cmd.Wait(); close(p.done) })
	ts.Value(daemons{}).(map[string]*process)[args[0]] = p
	ts.Defer(func() {
		_ = p.cmd.Process.Kill()
		waiting.Wait()
		_ = out.Close()
	})
}

func started(ts *testscript.TestScript, name string) *process {
	p, ok := ts.Value(daemons{}).(map[string]*process)[name]
	if !ok {
		ts.Fatalf("%s was not started", name)
	}
	return p
}

func await(ts *testscript.TestScript, _ bool, args []string) {
	p, path, want, last := started(ts, args[0]), args[1], args[2], ""
	until(ts, p, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		status, body, err := askAdmin(ctx, "http://"+ts.Getenv("ADMIN"), path)
		last = fmt.Sprintf("%d %v %s", status, err, body)
		return err == nil && status != http.StatusNotFound && strings.Contains(body, want)
	}, func() string { return fmt.Sprintf("%s does not answer %q: %s", path, want, last) })
}

func says(ts *testscript.TestScript, _ bool, args []string) {
	p, text := started(ts, args[0]), ""
	until(ts, p, func() bool {
		b, err := os.ReadFile(p.out)
		ts.Check(err)
		text = string(b)
		return strings.Contains(text, args[1])
	}, func() string { return fmt.Sprintf("%q was not said:\n%s", args[1], text) })
}

// until polls, as another process sends no events.
func until(ts *testscript.TestScript, p *process, ok func() bool, why func() string) {
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			ts.Fatalf("not within 20 s: %s", why())
		case <-p.done:
			if !ok() {
				ts.Fatalf("ended with %v: %s", p.cmd.ProcessState, why())
			}
		}
	}
}

func end(ts *testscript.TestScript, _ bool, args []string) {
	p := started(ts, args[0])
	ts.Check(p.cmd.Process.Signal(map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT}[args[1]]))
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		ts.Fatalf("%s did not end within 20 s", args[0])
	}
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != args[2] {
		text, _ := os.ReadFile(p.out)
		ts.Fatalf("exit code %s, want %s:\n%s", got, args[2], text)
	}
}
