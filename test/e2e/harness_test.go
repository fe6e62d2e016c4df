package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/broker"
	"github.com/workerd/workerd/internal/natstest"
)

// brokerRole makes the test binary a NATS server, so that one can be killed.
const brokerRole = "WORKERD_E2E_BROKER"

var binary string // set once by TestMain, before any test

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if dir := os.Getenv(brokerRole); dir != "" {
		return serveBroker(dir, os.Getenv("WORKERD_E2E_PORT"))
	}
	dir, err := os.MkdirTemp("", "workerd-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "workerd")
	build := exec.Command("go", "build", raceFlag, "-o", binary, "../../cmd/workerd")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build workerd: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	// Package-level workers of the embedded broker, started once for good.
	if err := goleak.Find(goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.init.0.func1")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func serveBroker(dir, port string) int {
	var n int
	if _, err := fmt.Sscan(port, &n); err != nil {
		fmt.Println("bad port:", err)
		return 1
	}
	s, err := broker.Start(broker.Config{Port: n, StoreDir: dir, Lazy: true, Access: admitted(dir)})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready", s.Port())
	serveUntilEOF(s, dir, os.Stdin)
	s.Shutdown()
	return 0
}

// natsProcess is a NATS server in a process of its own.
type natsProcess struct {
	t    *testing.T
	dir  string
	port int
	cmd  *exec.Cmd
	hold io.WriteCloser
	out  *bufio.Reader
}

func startNATS(t *testing.T) *natsProcess {
	t.Helper()
	n := &natsProcess{t: t, dir: t.TempDir(), port: -1}
	n.start()
	t.Cleanup(n.kill)
	return n
}

func (n *natsProcess) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.port) }

func (n *natsProcess) start() {
	n.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), brokerRole+"="+n.dir, fmt.Sprintf("WORKERD_E2E_PORT=%d", n.port))
	in, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.out = bufio.NewReader(out)
	line, _ := n.out.ReadString('\n')
	if _, err := fmt.Sscanf(line, "ready %d", &n.port); err != nil {
		n.t.Fatalf("broker did not start: %q", line)
	}
	n.cmd, n.hold = cmd, in
	running.Store(strconv.Itoa(n.port), n)
}

// kill ends the broker as a crash does.
func (n *natsProcess) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
	_ = n.hold.Close()
	n.cmd = nil
}

// worker is a running workerd.
type worker struct {
	t      *testing.T
	cmd    *exec.Cmd
	admin  string
	stderr *lockedBuffer
	done   chan struct{}
	code   int
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := natstest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// startWorker runs `workerd run` with the given configuration, to which the
// admin listener is added, and waits until it is ready.
func startWorker(t *testing.T, config string) *worker {
	t.Helper()
	w := launch(t, config)
	w.awaitReady()
	return w
}

func launch(t *testing.T, config string) *worker {
	t.Helper()
	return spawnBinary(t, binary, config)
}

// spawnBinary runs the given workerd, by the command in front of it if there
// is one.
func spawnBinary(t *testing.T, path, config string, front ...string) *worker {
	t.Helper()
	admin := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	file := filepath.Join(t.TempDir(), "workerd.yaml")
	config += fmt.Sprintf("\nadmin: {listen: %q}\nlog: {format: json, job: retry}\n", admin)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if least() {
		restrict(t, file, config)
	}
	return spawn(t, admin, append(front, path, "run", file)...)
}

// spawn runs a command that is a workerd with its admin listener at admin.
func spawn(t *testing.T, admin string, command ...string) *worker {
	t.Helper()
	w := &worker{t: t, admin: "http://" + admin, stderr: &lockedBuffer{}, done: make(chan struct{})}
	w.cmd = exec.Command(command[0], command[1:]...)
	w.cmd.Stderr, w.cmd.Stdout = w.stderr, w.stderr
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = w.cmd.Wait()
		w.code = w.cmd.ProcessState.ExitCode()
		close(w.done)
	}()
	t.Cleanup(func() {
		_ = w.cmd.Process.Kill()
		<-w.done
		if least() && strings.Contains(w.stderr.String(), "NATS does not permit") {
			t.Error("workerd lacked a permission that nats-permissions does not print")
		}
		if strings.Contains(w.stderr.String(), "DATA RACE") {
			t.Errorf("workerd has a data race:\n%s", w.stderr.String())
		}
		if t.Failed() {
			t.Logf("workerd said:\n%s", tail(w.stderr.String(), 60))
		}
	})
	return w
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (w *worker) awaitReady() {
	w.t.Helper()
	await(w.t, 20*time.Second, "workerd is ready", func() bool {
		select {
		case <-w.done:
			w.t.Fatalf("workerd ended with code %d before it was ready", w.code)
		default:
		}
		status, _ := w.get("/readyz")
		return status == http.StatusOK
	})
}

func (w *worker) get(path string) (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.admin+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// metric sums the samples of a metric whose labels contain all of the given.
func (w *worker) metric(name string, labels ...string) float64 {
	w.t.Helper()
	_, body := w.get("/metrics")
	sum := 0.0
	for line := range strings.SplitSeq(body, "\n") {
		series, value, ok := strings.Cut(line, " ")
		if !ok || series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		if v, match := 0.0, containsAll(series, labels); match {
			if _, err := fmt.Sscan(value, &v); err == nil {
				sum += v
			}
		}
	}
	return sum
}

func containsAll(s string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

func (w *worker) signal(sig syscall.Signal) {
	w.t.Helper()
	if err := w.cmd.Process.Signal(sig); err != nil {
		w.t.Fatal(err)
	}
}

// wait returns the exit code and how long the end took.
func (w *worker) wait(limit time.Duration) (int, time.Duration) {
	w.t.Helper()
	began := time.Now()
	select {
	case <-w.done:
	case <-time.After(limit):
		w.t.Fatalf("workerd did not end within %s", limit)
	}
	return w.code, time.Since(began)
}

// await polls until ok, as what happens in other processes sends no event.
func await(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}
