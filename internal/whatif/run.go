package whatif

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Options of a run.
type Options struct {
	// Command starts this program as a child that calls [Serve] with its
	// standard input and file 3.
	Command func(ctx context.Context) *exec.Cmd
	// Limit of real time for each test.
	Limit time.Duration
}

// grace is what a child gets beyond its limit to say that it is over.
const grace = 10 * time.Second

// Run carries out the i-th test of a suite in a process of its own. An error of
// the test itself is in the result; the one returned is ours: the child could
// not be started, or has crashed.
func Run(ctx context.Context, s *Suite, i int, opts Options) (Result, error) {
	began := time.Now()
	dir, err := os.MkdirTemp("", "workerd-test-")
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	told, err := json.Marshal(order{Source: s.Source, Test: i, Dir: dir, Limit: opts.Limit})
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, opts.Limit+grace)
	defer cancel()
	answer, err := converse(opts.Command(ctx), told)
	r := answer.Result
	r.Name, r.Real = s.Tests[i].Name, time.Since(began)
	if r.Error = answer.Error; r.Error != "" {
		r.OK = false
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("test %q: no result within %s of real time, and it does not stop", r.Name, opts.Limit+grace)
	}
	return r, err
}

// converse runs a child and returns its reply.
func converse(cmd *exec.Cmd, told []byte) (reply, error) {
	var stderr tail
	read, write, err := os.Pipe()
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = read.Close() }()
	cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = bytes.NewReader(told), &stderr, []*os.File{write}
	if err := cmd.Start(); err != nil {
		_ = write.Close()
		return reply{}, err
	}
	_ = write.Close() // the child's end is the only one now
	text, readErr := io.ReadAll(read)
	waitErr := cmd.Wait()
	var r reply
	if err := json.Unmarshal(text, &r); err != nil {
		return reply{}, fmt.Errorf("the process that runs the test ended without a result (%w)%s", errors.Join(waitErr, readErr), stderr.quote())
	}
	return r, nil
}

// tail keeps the end of what is written to it.
type tail struct{ text []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	const most = 8 << 10
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-most):]
	return len(p), nil
}

func (t *tail) quote() string {
	text := strings.TrimSpace(string(t.text))
	if text == "" {
		return ""
	}
	return ":\n" + text
}
