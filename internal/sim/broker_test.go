package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// broker is what replicas get their jobs from: the model, or the real one.
type broker interface {
	nats.InProcessConnProvider
	restart(ctx context.Context, down time.Duration)
	// store a job; an error means that it may or may not be there.
	store(ctx context.Context, m *nats.Msg) error
	// left is how many jobs are in the stream.
	left(ctx context.Context) (int, error)
	letters(ctx context.Context) ([]letter, error)
	// limitLetters lets the stream of dead letters refuse further ones, or not.
	limitLetters(ctx context.Context, full bool) error
	deleteConsumer(ctx context.Context, name string) error
	stop()
}

// letter is a dead letter.
type letter struct {
	header  nats.Header
	payload []byte
}

const (
	jobStream    = "JOBS"
	letterStream = "WORKERD_DLQ"
)

// realBroker is a real nats-server that listens nowhere and can be restarted,
// and a client of it whose connection nobody disturbs.
type realBroker struct {
	t   *testing.T
	dir string
	nc  *nats.Conn
	js  jetstream.JetStream

	mu     sync.Mutex
	s      *server.Server // nil while it is down
	closed *atomic.Bool   // what is sent to it is not heard any more
}

// doorConn is a connection to a server that closes for the day.
type doorConn struct {
	net.Conn
	closed *atomic.Bool
}

// Write loses what is sent to a server that is closed.
func (c doorConn) Write(p []byte) (int, error) {
	if c.closed.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func newRealBroker(t *testing.T, dir string) *realBroker {
	b := &realBroker{t: t, dir: dir}
	b.start()
	b.nc, b.js = connect(t, b)
	return b
}

// connect returns a plain client.
func connect(t *testing.T, to nats.InProcessConnProvider) (*nats.Conn, jetstream.JetStream) {
	nc, err := nats.Connect("nats://sim", nats.InProcessServer(to), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.RetryOnFailedConnect(true), nats.ReconnectJitter(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func (b *realBroker) start() {
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
	b.s, b.closed = s, new(atomic.Bool)
	b.mu.Unlock()
}

// stop ends it for good.
func (b *realBroker) stop() {
	b.nc.Close()
	b.shutdown()
}

// shutdown ends the server once it has done what it was asked for. It sleeps for a
// moment with a lock held, and whoever waits for a lock keeps time in a bubble from
// moving.
func (b *realBroker) shutdown() {
	b.mu.Lock()
	s := b.s
	b.s = nil
	b.mu.Unlock()
	if s != nil {
		b.closed.Store(true)
		pause(context.Background(), time.Millisecond)
		s.Shutdown()
		s.WaitForShutdown()
	}
}

func (b *realBroker) restart(ctx context.Context, down time.Duration) {
	b.shutdown()
	pause(ctx, down)
	b.start()
}

var errDown = errors.New("broker is down")

// InProcessConn implements nats.InProcessConnProvider.
func (b *realBroker) InProcessConn() (net.Conn, error) {
	b.mu.Lock()
	s, closed := b.s, b.closed
	b.mu.Unlock()
	if s == nil {
		return nil, errDown
	}
	c, err := s.InProcessConn()
	if err != nil {
		return nil, err
	}
	return doorConn{c, closed}, nil
}

func (b *realBroker) store(ctx context.Context, m *nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := b.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(1))
	return err
}

func (b *realBroker) left(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := b.js.Stream(ctx, jobStream)
	if err != nil {
		return 0, err
	}
	return int(s.CachedInfo().State.Msgs), nil
}

func (b *realBroker) letters(ctx context.Context) (all []letter, err error) {
	s, err := b.js.Stream(ctx, letterStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if err != nil {
			return nil, fmt.Errorf("dead letter %d: %w", seq, err)
		}
		all = append(all, letter{m.Header, m.Data})
	}
	return all, nil
}

func (b *realBroker) limitLetters(ctx context.Context, full bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := b.js.Stream(ctx, letterStream)
	if err != nil {
		return err
	}
	cfg := s.CachedInfo().Config
	if cfg.MaxMsgs = -1; full { // a lower limit would throw some away
		cfg.MaxMsgs = max(1, int64(s.CachedInfo().State.Msgs))
	}
	_, err = b.js.UpdateStream(ctx, cfg)
	return err
}

func (b *realBroker) deleteConsumer(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return b.js.DeleteConsumer(ctx, jobStream, name)
}

func (f *fake) store(_ context.Context, m *nats.Msg) error {
	header := []byte("NATS/1.0\r\n")
	for key, values := range m.Header {
		for _, v := range values {
			header = fmt.Appendf(header, "%s: %s\r\n", key, v)
		}
	}
	header = append(header, "\r\n"...)
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.streams[jobStream]
	if !f.up || s == nil || f.in(noLeader) {
		return errDown
	}
	s.put(message{subject: m.Subject, header: header, data: m.Data})
	return nil
}

func (f *fake) left(context.Context) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.streams[jobStream]; s != nil {
		return len(s.msgs), nil
	}
	return 0, errDown
}

func (f *fake) letters(context.Context) (all []letter, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.streams[letterStream]
	if s == nil {
		return nil, nil
	}
	for seq := uint64(1); seq <= s.last; seq++ {
		m, ok := s.msgs[seq]
		if !ok {
			return nil, fmt.Errorf("dead letter %d is gone", seq)
		}
		h, err := nats.DecodeHeadersMsg(m.header)
		if err != nil {
			return nil, err
		}
		all = append(all, letter{h, m.data})
	}
	return all, nil
}

func (f *fake) limitLetters(_ context.Context, full bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.streams[letterStream]
	if s == nil {
		return errDown
	}
	if s.cfg.MaxMsgs = -1; full {
		s.cfg.MaxMsgs = max(1, len(s.msgs))
	}
	return nil
}

func (f *fake) deleteConsumer(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.streams[jobStream]; s != nil {
		s.deleteConsumer(name)
	}
	return nil
}
