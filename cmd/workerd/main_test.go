package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/broker"
	"github.com/workerd/workerd/internal/natstest"
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
//	broker [ADDRESS]         starts a NATS server, its URL in $NATS_URL
//	nobroker                 stops it again
//	locked                   starts one that wants the password "right" of user joe
//	silent NAME              listens; its address in $NAME, connections fail the script
//	receiver NAME            a target at $NAME (any, if that is not set) that answers 200
//	refuser NAME             a target at a new $NAME that answers 422, an error with the job's body
//	receives TEXT            waits until a job has come: subject "X-Tenant" "body"
//	binary FILE TEXT         writes a file, with escapes as in Go
//	fingerprint NAME         the first one that was just printed, in $NAME
//	letters N                makes stream JOBS and puts N more letters of its jobs into WORKERD_DLQ
//	killed N args...         runs workerd N times and kills it before long
//	underway N               waits until JOBS has at least N jobs
//	once N                   JOBS has N jobs, each of them once
//	taken NAME               listens and never answers; its address in $NAME
//	freeport NAME            an address nobody listens on, in $NAME
//	start NAME args...       runs workerd until it is stopped
//	deaf NAME args...        the same, but nobody reads what it writes
//	await NAME PATH TEXT     waits until its $ADMIN answers PATH with TEXT
//	says NAME TEXT           waits until it has written TEXT
//	signal NAME SIGNAL       sends TERM, INT or KILL
//	end NAME SIGNAL CODE     the same, and expects the exit code, -1 for a death by signal
//
// and, as a condition, root: the user may read and write everything.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("NO_COLOR", "1")
			e.Setenv("GORACE", "atexit_sleep_ms=0") // it waits for a second otherwise
			e.Values[daemons{}] = &running{processes: map[string]*process{}}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code, "broker": startBroker, "nobroker": stopBroker, "locked": startLocked, "silent": silent, "taken": taken, "receiver": receiver, "refuser": refuser, "receives": receives, "letters": letters, "killed": killed, "underway": underway, "once": once, "binary": binary, "fingerprint": fingerprint, "freeport": freePort,
			"start": startDaemon, "deaf": startDeaf, "await": await, "says": says, "signal": sendSignal, "end": end,
		},
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return os.Geteuid() == 0, nil
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

func startBroker(ts *testscript.TestScript, _ bool, args []string) {
	cfg := broker.Config{Port: -1, StoreDir: ts.MkAbs("broker"), Lazy: true}
	if len(args) == 1 {
		address, err := netip.ParseAddrPort(args[0])
		ts.Check(err)
		cfg.Port = int(address.Port())
	}
	s, err := broker.Start(cfg)
	ts.Check(err)
	stop := sync.OnceFunc(s.Shutdown)
	ts.Defer(stop)
	ts.Value(daemons{}).(*running).stopBroker = stop
	ts.Setenv("NATS_URL", s.URL())
}

func stopBroker(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Value(daemons{}).(*running).stopBroker()
}

func startLocked(ts *testscript.TestScript, _ bool, _ []string) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, Username: "joe", Password: "right", NoSigs: true, NoLog: true})
	ts.Check(err)
	s.Start()
	ts.Defer(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		ts.Fatalf("the server does not start")
	}
	ts.Setenv("NATS_URL", s.ClientURL())
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

func taken(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

func receiver(ts *testscript.TestScript, _ bool, args []string) {
	received := make(chan string, 100)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		received <- fmt.Sprintf("%s %q %q", r.Header.Get("Workerd-Subject"), r.Header.Get("X-Tenant"), body)
	}))
	if address := ts.Getenv(args[0]); address != "" {
		_ = s.Listener.Close() // a new one takes its place
		l, err := net.Listen("tcp", address)
		ts.Check(err)
		s.Listener = l
	}
	s.Start()
	ts.Defer(s.Close)
	ts.Value(daemons{}).(*running).received = received
	ts.Setenv(args[0], s.Listener.Addr().String())
}

func refuser(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = fmt.Fprintf(w, "unknown template '%s'", body)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.Listener.Addr().String())
}

func binary(ts *testscript.TestScript, _ bool, args []string) {
	text, err := strconv.Unquote("`" + args[1] + "`")
	if strings.Contains(args[1], `\`) {
		text, err = strconv.Unquote(`"` + args[1] + `"`)
	}
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

func fingerprint(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(`│ ([0-9a-f]{6}) +│`).FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("no fingerprint was printed")
	}
	ts.Setenv(args[0], m[1])
}

func receives(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for left := slices.Clone(args); len(left) > 0; { // jobs have no order
		select {
		case got := <-ts.Value(daemons{}).(*running).received:
			i := slices.Index(left, got)
			if i < 0 {
				ts.Fatalf("received %s", got)
			}
			left = slices.Delete(left, i, i+1)
		case <-deadline.C:
			ts.Fatalf("not received within 20 s: %s", left)
		}
	}
}

func freePort(ts *testscript.TestScript, _ bool, args []string) {
	port, err := natstest.FreePort()
	ts.Check(err)
	ts.Setenv(args[0], fmt.Sprintf("127.0.0.1:%d", port))
}

// daemons is the key of what a script has running.
type daemons struct{}

type running struct {
	processes  map[string]*process
	stopBroker func()
	received   chan string
}

// process is a workerd that runs beside the script.
type process struct {
	cmd  *exec.Cmd
	out  string // file with all it has written
	done chan struct{}
}

func startDaemon(ts *testscript.TestScript, _ bool, args []string) {
	out, err := os.Create(ts.MkAbs(args[0] + ".out"))
	ts.Check(err)
	defer out.Close() // the process has its own
	startWith(ts, out, args)
}

func startDeaf(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".out"), nil, 0o600))
	r, w, err := os.Pipe()
	ts.Check(err)
	defer w.Close()
	ts.Check(r.Close())
	startWith(ts, w, args)
}

// startWith runs args[1:] as the process called args[0].
func startWith(ts *testscript.TestScript, out *os.File, args []string) {
	exe, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), ":")[0], "workerd"))
	ts.Check(err)
	p := &process{cmd: exec.Command(exe, args[1:]...), out: ts.MkAbs(args[0] + ".out"), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = ts.MkAbs("."), out, out
	for _, name := range []string{
		"NATS_URL", "NATS", "ADMIN", "DOWNSTREAM", "TARGET", "TAKEN", "NO_COLOR", "HOME", "PATH", "GORACE",
		"WORKERD_DEV_ADMIN", "WORKERD_DEV_NATS", "WORKERD_DEV_DOWNSTREAM",
	} {
		if v := ts.Getenv(name); v != "" {
			p.cmd.Env = append(p.cmd.Env, name+"="+v)
		}
	}
	ts.Check(p.cmd.Start())
	var waiting sync.WaitGroup
	waiting.Go(func() { _ = p.cmd.Wait(); close(p.done) })
	ts.Value(daemons{}).(*running).processes[args[0]] = p
	ts.Defer(func() {
		_ = p.cmd.Process.Kill()
		waiting.Wait()
	})
}

func started(ts *testscript.TestScript, name string) *process {
	p, ok := ts.Value(daemons{}).(*running).processes[name]
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
		status, body, err := askAdmin(ctx, "http://"+ts.Getenv("ADMIN"), adminRequest{method: http.MethodGet, path: path})
		last = fmt.Sprintf("%d %v %s", status, err, body)
		return err == nil && status != http.StatusNotFound && strings.Contains(body, want)
	}, func() string {
		return fmt.Sprintf("%s does not answer %q: %s", path, want, last[:min(len(last), 1000)])
	})
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

func sendSignal(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
	ts.Check(started(ts, args[0]).cmd.Process.Signal(signals[args[1]]))
}

func end(ts *testscript.TestScript, neg bool, args []string) {
	sendSignal(ts, neg, args)
	p := started(ts, args[0])
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	select {
	case <-p.done:
	case <-deadline.C:
		ts.Fatalf("%s did not end within 20 s", args[0])
	}
	text, err := os.ReadFile(p.out)
	ts.Check(err)
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != args[2] {
		ts.Fatalf("exit code %s, want %s:\n%s", got, args[2], text)
	}
	if strings.Contains(string(text), "goroutine ") || strings.Contains(string(text), "DATA RACE") {
		ts.Fatalf("no way to end:\n%s", text)
	}
}
