package queue_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// proxy stands between a client and the broker, so that the connection can be
// cut while the broker runs.
type proxy struct {
	t  *testing.T
	to string
	l  net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex
	down  bool
	muted bool
	held  chan struct{} // closed when what the broker says may go on; nil: it may
	conns []net.Conn
}

func newProxy(t *testing.T, url string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, to: strings.TrimPrefix(url, "nats://"), l: l}
	p.wg.Go(p.accept)
	t.Cleanup(func() { _ = l.Close(); p.cut(); p.wg.Wait() })
	return p
}

func (p *proxy) url() string { return "nats://" + p.l.Addr().String() }

func (p *proxy) accept() {
	for {
		from, err := p.l.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = from.Close()
			continue
		}
		p.mu.Lock()
		down := p.down
		p.conns = append(p.conns, from, to)
		p.mu.Unlock()
		if down {
			_, _ = from.Close(), to.Close()
			continue
		}
		p.wg.Go(func() { _, _ = io.Copy(to, from); _ = to.Close() })
		p.wg.Go(func() { _, _ = io.Copy(listener{from, p}, to); _ = from.Close() })
	}
}

// cut ends all connections, and those to come, until mend.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.muted = false, false
}

// mute loses what the broker says, until mend.
func (p *proxy) mute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.muted = true
}

// hold keeps what the broker says until the returned function is called.
func (p *proxy) hold() (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := make(chan struct{})
	p.held = held
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.held = nil
		close(held)
	})
}

// listener is the client's side of a connection.
type listener struct {
	io.Writer
	p *proxy
}

// Write implements io.Writer.
func (l listener) Write(b []byte) (int, error) {
	l.p.mu.Lock()
	muted, held := l.p.muted, l.p.held
	l.p.mu.Unlock()
	if held != nil {
		<-held
	}
	if muted {
		return len(b), nil
	}
	return l.Writer.Write(b)
}
