package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName = "JOBS"
	subject    = "jobs.a"
	payload    = 1024

	// interrupted is workerd's exit code when calls had to be ended, which
	// those to a target that hangs have to.
	interrupted = 75
)

// bench holds what all measurements share.
type bench struct {
	dir, binary      string
	natsURL, downURL string
	broker, down     *exec.Cmd
	nc               *nats.Conn
	js               jetstream.JetStream
}

func newBench(ctx context.Context, dir, binary string) (*bench, error) {
	b := &bench{dir: dir, binary: binary}
	var err error
	if b.broker, b.natsURL, err = b.role(ctx, roleBroker, filepath.Join(dir, "broker")); err != nil {
		return nil, err
	}
	var address string
	if b.down, address, err = b.role(ctx, roleDownstream); err != nil {
		return nil, err
	}
	b.downURL = "http://" + address
	if b.nc, err = nats.Connect(b.natsURL); err != nil {
		return nil, err
	}
	b.js, err = jetstream.New(b.nc)
	return b, err
}

func (b *bench) close() {
	b.nc.Close()
	for _, cmd := range []*exec.Cmd{b.down, b.broker} {
		_ = cmd.Process.Signal(syscall.SIGTERM) // gone already, if it fails
		_ = cmd.Wait()
	}
}

// role starts this program in another role and returns its first line.
func (b *bench) role(ctx context.Context, args ...string) (*exec.Cmd, string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, "", fmt.Errorf("%s did not start: %w", args[0], err)
	}
	return cmd, strings.TrimSpace(line), nil
}

// fill makes a fresh stream with that many jobs, and tells the downstream.
func (b *bench) fill(ctx context.Context, jobs int) error {
	if err := b.js.DeleteStream(ctx, streamName); err != nil && !strings.Contains(err.Error(), "not found") {
		return err
	}
	_, err := b.js.CreateStream(ctx, jetstream.StreamConfig{Name: streamName, Subjects: []string{"jobs.>"}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage})
	if err != nil {
		return err
	}
	body := bytes.Repeat([]byte("x"), payload)
	for i := range jobs {
		if _, err := b.js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: body}, jetstream.WithMsgID(fmt.Sprintf("job-%d", i))); err != nil {
			return err
		}
	}
	select {
	case <-b.js.PublishAsyncComplete():
	case <-ctx.Done():
		return ctx.Err()
	}
	return b.ask(ctx, http.MethodPost, fmt.Sprintf("/expect/%d", jobs), nil)
}

// ask calls the downstream and decodes its answer.
func (b *bench) ask(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, b.downURL+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// measurement of one side in one round.
type measurement struct {
	perSecond float64
	cpu       time.Duration // per job
	peak      int64         // resident memory in bytes
}

// measure fills the stream, runs a command until all jobs are done, and ends
// it. The command must leave nothing undone and do nothing twice.
func (b *bench) measure(ctx context.Context, jobs int, cmd *exec.Cmd) (measurement, error) {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return measurement{}, err
	}
	var seen books
	err := b.ask(ctx, http.MethodGet, "/books", &seen)
	_ = cmd.Process.Signal(syscall.SIGTERM) // Wait tells how it ended
	if end := cmd.Wait(); err == nil && end != nil && cmd.ProcessState.ExitCode() != interrupted {
		err = fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), end, said.String())
	}
	switch {
	case err != nil:
		return measurement{}, err
	case seen.Done != jobs || seen.Twice > 0:
		return measurement{}, fmt.Errorf("%s did %d of %d jobs, %d of them twice\n%s", filepath.Base(cmd.Path), seen.Done, jobs, seen.Twice, said.String())
	}
	s := cmd.ProcessState
	return measurement{
		perSecond: float64(jobs) / seen.Took.Seconds(),
		cpu:       (s.UserTime() + s.SystemTime()) / time.Duration(jobs),
		peak:      s.SysUsage().(*syscall.Rusage).Maxrss << 10,
	}, nil
}

// loop is the hand-written rival as a command.
func (b *bench) loop(ctx context.Context, path string, concurrency int, confirm bool) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, exe, roleLoop, "-nats", b.natsURL, "-url", b.downURL+path,
		fmt.Sprintf("-c=%d", concurrency), fmt.Sprintf("-confirm=%t", confirm)), nil
}

// workerd returns `workerd run` with one pool for the path, and further pools
// as given.
func (b *bench) workerd(ctx context.Context, path string, concurrency int, more ...string) (*exec.Cmd, error) {
	var targets, pools strings.Builder
	add := func(name, path, subject string) {
		fmt.Fprintf(&targets, "  %s: {http: {url: %q}}\n", name, b.downURL+path)
		fmt.Fprintf(&pools, "  %s: {target: %s, stream: JOBS, subjects: {normal: [%s]}, concurrency: %d}\n", name, name, subject, concurrency)
	}
	add("main", path, subject)
	for _, name := range more {
		add(name, "/"+name, "jobs."+name)
	}
	file := filepath.Join(b.dir, "workerd.yaml")
	text := fmt.Sprintf("nats: {url: %q}\ntargets:\n%spools:\n%sadmin: {listen: \"127.0.0.1:0\"}\nlog: {level: warn}\ndrain: {timeout: 2s}\n", b.natsURL, targets.String(), pools.String())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, b.binary, "run", file), nil
}
