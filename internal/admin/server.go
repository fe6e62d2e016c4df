package admin

import (
	"context"
	"errors"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds of what a client may take.
const (
	maxConns          = 64
	maxHeader         = 16 << 10
	maxBody           = 1 << 20
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	idleTimeout       = 60 * time.Second
	// writeTimeout of a response; profiles take as long as they were asked to.
	writeTimeout   = 30 * time.Second
	profileTimeout = 5 * time.Minute
	// goodbye is how long responses under way may take when the server stops.
	goodbye = time.Second
)

// Server answers requests. Make it with New.
type Server struct {
	cfg      Config
	backend  Backend
	metrics  http.Handler
	log      *slog.Logger
	template *template.Template
}

// New returns a server. cfg should have been validated; metrics answers
// /metrics.
func New(cfg Config, backend Backend, metrics http.Handler, log *slog.Logger) *Server {
	return &Server{cfg: cfg.WithDefaults(), backend: backend, metrics: metrics, log: log, template: parsePage()}
}

// Serve answers requests of the listener until ctx ends, and closes it.
// Responses under way get a second to finish. The error is that of a listener
// that broke, nil otherwise. Serve may run for several listeners at once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	limited := newLimiter(l, maxConns)
	h := &http.Server{
		Handler:           s.handler(isLocal(l.Addr())),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnState:         limited.state,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	broken := make(chan struct{})
	var stop sync.WaitGroup
	stop.Go(func() {
		select {
		case <-ctx.Done():
			shutdown(h)
		case <-broken:
			_ = h.Close() // Serve's error is the one that matters
		}
	})
	err := h.Serve(limited)
	close(broken)
	stop.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func shutdown(h *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if h.Shutdown(ctx) != nil {
		_ = h.Close() // whoever is still there has had time enough
	}
}
