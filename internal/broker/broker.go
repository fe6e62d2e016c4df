// Package broker runs a NATS server inside this process.
//
// It serves `nats.embedded: true`, `workerd dev` and the tests. The server is
// the real one, with JetStream on disk and every write synced, so what works
// here works on a cluster. A crash of the process is a crash of the broker:
// what was acknowledged is on disk and comes back with the next start.
package broker

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Config of an embedded broker.
type Config struct {
	// Host to listen on. Default: 127.0.0.1.
	Host string
	// Port to listen on. 0 is 4222, -1 any free one.
	Port int
	// StoreDir of the streams. Required.
	StoreDir string
	// MaxStore bounds the disk used by streams, in bytes. Default: 10 GiB.
	MaxStore int64
	// Lazy leaves syncing to disk to the server's own interval: fit for
	// tests, where nobody pulls the plug.
	Lazy bool
}

// Server is a running broker.
type Server struct{ s *server.Server }

// startTimeout bounds the wait until the broker accepts connections; recovery
// of large streams counts into it.
const startTimeout = 30 * time.Second

// Start runs a broker and returns once it accepts connections.
func Start(cfg Config) (*Server, error) {
	if cfg.StoreDir == "" {
		return nil, errors.New("broker: a store directory is required")
	}
	s, err := server.NewServer(options(cfg))
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(startTimeout) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("broker: not ready within %s on %s (is another server on that port, or %s in use?)",
			startTimeout, net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port)), cfg.StoreDir)
	}
	return &Server{s}, nil
}

func options(cfg Config) *server.Options {
	o := &server.Options{
		ServerName: "workerd",
		Host:       cfg.Host,
		Port:       cfg.Port,
		// The server's own signal handling would exit this process.
		NoSigs:                 true,
		NoLog:                  true,
		JetStream:              true,
		StoreDir:               cfg.StoreDir,
		SyncAlways:             !cfg.Lazy,
		JetStreamMaxMemory:     256 << 20,
		JetStreamMaxStore:      cfg.MaxStore,
		MaxPayload:             8 << 20,
		DisableJetStreamBanner: true,
	}
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if o.Port == 0 {
		o.Port = server.DEFAULT_PORT
	}
	if o.JetStreamMaxStore == 0 {
		o.JetStreamMaxStore = 10 << 30
	}
	return o
}

// URL clients connect to.
func (s *Server) URL() string { return s.s.ClientURL() }

// Port the broker listens on.
func (s *Server) Port() int { return s.s.Addr().(*net.TCPAddr).Port }

// Shutdown stops the broker and waits until it is gone.
func (s *Server) Shutdown() {
	s.s.Shutdown()
	s.s.WaitForShutdown()
}
