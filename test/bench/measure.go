package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// side is one of those that take turns.
type side struct {
	// jobs in the stream before it starts.
	jobs int
	// command that does them, and ends at SIGTERM.
	command func() (*exec.Cmd, error)
	// hanging calls beside them; their jobs are published, too.
	hanging int
	// exit is the code it has to end with.
	exit int
}

// measurement of one turn.
type measurement struct {
	perSecond float64
	// middle is perSecond without the first and the last tenth of the jobs.
	middle float64
	// service is how long the downstream took for a call, on average.
	service time.Duration
	// pause is the longest time in which the downstream answered nothing.
	pause  time.Duration
	cpu    time.Duration // of the whole process
	broker time.Duration // the broker's CPU meanwhile; 0 if unknown
	peak   int64         // resident memory in bytes; 0 if unknown
	jobs   int
}

// interrupted is workerd's exit code when calls had to be ended, which those
// to a target that hangs have to.
const interrupted = 75

// longPause is worth a word: a median hides a stall in one of the rounds.
const longPause = time.Second

// turn fills a fresh stream and lets a side do it.
func (b *bench) turn(ctx context.Context, s side) (measurement, error) {
	if err := b.fill(ctx, s.jobs); err != nil {
		return measurement{}, fmt.Errorf("fill the stream: %w", err)
	}
	if s.hanging > 0 {
		if err := b.addHanging(ctx); err != nil {
			return measurement{}, fmt.Errorf("fill the stream: %w", err)
		}
	}
	cmd, err := s.command()
	if err != nil {
		return measurement{}, err
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	m, err := b.measure(ctx, s, cmd)
	if err != nil {
		return m, fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, said.String())
	}
	if m.pause > longPause {
		fmt.Fprintf(os.Stderr, "%s, %d jobs, %d calls hanging: no answer for %s\n%s",
			filepath.Base(cmd.Path), s.jobs, s.hanging, m.pause.Round(time.Millisecond), said.String())
	}
	return m, nil
}

// measure runs the command until the downstream has all jobs, ends it and
// verifies what it left.
func (b *bench) measure(ctx context.Context, s side, cmd *exec.Cmd) (measurement, error) {
	before := cpuOf(b.broker.Process.Pid)
	if err := cmd.Start(); err != nil {
		return measurement{}, err
	}
	// If the process ends first, nobody waits for the rest.
	waiting, ended := context.WithCancelCause(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		_ = cmd.Wait() // ProcessState tells how
		ended(errors.New("has ended by itself"))
	})
	var done, after books
	err := b.ask(waiting, "/done", &done)
	if cause := context.Cause(waiting); cause != nil {
		err = cause
	}
	peak := peakOf(cmd.Process.Pid)
	_ = cmd.Process.Signal(syscall.SIGTERM) // gone already, if it fails
	wait.Wait()
	if err != nil {
		return measurement{}, err
	}
	if err := b.ask(ctx, "/books", &after); err != nil {
		return measurement{}, err
	}
	if err := errors.Join(check(s, done, after), exited(s, cmd), b.settled(ctx)); err != nil {
		return measurement{}, err
	}
	m := done.measurement(s.jobs)
	m.peak = peak
	m.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	m.broker = cpuOf(b.broker.Process.Pid) - before
	return m, nil
}

func exited(s side, cmd *exec.Cmd) error {
	if code := cmd.ProcessState.ExitCode(); code != s.exit {
		return fmt.Errorf("ended with %s, not with exit code %d", cmd.ProcessState, s.exit)
	}
	return nil
}

// check looks for jobs missing, done twice or mutilated: done is the books
// when the last job was answered, after what they are after the process's end.
func check(s side, done, after books) error {
	switch {
	case done.Done != s.jobs:
		return fmt.Errorf("%d of %d jobs were done", done.Done, s.jobs)
	case after.Twice > 0 || after.Done != s.jobs:
		return fmt.Errorf("%d calls were repeated, and %d for jobs that do not exist", after.Twice, after.Done-s.jobs)
	case after.Wrong > 0:
		return fmt.Errorf("%d calls without the whole body", after.Wrong)
	case done.Hanging != s.hanging:
		return fmt.Errorf("%d calls were hanging when the others were done, not %d", done.Hanging, s.hanging)
	}
	return nil
}

// measurement as far as the books know.
func (b books) measurement(jobs int) measurement {
	m := measurement{jobs: jobs, service: b.Busy / time.Duration(max(1, jobs)), pause: b.Pause}
	if took := b.Last.Sub(b.First); took > 0 {
		m.perSecond = float64(jobs) / took.Seconds()
	}
	if middle := b.Ninetieth.Sub(b.Tenth); middle > 0 {
		m.middle = float64(jobs*9/10-jobs/10) / middle.Seconds()
	}
	return m
}
