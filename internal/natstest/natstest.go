// Package natstest gives tests a real NATS server with JetStream, of their own
// and on a free port.
package natstest

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/broker"
)

// Broker is a server that can be stopped and started again on the same port
// and store.
type Broker struct {
	t   testing.TB
	cfg broker.Config
	s   *broker.Server
	url string
}

// Start runs a broker until the test ends.
func Start(t testing.TB) *Broker {
	t.Helper()
	return StartFor(t, broker.Access{})
}

// StartFor runs a broker for those who may connect, until the test ends.
func StartFor(t testing.TB, who broker.Access) *Broker {
	t.Helper()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	b := &Broker{t: t, cfg: broker.Config{Port: port, StoreDir: t.TempDir(), Lazy: true, Access: who}}
	b.start()
	b.url = b.s.URL()
	t.Cleanup(b.Stop)
	return b
}

func (b *Broker) start() {
	b.t.Helper()
	s, err := broker.Start(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.s = s
}

// URL of the broker; it stays the same over a restart.
func (b *Broker) URL() string { return b.url }

// Stop ends the server. Its streams stay on disk.
func (b *Broker) Stop() {
	if b.s != nil {
		b.s.Shutdown()
		b.s = nil
	}
}

// Restart starts the server again.
func (b *Broker) Restart() {
	b.t.Helper()
	b.Stop()
	b.start()
}

// RestartEmpty starts the server again with nothing in its store.
func (b *Broker) RestartEmpty() {
	b.t.Helper()
	b.Stop()
	b.cfg.StoreDir = b.t.TempDir()
	b.start()
}

// Admit changes who may connect while the broker runs, and after a restart.
func (b *Broker) Admit(who broker.Access) {
	b.t.Helper()
	b.cfg.Access = who
	if b.s == nil {
		return
	}
	if err := b.s.Admit(who); err != nil {
		b.t.Fatal(err)
	}
}

// Connect returns a plain client of the broker, closed when the test ends.
func (b *Broker) Connect(opts ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	b.t.Helper()
	opts = append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond), nats.IgnoreAuthErrorAbort()}, opts...)
	nc, err := nats.Connect(b.url, opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		b.t.Fatal(err)
	}
	return nc, js
}

// Stream creates a work-queue stream on the given subjects.
func (b *Broker) Stream(js jetstream.JetStream, name string, subjects ...string) jetstream.Stream {
	b.t.Helper()
	s, err := js.CreateStream(context.Background(), jetstream.StreamConfig{
		Name: name, Subjects: subjects, Retention: jetstream.WorkQueuePolicy,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}
