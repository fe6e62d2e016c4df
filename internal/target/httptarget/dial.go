package httptarget

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// dialTimeout bounds connecting together with the TLS handshake. net/http lets
// a connection be finished for the next call even if this one has given up.
const dialTimeout = 5 * time.Second

// dialer makes connections and can be told to stop, which net/http's own
// cannot: it finishes what it has begun, long after its transport is closed.
type dialer struct {
	net net.Dialer
	tls *tls.Config

	life context.Context // ended by close
	quit context.CancelFunc

	mu      sync.Mutex
	closed  bool           // guarded by mu
	running sync.WaitGroup // grows under mu while not closed
}

func newDialer(serverName string) *dialer {
	d := &dialer{tls: &tls.Config{
		ServerName:         serverName,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}}
	d.life, d.quit = context.WithCancel(context.Background())
	return d
}

// close stops all dialling and waits for it to end.
func (d *dialer) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.quit()
	d.running.Wait()
}

func (d *dialer) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.running.Add(1)
	return true
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return d.connect(ctx, network, address, d.net.DialContext)
}

func (d *dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	return d.connect(ctx, network, address, d.handshake)
}

func (d *dialer) connect(ctx context.Context, network, address string, how func(context.Context, string, string) (net.Conn, error)) (net.Conn, error) {
	if !d.enter() {
		return nil, net.ErrClosed
	}
	defer d.running.Done()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	defer context.AfterFunc(d.life, cancel)()
	return how(ctx, network, address)
}

func (d *dialer) handshake(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := d.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, d.tls)
	if err = conn.HandshakeContext(ctx); err == nil {
		return conn, nil
	}
	_ = raw.Close()
	if ctx.Err() != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: raw.RemoteAddr(), Err: err}
	}
	if isTLSFailure(err) {
		return nil, handshakeError{err}
	}
	return nil, err
}
