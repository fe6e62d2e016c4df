package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// hangingSlots is the concurrency of the pool whose target hangs.
const hangingSlots = 20

// load is what a side is to do with each job.
type load struct {
	path        string // of the downstream
	concurrency int
}

// loop is the hand-written rival; confirm makes it wait for the broker's
// confirmation of each ack.
func (b *bench) loop(ctx context.Context, l load, confirm bool) func() (*exec.Cmd, error) {
	return func() (*exec.Cmd, error) {
		exe, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return exec.CommandContext(ctx, exe, roleLoop, "-nats", b.natsURL, "-url", b.downURL+l.path,
			fmt.Sprintf("-c=%d", l.concurrency), fmt.Sprintf("-confirm=%t", confirm)), nil
	}
}

// workerd is `workerd run` with one pool and, if wanted, another whose target
// hangs. Everything that is not needed has its default.
func (b *bench) workerd(ctx context.Context, l load, besideHanging bool) func() (*exec.Cmd, error) {
	return func() (*exec.Cmd, error) {
		file := filepath.Join(b.dir, "workerd.yaml")
		if err := os.WriteFile(file, []byte(b.config(l, besideHanging)), 0o600); err != nil {
			return nil, err
		}
		return exec.CommandContext(ctx, b.binary, "run", file), nil
	}
}

func (b *bench) config(l load, besideHanging bool) string {
	var targets, pools strings.Builder
	fmt.Fprintf(&targets, "  main: {http: {url: %q}}\n", b.downURL+l.path)
	fmt.Fprintf(&pools, "  main: {target: main, stream: %s, subjects: {normal: [%s]}, concurrency: %d}\n", streamName, subject, l.concurrency)
	if besideHanging {
		// No call ends by itself: the worst neighbor, as no breaker opens.
		fmt.Fprintf(&targets, "  hang: {http: {url: %q}, timeout: 5m}\n", b.downURL+"/hang")
		fmt.Fprintf(&pools, "  hang: {target: hang, stream: %s, subjects: {normal: [jobs.hang]}, concurrency: %d}\n", streamName, hangingSlots)
	}
	return fmt.Sprintf("nats: {url: %q}\ntargets:\n%spools:\n%s"+
		"admin: {listen: \"127.0.0.1:0\"}\nlog: {level: warn}\ndrain: {timeout: 2s}\n", b.natsURL, targets.String(), pools.String())
}
