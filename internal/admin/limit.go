package admin

import (
	"net"
	"net/http"
	"sync"
)

// limiter is a listener with a bounded number of connections. When there is
// one too many, the oldest that is not being served is closed: one that has
// not sent a whole request, or that is idle between two. So clients that hold
// connections open and say nothing cannot keep others out. If all are being
// served the new one waits, which the write deadline bounds.
type limiter struct {
	net.Listener
	most int

	mu     sync.Mutex
	open   []*limitedConn // oldest first
	room   chan struct{}  // a slot was freed; room for one token
	closed chan struct{}  // by Close
	once   sync.Once
}

// limitedConn is a connection of a limiter.
type limitedConn struct {
	net.Conn
	of     *limiter
	served bool // guarded by of.mu
	gone   bool // guarded by of.mu
}

func newLimiter(l net.Listener, most int) *limiter {
	return &limiter{Listener: l, most: most, room: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *limiter) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	for !l.makeRoom() {
		select {
		case <-l.room:
		case <-l.closed:
			_ = c.Close() // never used
			return nil, net.ErrClosed
		}
	}
	return l.add(c), nil
}

// Close implements net.Listener.
func (l *limiter) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// makeRoom tells whether there is room for one more, after closing the oldest
// connection that can be spared if need be.
func (l *limiter) makeRoom() bool {
	victim, full := l.choose()
	if victim != nil {
		_ = victim.Close() // there is nobody to tell
	}
	return !full || victim != nil
}

func (l *limiter) choose() (victim *limitedConn, full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) < l.most {
		return nil, false
	}
	for _, c := range l.open {
		if !c.served {
			return c, true
		}
	}
	return nil, true
}

func (l *limiter) add(c net.Conn) *limitedConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	limited := &limitedConn{Conn: c, of: l}
	l.open = append(l.open, limited)
	return limited
}

// state is the server's ConnState hook. A connection is active from the end
// of a request's header to the end of the response.
func (l *limiter) state(c net.Conn, s http.ConnState) {
	limited, ok := c.(*limitedConn)
	if !ok {
		return
	}
	l.mu.Lock()
	limited.served = s == http.StateActive
	l.mu.Unlock()
	if s == http.StateIdle {
		l.offer()
	}
}

// offer wakes an Accept that waits for room.
func (l *limiter) offer() {
	select {
	case l.room <- struct{}{}:
	default:
	}
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.of.remove(c)
	return c.Conn.Close()
}

func (l *limiter) remove(c *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.gone {
		return
	}
	c.gone = true
	for i, o := range l.open {
		if o == c {
			l.open = append(l.open[:i], l.open[i+1:]...)
			break
		}
	}
	l.offer()
}
