package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	// subject of the jobs that are counted.
	subject = "jobs.main"
	// payload of a job in bytes.
	payload = 1024
)

// bench holds what all measurements share.
type bench struct {
	dir, binary      string
	natsURL, downURL string
	broker, down     *exec.Cmd
	nc               *nats.Conn
	js               jetstream.JetStream
}

// newBench starts the broker and the downstream. It leaves nothing behind if
// it fails.
func newBench(ctx context.Context, dir, binary string) (*bench, error) {
	b := &bench{dir: dir, binary: binary}
	if err := b.open(ctx); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) open(ctx context.Context) (err error) {
	if b.broker, b.natsURL, err = startRole(ctx, roleBroker, filepath.Join(b.dir, "broker")); err != nil {
		return err
	}
	var address string
	if b.down, address, err = startRole(ctx, roleDownstream); err != nil {
		return err
	}
	b.downURL = "http://" + address
	if b.nc, err = nats.Connect(b.natsURL); err != nil {
		return err
	}
	b.js, err = jetstream.New(b.nc)
	return err
}

func (b *bench) close() {
	if b.nc != nil {
		b.nc.Close()
	}
	for _, cmd := range []*exec.Cmd{b.down, b.broker} {
		if cmd != nil {
			_ = cmd.Process.Signal(syscall.SIGTERM) // gone already, if it fails
			_ = cmd.Wait()
		}
	}
}

// startRole starts this program in another role and returns the first line it
// prints. It runs until it gets a signal or ctx ends.
func startRole(ctx context.Context, args ...string) (*exec.Cmd, string, error) {
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
		_ = cmd.Process.Kill() // gone already, if it fails
		return nil, "", fmt.Errorf("%s did not start: %w", args[0], errors.Join(err, cmd.Wait()))
	}
	return cmd, strings.TrimSpace(line), nil
}

// fill makes a fresh stream with that many jobs, and tells the downstream.
func (b *bench) fill(ctx context.Context, jobs int) error {
	if err := b.js.DeleteStream(ctx, streamName); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	stream, err := b.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{"jobs.>"}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage,
	})
	if err != nil {
		return err
	}
	if err := b.publish(ctx, jobs); err != nil {
		return err
	}
	if left, err := remaining(ctx, stream); err != nil || left != jobs {
		return fmt.Errorf("%d of %d jobs are in the stream: %w", left, jobs, err)
	}
	return b.ask(ctx, fmt.Sprintf("/expect/%d", jobs), nil)
}

// publish sends the jobs. A broker that is slow to confirm is waited for.
func (b *bench) publish(ctx context.Context, jobs int) error {
	body := bytes.Repeat([]byte("x"), payload)
	for i := range jobs {
		m := &nats.Msg{Subject: subject, Data: body}
		if _, err := b.js.PublishMsgAsync(m, jetstream.WithMsgID(fmt.Sprintf("job-%d", i)), jetstream.WithStallWait(patience)); err != nil {
			return err
		}
	}
	select {
	case <-b.js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// addHanging publishes the jobs of the neighbor, which is all that is needed
// to keep its slots busy.
func (b *bench) addHanging(ctx context.Context) error {
	for range 5 * hangingSlots {
		if _, err := b.js.Publish(ctx, "jobs.hang", nil); err != nil {
			return err
		}
	}
	return nil
}

// remaining counts the jobs in the stream, handed out or not.
func remaining(ctx context.Context, stream jetstream.Stream) (int, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return 0, err
	}
	return int(info.State.Subjects[subject]), nil
}

// settled waits until no job is left in the stream: an ack that nobody waits
// for arrives a moment after the process that sent it has ended.
func (b *bench) settled(ctx context.Context) error {
	stream, err := b.js.Stream(ctx, streamName)
	if err != nil {
		return err
	}
	const polls = 50
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	left := 0
	for range polls {
		if left, err = remaining(ctx, stream); err != nil || left == 0 {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("%d jobs were done and are still in the stream", left)
}

// ask posts to the downstream and decodes its answer.
func (b *bench) ask(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.downURL+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
