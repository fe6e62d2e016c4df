package sim

import (
	"net"
	"sync"
	"sync/atomic"
)

// link is a replica's way to the broker, which can fail in several ways.
type link struct {
	to broker

	mu   sync.Mutex
	dead bool // for good: the replica has crashed
	away bool // nothing can be reached now
	conn *linkConn
}

// InProcessConn implements nats.InProcessConnProvider.
func (l *link) InProcessConn() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead || l.away {
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

// leave cuts the connection, and lets no other be made until the link is back.
func (l *link) leave() {
	l.setAway(true)
	l.cut()
}

func (l *link) back() { l.setAway(false) }

func (l *link) setAway(away bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = away
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

// deafen lets nothing arrive from the broker any more, and nobody is told.
func (l *link) deafen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.deaf.Store(true)
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
	silent  atomic.Bool
	deaf    atomic.Bool // loses what comes, only
	stalled barrier

	mu   sync.Mutex
	late []byte // written while nothing moved
}

// Read discards what arrives on a silent or deaf connection.
func (c *linkConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		c.stalled.pass()
		if err != nil || !c.silent.Load() && !c.deaf.Load() {
			return n, err
		}
	}
}

// Write loses what is sent on a silent connection.
func (c *linkConn) Write(p []byte) (int, error) {
	if c.silent.Load() {
		return len(p), nil
	}
	if c.delay(p) {
		return len(p), nil
	}
	return c.Conn.Write(p)
}
