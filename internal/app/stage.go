package app

import (
	"net"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/target"
)

// Stage is a world for a whole workerd to be tried out in: it runs as it always
// does, but nothing it does leaves the process. What is left out is as in
// reality.
type Stage struct {
	// NATS says how to reach the broker in another way, for example
	// [nats.InProcessServer].
	NATS []nats.Option
	// Target makes what stands in for a downstream.
	Target func(name string, cfg config.TargetConfig) (target.Target, error)
	// Unattended: the admin listener is no socket, and nobody can reach it.
	Unattended bool
	// OnReport is told what became of each delivery, and OnBreaker of each
	// change of a breaker. Both are called from the goroutines of the jobs and
	// must not block.
	OnReport  func(pool.Report)
	OnBreaker func(target string, c breaker.Change)
}

func (s Stage) listen(address string) (net.Listener, error) {
	if s.Unattended {
		return &nowhere{closed: make(chan struct{})}, nil
	}
	return listen(address)
}

// nowhere is a listener to which nobody comes.
type nowhere struct {
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (n *nowhere) Accept() (net.Conn, error) {
	<-n.closed
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (n *nowhere) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

// Addr implements net.Listener.
func (n *nowhere) Addr() net.Addr { return &net.UnixAddr{Name: "nowhere", Net: "unix"} }
