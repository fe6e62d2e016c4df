package admin_test

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/workerd/workerd/internal/admin"
)

// counted is a listener that knows how many of its connections are open.
type counted struct {
	net.Listener
	open, most atomic.Int64
}

type countedConn struct {
	net.Conn
	of   *counted
	once sync.Once
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	n := l.open.Add(1)
	for old := l.most.Load(); n > old && !l.most.CompareAndSwap(old, n); old = l.most.Load() {
	}
	return &countedConn{Conn: c, of: l}, nil
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.of.open.Add(-1) })
	return c.Conn.Close()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// TestServer_halfRequestsDoNotKeepOthersOut: 500 clients begin a request and
// do not end it; those who do are answered.
func TestServer_halfRequestsDoNotKeepOthersOut(t *testing.T) {
	l := &counted{Listener: listen(t)}
	start(t, newServer(calmDay(), admin.Config{}), l)
	s := site{t, l.Addr().String(), client(t)}
	for i := range 500 {
		c := dial(t, s.addr)
		_, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ") // may have been thrown out already
		if i%50 == 0 {
			if body := s.get("/livez"); body != "ok\n" {
				t.Fatalf("after %d half requests: %q", i, body)
			}
			s.client.CloseIdleConnections()
		}
	}
	if body := s.get("/readyz"); body != "ok\n" {
		t.Errorf("at last: %q", body)
	}
	// The one too many is accepted first, to see that there is one.
	if most := l.most.Load(); most > 65 {
		t.Errorf("%d connections were open at once, want at most 64 and the new one", most)
	}
}

// TestServer_idleConnectionsGiveWay: keep-alive connections that are used no
// more do not keep others out either.
func TestServer_idleConnectionsGiveWay(t *testing.T) {
	l := listen(t)
	start(t, newServer(calmDay(), admin.Config{}), l)
	for i := range 100 {
		c := dial(t, l.Addr().String())
		say(t, c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		_ = res.Body.Close()
	}
}

// stuck is a handler that answers when it is told to.
type stuck struct{ entered, release chan struct{} }

func (s stuck) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.entered <- struct{}{}
	<-s.release
	w.WriteHeader(http.StatusNoContent)
}

func TestServer_servedConnectionsAreNotThrownOut(t *testing.T) {
	h := stuck{make(chan struct{}), make(chan struct{})}
	l := listen(t)
	start(t, admin.New(admin.Config{}, calmDay(), h, slog.New(slog.DiscardHandler)), l)
	s := site{t, l.Addr().String(), client(t)}
	var busy sync.WaitGroup
	var answered atomic.Int64
	for range 64 {
		busy.Go(func() {
			if res, _ := s.ask(http.MethodGet, "/metrics", nil); res.StatusCode == http.StatusNoContent {
				answered.Add(1)
			}
		})
	}
	for range 64 {
		<-h.entered
	}
	busy.Go(func() { // waits until there is room
		if body := s.get("/livez"); body == "ok\n" {
			answered.Add(1)
		}
	})
	close(h.release)
	busy.Wait()
	if n := answered.Load(); n != 65 {
		t.Errorf("%d of 65 requests were answered", n)
	}
}

func TestServer_refusesHeadersThatAreTooLong(t *testing.T) {
	s := visit(t, calmDay(), admin.Config{})
	// By hand: the client of net/http gives up when it cannot send everything.
	c := dial(t, s.addr)
	say(t, c, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: "+strings.Repeat("x", 21<<10))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s, want 431", res.Status)
	}
}

func TestServe_endsWithItsContext(t *testing.T) {
	l := listen(t)
	stop := start(t, newServer(calmDay(), admin.Config{}), l)
	half := dial(t, l.Addr().String())
	say(t, half, "GET /livez HTTP/1.1\r\n")
	s := site{t, l.Addr().String(), client(t)}
	s.get("/livez")
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := io.ReadAll(half); errors.Is(err, net.ErrClosed) {
		t.Errorf("the half open connection: %v", err)
	}
	if c, err := net.Dial("tcp", s.addr); err == nil {
		_ = c.Close()
		t.Error("the listener is still open")
	}
}

func TestServe_finishesTheAnswersUnderWay(t *testing.T) {
	h := stuck{make(chan struct{}), make(chan struct{})}
	l := listen(t)
	stop := start(t, admin.New(admin.Config{}, calmDay(), h, slog.New(slog.DiscardHandler)), l)
	s := site{t, l.Addr().String(), client(t)}
	var asking sync.WaitGroup
	asking.Go(func() {
		if res, _ := s.ask(http.MethodGet, "/metrics", nil); res.StatusCode != http.StatusNoContent {
			t.Errorf("%s, want 204", res.Status)
		}
	})
	<-h.entered
	asking.Go(func() {
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	close(h.release)
	asking.Wait()
}

// broken is a listener that fails.
type broken struct{ net.Listener }

func (broken) Accept() (net.Conn, error) { return nil, errBroken }

var errBroken = errors.New("broken")

func TestServe_tellsOfABrokenListener(t *testing.T) {
	l := listen(t)
	stop := start(t, newServer(calmDay(), admin.Config{}), broken{l})
	if err := stop(); err != nil && !errors.Is(err, errBroken) {
		t.Errorf("Serve: %v", err)
	}
	err := newServer(calmDay(), admin.Config{}).Serve(t.Context(), broken{listen(t)})
	if !errors.Is(err, errBroken) {
		t.Errorf("Serve: %v, want %v", err, errBroken)
	}
}
