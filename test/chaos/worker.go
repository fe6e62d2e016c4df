package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// worker is one place for a workerd, which is started again and again.
type worker struct {
	name   string
	dir    string
	binary string
	wrap   []string // command that runs it
	render func(w *worker, replica string) string
	admin  int
	up     *link // to the broker; nil: none between
	down   *link // to the downstream
	group  *group

	mu    sync.Mutex
	gen   int
	cmd   *exec.Cmd
	ended chan struct{}
	code  int
}

// replica names one start of the process, as w2.7.
func (w *worker) replica() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%s.%d", w.name, w.gen)
}

// start runs workerd and returns at once.
func (w *worker) start() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gen++
	replica := fmt.Sprintf("%s.%d", w.name, w.gen)
	file := filepath.Join(w.dir, w.name+".yaml")
	if err := os.WriteFile(file, []byte(w.render(w, replica)), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(w.dir, w.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "== %s\n", replica)
	line := append(append([]string(nil), w.wrap...), w.binary, "run", file)
	cmd := exec.CommandContext(context.Background(), line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, ownGroup()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	w.cmd, w.ended = cmd, ended
	go func() {
		_ = cmd.Wait()
		w.mu.Lock()
		w.code = cmd.ProcessState.ExitCode()
		w.mu.Unlock()
		close(ended)
	}()
	return nil
}

func (w *worker) signal(sig syscall.Signal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cmd.Process.Signal(sig)
}

func (w *worker) pid() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cmd.Process.Pid
}

// running tells whether the process is there.
func (w *worker) running() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cmd == nil {
		return false
	}
	select {
	case <-w.ended:
		return false
	default:
		return true
	}
}

// wait returns the exit code, or an error if the process does not end in time.
func (w *worker) wait(ctx context.Context, limit time.Duration) (int, error) {
	w.mu.Lock()
	ended := w.ended
	w.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ended:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-timer.C:
		return 0, fmt.Errorf("%s does not end within %s", w.replica(), limit)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.code, nil
}

// ready waits until workerd says that it is.
func (w *worker) ready(ctx context.Context, limit time.Duration) error {
	return until(ctx, limit, w.replica()+" is ready", func() bool { return w.isReady(ctx) || !w.running() })
}

func (w *worker) isReady(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/readyz", w.admin), nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// end kills the process if it is there.
func (w *worker) end() {
	if !w.running() {
		return
	}
	_ = w.signal(syscall.SIGKILL)
	w.mu.Lock()
	ended := w.ended
	w.mu.Unlock()
	<-ended
}

// until polls, as what happens in other processes sends no event.
func until(ctx context.Context, limit time.Duration, what string, ok func() bool) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline.C:
			return fmt.Errorf("%s: not within %s", what, limit)
		}
	}
	return nil
}
