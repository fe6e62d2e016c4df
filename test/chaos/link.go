package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is a TCP proxy that does to connections what networks do. It is between
// one replica and the broker, or the downstream.
type link struct {
	l    net.Listener
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
	// accepted connections so far.
	accepted atomic.Int64
	cuts     atomic.Int64 // connections cut, by whatever

	mu     sync.Mutex
	target string
	pairs  map[*pair]struct{}
	hold   chan struct{} // closed when bytes may pass again; nil: they may
	delay  time.Duration // of each piece
	piece  int           // largest piece passed at once; 0: as it comes
	limit  int64         // bytes after which a connection is cut; 0: never
}

// pair is one connection through the link.
type pair struct {
	near, far net.Conn
	passed    atomic.Int64
	hole      chan struct{} // closed: nothing passes any more, and nobody is told
	dig       sync.Once
	gone      chan struct{} // closed when it is cut
	cut       sync.Once
}

const pieceSize = 32 << 10

// newLink listens on a port of its own.
func newLink(target string) (*link, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &link{target: target, l: l, pairs: map[*pair]struct{}{}}
	k.ctx, k.stop = context.WithCancel(context.Background())
	k.wg.Go(k.serve)
	return k, nil
}

// aim sends connections to come elsewhere.
func (k *link) aim(target string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.target = target
}

func (k *link) addr() string { return k.l.Addr().String() }

func (k *link) close() {
	k.stop()
	_ = k.l.Close()
	k.reset()
	k.wg.Wait()
}

func (k *link) serve() {
	for {
		near, err := k.l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			pause(k.ctx, 10*time.Millisecond) // out of descriptors
			continue
		}
		k.wg.Go(func() { k.connect(near) })
	}
}

func (k *link) connect(near net.Conn) {
	k.mu.Lock()
	target := k.target
	k.mu.Unlock()
	far, err := new(net.Dialer).DialContext(k.ctx, "tcp", target)
	if err != nil {
		abort(near)
		return
	}
	p := &pair{near: near, far: far, hole: make(chan struct{}), gone: make(chan struct{})}
	k.mu.Lock()
	k.pairs[p] = struct{}{}
	k.mu.Unlock()
	k.accepted.Add(1)
	var wg sync.WaitGroup
	wg.Go(func() { k.pump(p, far, near) })
	wg.Go(func() { k.pump(p, near, far) })
	wg.Wait()
	k.mu.Lock()
	delete(k.pairs, p)
	k.mu.Unlock()
	_ = near.Close()
	_ = far.Close()
}

// pump passes bytes on until the connection ends or is cut.
func (k *link) pump(p *pair, to, from net.Conn) {
	buf := make([]byte, pieceSize)
	for {
		n, err := from.Read(buf)
		for sent := 0; sent < n; {
			m, ok := k.pass(p, n-sent)
			if !ok {
				return
			}
			if _, err := to.Write(buf[sent : sent+m]); err != nil {
				p.abort()
				return
			}
			sent += m
		}
		if err == nil {
			continue
		}
		// An end is held back as bytes are.
		if _, ok := k.pass(p, 0); !ok {
			return
		}
		if errors.Is(err, io.EOF) {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
		p.abort()
		return
	}
}

// pass waits until up to n bytes may pass and says how many; false: the
// connection is cut.
func (k *link) pass(p *pair, n int) (int, bool) {
	k.mu.Lock()
	hold, delay, piece, limit := k.hold, k.delay, k.piece, k.limit
	k.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
			return k.pass(p, n)
		case <-p.gone:
			return 0, false
		}
	}
	select {
	case <-p.hole: // until somebody gives up
		<-p.gone
		return 0, false
	default:
	}
	if delay > 0 && !p.wait(delay) {
		return 0, false
	}
	if piece > 0 {
		n = min(n, piece)
	}
	if limit > 0 && p.passed.Load()+int64(n) > limit {
		k.cuts.Add(1)
		p.abort()
		return 0, false
	}
	p.passed.Add(int64(n))
	return n, true
}

func (p *pair) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.gone:
		return false
	}
}

// abort resets both sides: RST, not FIN.
func (p *pair) abort() {
	p.cut.Do(func() {
		close(p.gone)
		abort(p.near)
		abort(p.far)
	})
}

func abort(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

func (k *link) live() []*pair {
	k.mu.Lock()
	defer k.mu.Unlock()
	pairs := make([]*pair, 0, len(k.pairs))
	for p := range k.pairs {
		pairs = append(pairs, p)
	}
	return pairs
}

// reset cuts all connections and returns how many there were.
func (k *link) reset() int {
	pairs := k.live()
	for _, p := range pairs {
		p.abort()
	}
	k.cuts.Add(int64(len(pairs)))
	return len(pairs)
}

// halfOpen lets nothing pass on the connections there are, for good. Nobody is
// told; new connections are well. It returns how many there were.
func (k *link) halfOpen() int {
	pairs := k.live()
	for _, p := range pairs {
		p.dig.Do(func() { close(p.hole) })
	}
	return len(pairs)
}

// freeze holds all bytes back until thaw.
func (k *link) freeze() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hold == nil {
		k.hold = make(chan struct{})
	}
}

func (k *link) thaw() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hold != nil {
		close(k.hold)
		k.hold = nil
	}
}

// shape delays each piece, makes pieces small, and cuts connections after so
// many bytes in all. Zeroes undo it.
func (k *link) shape(delay time.Duration, piece int, limit int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.delay, k.piece, k.limit = delay, piece, limit
}
