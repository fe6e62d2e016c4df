package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

// roleHog makes the harness a process that takes memory and keeps it.
const roleHog = "hog"

const groups = "/sys/fs/cgroup"

// group is a control group of version 1 or 2.
type group struct {
	dir   string
	first bool // version 1
}

// newGroup makes one that has the controller, cpu or memory.
func newGroup(controller, name string) (*group, error) {
	g := &group{dir: filepath.Join(groups, controller, name), first: true}
	if _, err := os.Stat(filepath.Join(groups, "cgroup.controllers")); err == nil {
		g = &group{dir: filepath.Join(groups, name)}
		if err := os.WriteFile(filepath.Join(groups, "cgroup.subtree_control"), []byte("+"+controller), 0o600); err != nil {
			return nil, fmt.Errorf("control group for %s: %w", controller, err)
		}
	}
	if err := os.Mkdir(g.dir, 0o750); err != nil {
		return nil, fmt.Errorf("control group for %s: %w", controller, err)
	}
	return g, nil
}

func (g *group) close() { _ = os.Remove(g.dir) }

// wrap is the command that runs another one in the group.
func (g *group) wrap() []string {
	return []string{"sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, g.dir}
}

func (g *group) set(file, value string) error {
	return os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0o600)
}

// quotaPeriod is in which time a group gets its share.
const quotaPeriod = 100 * time.Millisecond

// quota gives the group so many percent of one core; 0 is all there is.
func (g *group) quota(percent int) error {
	const period = int(quotaPeriod / time.Microsecond)
	switch quota := strconv.Itoa(percent * period / 100); {
	case g.first && percent == 0:
		return g.set("cpu.cfs_quota_us", "-1")
	case g.first:
		return errors.Join(g.set("cpu.cfs_period_us", strconv.Itoa(period)), g.set("cpu.cfs_quota_us", quota))
	case percent == 0:
		return g.set("cpu.max", "max "+strconv.Itoa(period))
	default:
		return g.set("cpu.max", quota+" "+strconv.Itoa(period))
	}
}

// limit bounds the memory of the group.
func (g *group) limit(size int) error {
	if g.first {
		return g.set("memory.limit_in_bytes", strconv.Itoa(size))
	}
	_ = g.set("memory.swap.max", "0") // not there without swap
	return g.set("memory.max", strconv.Itoa(size))
}

// kills is how many processes the kernel has killed in the group for memory.
func (g *group) kills() int {
	file := "memory.events"
	if g.first {
		file = "memory.oom_control"
	}
	return g.count(file, "oom_kill")
}

// throttled is for how many periods the group had less CPU than it wanted.
func (g *group) throttled() int { return g.count("cpu.stat", "nr_throttled") }

func (g *group) count(file, what string) int {
	text, _ := os.ReadFile(filepath.Join(g.dir, file))
	for line := range bytes.Lines(text) {
		var n int
		if _, err := fmt.Sscanf(string(line), what+" %d", &n); err == nil {
			return n
		}
	}
	return 0
}

// needsGroup says why there cannot be control groups on this machine.
func needsGroup(controller string) func() error {
	return func() error {
		if os.Geteuid() != 0 {
			return errors.New("control groups need root")
		}
		g, err := newGroup(controller, fmt.Sprintf("chaos-probe-%d", os.Getpid()))
		if err != nil {
			return err
		}
		defer g.close()
		if controller == "cpu" {
			return g.quota(50)
		}
		return g.limit(memoryLimit)
	}
}

// grouped puts each replica into a group of its own.
func grouped(controller string) func(context.Context, *world) error {
	return func(_ context.Context, w *world) error {
		for _, k := range w.workers {
			g, err := newGroup(controller, fmt.Sprintf("chaos-%d-%s", os.Getpid(), k.name))
			if err != nil {
				return err
			}
			w.undo = append(w.undo, g.close)
			k.group, k.wrap = g, g.wrap()
			if controller == "memory" {
				if err := g.limit(memoryLimit); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// meagre and scarce are shares of a core, in percent, both less than a replica
// wants under the load. The one is enough for signs of life, however long it
// lasts; with the other no lease is sure.
const (
	meagre = 5
	scarce = 1
)

// starve takes CPU from replicas, in turn: nearly all for less than half a
// lease, most for longer than one, and nearly all for longer than one. Only the
// last explains anything. Long jobs outlast a lease.
func starve(ctx context.Context, w *world) error {
	var hungry, fed atomic.Int64
	err := w.each(ctx, func(ctx context.Context, k *worker, r *rand.Rand) error {
		for n := r.IntN(3); pause(ctx, between(r, 300*time.Millisecond, 2*time.Second)); n++ {
			s := starving{scarce, between(r, w.ackWait, 2*w.ackWait), "for longer than a lease"}
			switch n % 3 {
			case 0:
				s.takes, s.how = between(r, w.ackWait/8, w.ackWait*3/8), "for part of a lease"
			case 1:
				s.percent = meagre
			}
			missed, err := w.starve(ctx, k, s)
			if err != nil {
				return err
			}
			if hungry.Add(1); missed < 0.25 {
				fed.Add(1)
			}
		}
		return nil
	})
	if fed.Load() > hungry.Load()/2 {
		w.problem("%d of %d times a replica had the CPU that it wanted: the load is too small", fed.Load(), hungry.Load())
	}
	return err
}

// starving is a share of a core for a while.
type starving struct {
	percent int
	takes   time.Duration
	how     string
}

// starve returns in which part of the time the replica wanted more.
func (w *world) starve(ctx context.Context, k *worker, s starving) (missed float64, err error) {
	before := k.group.throttled()
	f := fault{Kind: fmt.Sprintf("workerd with %d %% of a core %s", s.percent, s.how), Whom: k.replica(), Began: w.clock()}
	if err := k.group.quota(s.percent); err != nil {
		return 0, err
	}
	late := watchDelay()
	pause(ctx, s.takes)
	stalled := late()
	if err := k.group.quota(0); err != nil {
		return 0, err
	}
	if f.Ended = w.clock(); s.percent == scarce {
		w.lapsed(&f)
	}
	if stalled > w.ackWait/8 { // the replica has had less than we gave it
		f.Kind += ", the machine late as well"
		f.lapses()
	}
	n := k.group.throttled() - before
	if n > 0 {
		w.did(f)
	}
	missed = float64(n) * quotaPeriod.Seconds() / (f.Ended - f.Began).Seconds()
	w.event("starved", f.Whom, fmt.Sprintf("%.2f of the time", missed))
	return missed, nil
}

// memoryLimit of a replica, most of which the hog takes.
const (
	memoryLimit = 192 << 20
	hogs        = memoryLimit - 2<<20 // less is left than any workerd needs
)

// outOfMemory has the kernel kill replicas: something takes their memory, and
// they are the ones to go.
func outOfMemory(ctx context.Context, w *world) error {
	return w.each(ctx, func(ctx context.Context, k *worker, r *rand.Rand) error {
		for pause(ctx, between(r, 300*time.Millisecond, 4*time.Second)) {
			if err := w.exhaust(ctx, k); err != nil {
				return err
			}
			if err := k.start(); err != nil {
				return err
			}
			if k.ready(ctx, 20*time.Second) != nil {
				return ctx.Err()
			}
		}
		return nil
	})
}

func (w *world) exhaust(ctx context.Context, k *worker) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	replica, before, began := k.replica(), k.group.kills(), w.clock()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", k.pid()), []byte("1000"), 0o600); err != nil {
		return err
	}
	line := append(k.group.wrap(), self, roleHog, strconv.Itoa(hogs))
	hog := exec.CommandContext(context.WithoutCancel(ctx), line[0], line[1:]...)
	hog.SysProcAttr, hog.Stderr = ownGroup(), os.Stderr
	hold, err := hog.StdinPipe()
	if err != nil {
		return err
	}
	defer hold.Close()
	if err := hog.Start(); err != nil {
		return err
	}
	_, err = k.wait(context.WithoutCancel(ctx), 20*time.Second)
	_ = hog.Process.Kill()
	_ = hog.Wait()
	if err != nil {
		return fmt.Errorf("out of memory: %w", err)
	}
	if k.group.kills() == before {
		return fmt.Errorf("%s ended by itself, and was not killed for its memory", replica)
	}
	// It worked on until the kernel chose it.
	w.did(fault{Kind: "workerd OOM kill", Whom: replica, Began: began, Ended: w.clock(), Excuses: []string{replica}, Before: ackOnItsWay})
	return nil
}

// hog takes so many bytes and waits for its end.
func hog(size string) error {
	n, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	b := make([]byte, n)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	_, err = io.Copy(io.Discard, os.Stdin) // until the harness is gone
	runtime.KeepAlive(b)
	return err
}
