package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Timing of the connection. nats.go's own defaults give up after 60 attempts
// and notice a dead peer after six minutes.
const (
	dialTimeout      = 5 * time.Second
	pingInterval     = 5 * time.Second
	pingsOutstanding = 2
	// writeTimeout is also how long a half-open connection may stay unnoticed
	// with the socket's buffer full: while the client writes it holds the lock
	// under which it counts pings. Its own is a minute.
	writeTimeout     = 15 * time.Second
	reconnectFirst   = 100 * time.Millisecond
	reconnectLongest = 5 * time.Second
	apiTimeout       = 5 * time.Second
	leaveTimeout     = time.Second // of what is done before a server is left
)

// Conn is a connection to NATS that never gives up: it reconnects for ever,
// through authentication errors too, and reads credentials again each time.
// All methods may be called from any goroutine.
type Conn struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	cfg     Config
	log     *slog.Logger
	settler *settler

	ensuring chan struct{} // has an element while a stream is looked up and created

	life   context.Context // ends with Close
	end    context.CancelFunc
	moving sync.WaitGroup // leaving a server that is about to stop

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change of the connection
	denied  denials
	outage  outage
	// reported by the client last: what is wrong with a connection comes as
	// often as somebody provokes it.
	reported outage
	streams  map[string]streamState // as told last
	once     map[string]bool        // lines that are not said again
}

// Dial starts connecting and returns at once; whether it has succeeded is told
// by Connected. Errors are those of the configuration: unreadable files,
// malformed addresses. With more, for example [nats.InProcessServer], it can be
// said in another way how to get there.
func Dial(cfg Config, log *slog.Logger, more ...nats.Option) (*Conn, error) {
	c := &Conn{cfg: cfg, log: log, changed: make(chan struct{}), ensuring: make(chan struct{}, 1), streams: map[string]streamState{}, once: map[string]bool{}}
	c.denied.missing = map[string]denial{}
	c.life, c.end = context.WithCancel(context.Background())
	opts, err := c.options(cfg)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	if c.nc, err = nats.Connect(cfg.URL, append(opts, more...)...); err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	var jsOpts []jetstream.JetStreamOpt
	jsOpts = append(jsOpts, jetstream.WithDefaultTimeout(apiTimeout))
	if cfg.JetstreamDomain != "" {
		c.js, err = jetstream.NewWithDomain(c.nc, cfg.JetstreamDomain, jsOpts...)
	} else {
		c.js, err = jetstream.New(c.nc, jsOpts...)
	}
	if err == nil {
		c.settler, err = newSettler(c)
	}
	if err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("nats: %w", err)
	}
	return c, nil
}

func (c *Conn) options(cfg Config) ([]nats.Option, error) {
	host, _ := os.Hostname()
	opts := []nats.Option{
		nats.Name(cfg.Name + "@" + host),
		nats.Timeout(dialTimeout),
		nats.SetCustomDialer(dialer{}),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(reconnectDelay),
		// No buffer while disconnected: what lies in it would be sent after the
		// reconnect, a nak whose lease is over included, and hit somebody else's
		// run. The settler sends again what still may be sent.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsOutstanding),
		nats.FlusherTimeout(writeTimeout),
		nats.ReconnectOnFlusherError(),
		nats.CustomInboxPrefix(cfg.InboxPrefix),
		nats.PermissionErrOnSubscribe(true),
		nats.ConnectHandler(func(nc *nats.Conn) {
			c.log.Info("connected to NATS", "url", nc.ConnectedUrlRedacted())
			c.connected(nc)
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			c.log.Info("reconnected to NATS", "url", nc.ConnectedUrlRedacted())
			c.connected(nc)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.log.Warn("lost the connection to NATS, reconnecting", "err", err)
			}
			c.announce()
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			c.complain(time.Now(), err)
			c.announce()
		}),
		nats.ClosedHandler(func(*nats.Conn) { c.announce() }),
		nats.ErrorHandler(c.asyncError),
		nats.LameDuckModeHandler(c.leave),
	}
	return appendAuth(opts, cfg)
}

// reconnectDelay doubles from reconnectFirst to reconnectLongest, jittered downwards
// so that a fleet does not come back in step.
func reconnectDelay(attempts int) time.Duration {
	d := reconnectFirst << min(attempts, 6)
	d = min(d, reconnectLongest)
	return d - time.Duration(rand.Float64()*0.5*float64(d))
}

func (c *Conn) connected(nc *nats.Conn) {
	c.endOutage()
	if text := serverAdvice(nc.ConnectedServerVersion()); text != "" {
		c.sayOnce(slog.LevelWarn, text)
	}
	c.announce()
}

// leave goes to another server of the cluster when this one is about to stop:
// its streams are silent already, and it would end the connection in the end.
// What is being settled is settled here first, if that is still possible.
func (c *Conn) leave(nc *nats.Conn) {
	if len(nc.Servers()) < 2 {
		c.log.Warn("the NATS server is about to stop, and no other is known", "url", nc.ConnectedUrlRedacted())
		return
	}
	c.log.Info("the NATS server is about to stop, going to another", "url", nc.ConnectedUrlRedacted())
	c.moving.Go(func() {
		ctx, cancel := context.WithTimeout(c.life, leaveTimeout)
		defer cancel()
		_ = c.Flush(ctx)        // what is not confirmed is sent again
		_ = nc.ForceReconnect() // fails only if the connection is closed
	})
}

// announce wakes whoever waits for a change of the connection.
func (c *Conn) announce() {
	c.mu.Lock()
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
}

func (c *Conn) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if c.refused(err) {
		return
	}
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	if errors.Is(err, nats.ErrBadHeaderMsg) {
		return // the job itself comes too, and its own line says so
	}
	c.mu.Lock()
	due, _ := c.reported.speak(time.Now(), err.Error())
	c.mu.Unlock()
	if due {
		c.log.Warn("NATS reports an error", "err", err, "subject", subject)
	}
}

// Changed returns a channel that is closed at the next change of the connection.
func (c *Conn) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// explain makes a sentence of an error of the API. A call that is not
// permitted is never answered: it is the server's complaint that says why.
func (c *Conn) explain(err error) error {
	timeout := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return &explained{err, "JetStream is not enabled for the account of this NATS user"}
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return &explained{err, "nobody answers for JetStream: it is not enabled on the NATS server, or still starting"}
	case !timeout:
		return err
	}
	if why := c.lastRefusal(time.Now()); why != "" {
		return &explained{err, why}
	}
	return &explained{err, "JetStream did not answer within " + apiTimeout.String() + ": no leader, or overloaded"}
}

// explained is an error in words for people.
type explained struct {
	error
	text string
}

// Error implements error.
func (e *explained) Error() string { return e.text }

// Unwrap keeps what it was for those who branch.
func (e *explained) Unwrap() error { return e.error }

// Connected tells whether the server can be reached right now.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// AwaitConnected waits until the server can be reached. It ends with an error
// if ctx does, or if the connection is closed for good.
func (c *Conn) AwaitConnected(ctx context.Context) error {
	for {
		changed := c.Changed()
		switch {
		case c.Connected():
			return nil
		case c.nc.IsClosed():
			return nats.ErrConnectionClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("not connected to NATS: %w", context.Cause(ctx))
		}
	}
}

// ConnStats is what the connection has done so far.
type ConnStats struct {
	Connected  bool
	URL        string // without credentials; empty while disconnected
	Reconnects uint64
	Unsettled  int    // settlements the server has not confirmed yet
	Resent     uint64 // settlements sent again for want of a confirmation
	Abandoned  uint64 // settlements given up
}

// Stats returns a copy of the counters.
func (c *Conn) Stats() ConnStats {
	s := ConnStats{Connected: c.nc.IsConnected(), Reconnects: c.nc.Stats().Reconnects}
	if s.Connected {
		s.URL = c.nc.ConnectedUrlRedacted()
	}
	s.Unsettled, s.Resent, s.Abandoned = c.settler.stats()
	return s
}

// JetStream gives packages that publish (dead letters, results) their API.
func (c *Conn) JetStream() jetstream.JetStream { return c.js }

// Flush waits until the broker has confirmed every settlement, or ctx ends.
func (c *Conn) Flush(ctx context.Context) error { return c.settler.flush(ctx) }

// Close ends the connection. Whatever is not confirmed by then may be repeated.
func (c *Conn) Close() {
	c.end()
	c.moving.Wait()
	c.settler.close()
	c.nc.Close()
}
