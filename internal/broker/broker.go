// Package broker runs a NATS server inside this process.
//
// It serves `nats.embedded: true`, `workerd dev` and the tests. The server is
// the real one, with JetStream on disk and every write synced, so what works
// here works on a cluster. A crash of the process is a crash of the broker:
// what was acknowledged is on disk and comes back with the next start.
package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
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
	// Complain is told what the server warns of and what goes wrong in it: a full
	// disk, a stream that cannot be read. It is called from the server's
	// goroutines and must not block. Nil: nobody is told.
	Complain func(text string)
	// Lazy leaves syncing to disk to the server's own interval: fit for
	// tests, where nobody pulls the plug.
	Lazy bool
	// Access says who may connect. Default: everybody.
	Access Access
}

// Server is a running broker.
type Server struct {
	s    *server.Server
	cfg  Config
	lock *os.File
}

// startTimeout bounds the wait until the broker accepts connections; recovery
// of large streams counts into it.
const startTimeout = 30 * time.Second

// Start runs a broker and returns once it accepts connections.
func Start(cfg Config) (*Server, error) {
	if cfg.StoreDir == "" {
		return nil, errors.New("broker: a store directory is required")
	}
	lock, err := lockStore(cfg.StoreDir)
	if err != nil {
		return nil, err
	}
	s, err := start(options(cfg), &listener{complain: cfg.Complain})
	if err != nil {
		_ = lock.Close() // gives the lock back
		return nil, fmt.Errorf("broker: %w", err)
	}
	return &Server{s, cfg, lock}, nil
}

func start(o *server.Options, l *listener) (*server.Server, error) {
	// The server itself would only log that the port is taken, and be silent.
	if err := checkPort(o); err != nil {
		return nil, err
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, err
	}
	s.SetLoggerV2(l, false, false, false)
	s.Start()
	// What is fatal to the server is not to us: it goes on, of no use.
	if err = l.fatal(); err == nil {
		if s.ReadyForConnections(startTimeout) {
			return s, nil
		}
		err = fmt.Errorf("not ready within %s on %s", startTimeout, address(o))
	}
	s.Shutdown()
	s.WaitForShutdown()
	return nil, fmt.Errorf("%w (store %s)", err, o.StoreDir)
}

func checkPort(o *server.Options) error {
	if o.Port < 0 {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address(o))
	if err != nil {
		return err
	}
	return l.Close()
}

func address(o *server.Options) string { return net.JoinHostPort(o.Host, strconv.Itoa(o.Port)) }

// lockStore makes sure that no other process uses the same store, which the
// server itself does not notice. The lock goes with the process.
func lockStore(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("broker: store directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "workerd.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("broker: store directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close() // nothing was written
		return nil, fmt.Errorf("broker: the store %s is in use by another workerd", dir)
	}
	return lock, nil
}

func options(cfg Config) *server.Options {
	o := &server.Options{
		ServerName: "workerd",
		Host:       cfg.Host,
		Port:       cfg.Port,
		// The server's own signal handling would exit this process.
		NoSigs:                 true,
		NoLog:                  true,
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
	cfg.Access.applyTo(o)
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
	_ = s.lock.Close() // gives the lock back
}
