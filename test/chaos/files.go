package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// roleFront makes the harness a process in front of the downstream.
const roleFront = "front"

// fewest descriptors: a Go program has more when it has begun, so that it gets
// no new ones.
const fewest = 3

// needsPrlimit says why limits of running processes cannot be changed here.
func needsPrlimit() error {
	if _, err := exec.LookPath("prlimit"); err != nil {
		return fmt.Errorf("limits of other processes need the command prlimit: %w", err)
	}
	return nil
}

// descriptors bounds the descriptors that a process may open from now on;
// 0 is as many as it may have at all.
func descriptors(pid, n int) error {
	soft := strconv.Itoa(n)
	if n == 0 {
		out, err := exec.CommandContext(context.Background(), "prlimit", "--pid", strconv.Itoa(pid), "--nofile", "--noheadings", "--raw", "--output", "HARD").Output()
		if err != nil {
			return fmt.Errorf("prlimit: %w", err)
		}
		soft = strings.TrimSpace(string(out))
	}
	out, err := exec.CommandContext(context.Background(), "prlimit", "--pid", strconv.Itoa(pid), "--nofile="+soft+":").CombinedOutput()
	if err != nil {
		return fmt.Errorf("prlimit: %w: %s", err, out)
	}
	return nil
}

// serveFront passes connections on to the downstream until the harness is gone.
func serveFront(target string) error {
	k, err := newLink(target)
	if err != nil {
		return err
	}
	defer k.close()
	fmt.Println(k.addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// behindFront puts a process between the links of the replicas and the
// downstream.
func behindFront(_ context.Context, w *world) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	front := exec.CommandContext(context.Background(), self, roleFront, w.down.addr)
	front.SysProcAttr = ownGroup()
	in, err := front.StdinPipe()
	if err != nil {
		return err
	}
	out, err := front.StdoutPipe()
	if err != nil {
		return err
	}
	if err := front.Start(); err != nil {
		return err
	}
	w.undo = append(w.undo, func() { _ = in.Close(); _ = front.Wait() })
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the front did not start: %w", err)
	}
	w.front = front.Process.Pid
	for _, k := range w.workers {
		k.down.aim(strings.TrimSpace(addr))
	}
	return nil
}

// fileStorm takes the descriptors of replicas, and of what is in front of the
// downstream, and cuts their connections meanwhile, so that new ones are needed.
func fileStorm(ctx context.Context, w *world) error {
	return w.each(ctx, func(ctx context.Context, k *worker, r *rand.Rand) error {
		for pause(ctx, between(r, 500*time.Millisecond, 3*time.Second)) {
			if k == w.workers[0] && r.IntN(2) == 0 {
				if err := w.crowdFront(ctx, r); err != nil {
					return err
				}
				continue
			}
			f := fault{Kind: "workerd without descriptors", Whom: k.replica(), Began: w.clock(), Excuses: []string{k.replica()}, Before: answerOnItsWay}
			pid := k.pid()
			if err := descriptors(pid, fewest); err != nil {
				return err
			}
			for range 1 + r.IntN(4) {
				k.down.reset()
				if r.IntN(2) == 0 {
					k.up.reset()
				}
				pause(ctx, between(r, 200*time.Millisecond, time.Second))
			}
			if err := descriptors(pid, 0); err != nil {
				return err
			}
			w.lapsed(&f)
			f.Ended += answerOnItsWay
			w.did(f)
		}
		return nil
	})
}

// crowdFront lets the downstream take no new connections. What waits for it
// gets through when it does again, its caller gone perhaps.
func (w *world) crowdFront(ctx context.Context, r *rand.Rand) error {
	f := fault{Kind: "downstream without descriptors", Whom: "front", Began: w.clock(), Excuses: []string{"*"}, Before: answerOnItsWay, Holds: true}
	err := descriptors(w.front, fewest)
	for _, k := range w.workers {
		k.down.reset()
	}
	pause(ctx, between(r, 500*time.Millisecond, 4*time.Second))
	err = errors.Join(err, descriptors(w.front, 0))
	f.Ended = w.clock() + answerOnItsWay
	w.did(f)
	return err
}
