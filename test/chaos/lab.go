package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// lab is a network for the nodes of a cluster: each in a network namespace of
// its own, all on one bridge, which the replicas and the harness reach too.
// Nothing outside of it is touched.
type lab struct {
	bridge string
	spaces []string
	net    string // first three bytes of each address; 198.18.0.0/15 is for tests (RFC 2544)
}

// nowhere is the hardware address of nobody: what is sent there is lost, as it
// is on a broken link, and the sender is not told.
const nowhere = "02:00:00:00:00:99"

// newLab needs root. What is made of it is undone by close, even after an error.
func newLab(nodes int) (*lab, error) {
	l := &lab{bridge: fmt.Sprintf("cb%d", os.Getpid()), net: fmt.Sprintf("198.18.%d", os.Getpid()%250)}
	if err := l.ip("link", "add", l.bridge, "type", "bridge"); err != nil {
		return l, err
	}
	if err := l.ip("addr", "add", l.net+".254/24", "dev", l.bridge); err != nil {
		return l, err
	}
	if err := l.ip("link", "set", l.bridge, "up"); err != nil {
		return l, err
	}
	for i := range nodes {
		if err := l.space(i); err != nil {
			return l, err
		}
	}
	return l, nil
}

// space makes the namespace of node i.
func (l *lab) space(i int) error {
	name := fmt.Sprintf("chaos-%d-%d", os.Getpid(), i+1)
	if err := l.ip("netns", "add", name); err != nil {
		return err
	}
	l.spaces = append(l.spaces, name)
	for _, line := range []string{
		"link add " + l.port(i) + " type veth peer name eth0 netns " + name,
		"link set " + l.port(i) + " master " + l.bridge + " up",
		"-n " + name + " addr add " + l.addr(i) + "/24 dev eth0",
		"-n " + name + " link set eth0 up",
		"-n " + name + " link set lo up",
	} {
		if err := l.ip(strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

// port is the end of node i's cable at the bridge.
func (l *lab) port(i int) string { return fmt.Sprintf("cv%d-%d", os.Getpid(), i+1) }

func (l *lab) addr(i int) string { return fmt.Sprintf("%s.%d", l.net, i+1) }

// house puts the nodes of a cluster into the lab.
func (l *lab) house(brokers []*broker) {
	var routes []string
	for i := range brokers {
		routes = append(routes, fmt.Sprintf("nats://%s:6222", l.addr(i)))
	}
	for i, b := range brokers {
		b.node.Host, b.node.Port, b.node.Route, b.node.Routes = l.addr(i), 4222, 6222, routes
		b.wrap = []string{"ip", "netns", "exec", l.spaces[i]}
	}
}

// cut loses what node from sends to node to.
func (l *lab) cut(from, to int) error {
	return l.ip("-n", l.spaces[from], "neigh", "replace", l.addr(to), "lladdr", nowhere, "dev", "eth0", "nud", "permanent")
}

// unplug takes the cable of a node out: nobody reaches it, nor it anybody.
func (l *lab) unplug(i int) error { return l.ip("link", "set", l.port(i), "down") }

// heal undoes all cuts.
func (l *lab) heal() error {
	var errs []error
	for i, space := range l.spaces {
		errs = append(errs, l.ip("link", "set", l.port(i), "up"))
		errs = append(errs, l.ip("-n", space, "neigh", "flush", "dev", "eth0", "nud", "permanent"))
	}
	return errors.Join(errs...)
}

func (l *lab) close() {
	for _, space := range l.spaces {
		_ = l.ip("netns", "del", space)
	}
	_ = l.ip("link", "del", l.bridge)
}

func (l *lab) ip(args ...string) error {
	out, err := exec.CommandContext(context.Background(), "ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// needsLab says why there cannot be one on this machine.
func needsLab() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("network namespaces need the command ip: %w", err)
	}
	l, err := newLab(1)
	l.close()
	return err
}

// needsTmpfs says why no file system of our own can be mounted.
func needsTmpfs() error {
	if os.Geteuid() != 0 {
		return errors.New("a small file system needs root to be mounted")
	}
	dir, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	undo, err := mountSmall(filepath.Join(dir, "probe"), 1<<20)
	if err != nil {
		return err
	}
	undo()
	return nil
}
