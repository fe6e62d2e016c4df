package whatif

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// broker is a real nats-server that listens nowhere and can be restarted.
type broker struct {
	dir, domain string

	mu sync.Mutex
	s  *server.Server // nil while it is down
}

// start starts it; it may have been stopped before.
func (b *broker) start() error {
	s, err := server.NewServer(&server.Options{
		ServerName: "whatif", DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: b.dir, JetStreamDomain: b.domain,
		JetStreamMaxMemory: 1 << 40, JetStreamMaxStore: 1 << 50, MaxPayload: 64 << 20, DisableJetStreamBanner: true,
	})
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		return errors.New("broker: it does not start")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s = s
	return nil
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

var errDown = errors.New("the broker is down")

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

// client is a plain client of the broker.
func (b *broker) client() (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect("nats://whatif", nats.InProcessServer(b), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.RetryOnFailedConnect(true), nats.ReconnectJitter(0, 0))
	if err != nil {
		return nil, nil, fmt.Errorf("broker: %w", err)
	}
	var js jetstream.JetStream
	if b.domain != "" {
		js, err = jetstream.NewWithDomain(nc, b.domain)
	} else {
		js, err = jetstream.New(nc)
	}
	if err != nil {
		nc.Close()
		return nil, nil, fmt.Errorf("broker: %w", err)
	}
	return nc, js, nil
}

// pause waits, or returns when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
