package sim

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// broker is a real nats-server that listens nowhere and can be restarted.
type broker struct {
	t   *testing.T
	dir string

	mu sync.Mutex
	s  *server.Server // nil while it is down
}

func newBroker(t *testing.T, dir string) *broker {
	b := &broker{t: t, dir: dir}
	b.start()
	return b
}

func (b *broker) start() {
	s, err := server.NewServer(&server.Options{
		ServerName: "sim", DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: b.dir,
		JetStreamMaxMemory: 1 << 30, JetStreamMaxStore: 8 << 30, MaxPayload: 8 << 20, DisableJetStreamBanner: true,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		b.t.Fatal("the broker does not start")
	}
	b.mu.Lock()
	b.s = s
	b.mu.Unlock()
}

func (b *broker) stop() {
	b.mu.Lock()
	s := b.s
	b.s = nil
	b.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// restart leaves the broker down for a while.
func (b *broker) restart(ctx context.Context, down time.Duration) {
	b.stop()
	pause(ctx, down)
	b.start()
}

var errDown = errors.New("broker is down")

// InProcessConn implements nats.InProcessConnProvider.
func (b *broker) InProcessConn() (net.Conn, error) {
	b.mu.Lock()
	s := b.s
	b.mu.Unlock()
	if s == nil {
		return nil, errDown
	}
	return s.InProcessConn()
}

// link is a replica's way to the broker, which can fail in several ways.
type link struct {
	to *broker

	mu   sync.Mutex
	dead bool // for good: the replica has crashed
	conn *linkConn
}

// InProcessConn implements nats.InProcessConnProvider.
func (l *link) InProcessConn() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return nil, errDown
	}
	c, err := l.to.InProcessConn()
	if err != nil {
		return nil, err
	}
	l.conn = &linkConn{Conn: c}
	return l.conn, nil
}

// cut breaks the connection; both ends notice.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		_ = l.conn.Close() // that is the point
	}
}

// silence leaves the connection half open: nothing arrives any more, either
// way, and nobody is told.
func (l *link) silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.silent.Store(true)
	}
}

// kill cuts the connection for good.
func (l *link) kill() {
	l.mu.Lock()
	l.dead = true
	l.mu.Unlock()
	l.cut()
}

// linkConn is one connection of a link.
type linkConn struct {
	net.Conn
	silent atomic.Bool
}

// Read discards what arrives on a silent connection.
func (c *linkConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.silent.Load() {
			return n, err
		}
	}
}

// Write loses what is sent on a silent connection.
func (c *linkConn) Write(p []byte) (int, error) {
	if c.silent.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}
