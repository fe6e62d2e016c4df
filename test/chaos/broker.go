package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// roleBroker makes the harness a nats-server, so that one can be killed.
const roleBroker = "broker"

// node says what a broker process is.
type node struct {
	Name   string
	Dir    string
	Host   string
	Port   int
	Routes []string // of the cluster; none: a server of its own
	Route  int      // port for routes
}

// serveBroker runs a nats-server until the harness is gone.
func serveBroker(arg string) error {
	var n node
	if err := json.Unmarshal([]byte(arg), &n); err != nil {
		return err
	}
	o := &server.Options{
		ServerName: n.Name, Host: n.Host, Port: n.Port, LameDuckGracePeriod: time.Second, LameDuckDuration: 3 * time.Second, JetStream: true, StoreDir: n.Dir,
		MaxPayload: 9 << 20, DisableJetStreamBanner: true, LogFile: filepath.Join(n.Dir, "..", n.Name+".log"),
	}
	if len(n.Routes) > 0 {
		o.Cluster = server.ClusterOpts{Name: "chaos", Host: n.Host, Port: n.Route}
		o.Routes = server.RoutesFromStr(strings.Join(n.Routes, ","))
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		return fmt.Errorf("broker %s is not ready within a minute", n.Name)
	}
	fmt.Println("ready")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the harness is gone
		s.Shutdown()
	}()
	s.WaitForShutdown()
	return nil
}

// broker is a nats-server in a process of its own.
type broker struct {
	node node
	wrap []string // command that runs it, as in a network namespace
	cmd  *exec.Cmd
	hold io.Closer
}

// newBrokers makes n of them, a cluster if there is more than one.
func newBrokers(dir string, n int) ([]*broker, error) {
	ports, err := freePorts(2 * n)
	if err != nil {
		return nil, err
	}
	var routes []string
	if n > 1 {
		for i := range n {
			routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[n+i]))
		}
	}
	brokers := make([]*broker, n)
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		brokers[i] = &broker{node: node{
			Name: name, Dir: filepath.Join(dir, name), Host: "127.0.0.1", Port: ports[i], Routes: routes, Route: ports[n+i],
		}}
	}
	return brokers, nil
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // in the loop: all are held until all are known
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func (b *broker) url() string {
	u := url.URL{Scheme: "nats", Host: fmt.Sprintf("%s:%d", b.node.Host, b.node.Port)}
	return u.String()
}

// start returns once the broker accepts connections.
func (b *broker) start() error {
	if err := os.MkdirAll(b.node.Dir, 0o750); err != nil {
		return err
	}
	arg, err := json.Marshal(b.node)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	line := append(append([]string(nil), b.wrap...), self, roleBroker, string(arg))
	cmd := exec.CommandContext(context.Background(), line[0], line[1:]...)
	cmd.SysProcAttr = ownGroup()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.cmd, b.hold = cmd, in
	if said, _ := bufio.NewReader(out).ReadString('\n'); said != "ready\n" {
		b.kill()
		return fmt.Errorf("broker %s did not start: %q", b.node.Name, said)
	}
	return nil
}

// kill ends the broker as a crash does.
func (b *broker) kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	_ = b.hold.Close()
	b.cmd = nil
}

// end stops the broker as an operator does.
func (b *broker) end() {
	_ = b.hold.Close()
	b.gone()
}

// duck makes the broker a lame duck: it hands its leaders over, tells its clients to
// go, closes them one by one and ends.
func (b *broker) duck() error {
	if err := b.signal(syscall.SIGUSR2); err != nil {
		return err
	}
	b.gone()
	return nil
}

// gone waits for the end of the process.
func (b *broker) gone() {
	timer := time.AfterFunc(20*time.Second, func() { _ = b.cmd.Process.Kill() })
	_ = b.cmd.Wait()
	timer.Stop()
	b.cmd = nil
}

func (b *broker) signal(sig syscall.Signal) error { return b.cmd.Process.Signal(sig) }

func (b *broker) running() bool { return b.cmd != nil }

// ownGroup keeps the Ctrl-C of a terminal from a child, which is ended by us,
// and ends it for sure when we are gone.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
