package httptarget_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/target"
	"github.com/workerd/workerd/internal/target/httptarget"
	"github.com/workerd/workerd/internal/target/targettest"
)

func TestMain(m *testing.M) {
	// net/http logs unsolicited answers, which garbage is.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	if err := trustTestServers(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// trustTestServers makes the certificate of net/http/httptest the only root,
// as targets trust what the machine trusts.
func trustTestServers() error {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	dir, err := os.MkdirTemp("", "httptarget")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "root.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	if err := errors.Join(os.Setenv("SSL_CERT_FILE", file), os.Setenv("SSL_CERT_DIR", dir)); err != nil {
		return err
	}
	_, err = x509.SystemCertPool() // read now, and never again
	return err
}

const canary = "hunter2-canary"

// TestTarget_keepsThePromisesOfTargets, against a net/http server.
func TestTarget_keepsThePromisesOfTargets(t *testing.T) {
	for _, method := range []string{"POST", "GET", "DELETE", "PURGE"} {
		t.Run(method, func(t *testing.T) {
			targettest.Run(t, harness(method, func(t testing.TB, d *targettest.Downstream) string {
				return serve(t, scripted(d))
			}))
		})
	}
}

// TestTarget_keepsThePromisesOverTLS, where connecting takes another way.
func TestTarget_keepsThePromisesOverTLS(t *testing.T) {
	targettest.Run(t, harness("POST", func(t testing.TB, d *targettest.Downstream) string {
		return serveTLS(t, scripted(d)).URL
	}))
}

func harness(method string, start func(t testing.TB, d *targettest.Downstream) string) targettest.Harness {
	at := func(t testing.TB, url string) target.Target {
		return newTarget(t, httptarget.Config{
			URL: url + "/jobs?key=" + canary, Method: method, ForwardHeaders: []string{"x-tenant"}, MaxResponse: 1 << 20,
			Headers: map[string]string{"Authorization": "Bearer " + canary},
		})
	}
	return targettest.Harness{
		Start:           func(t testing.TB, d *targettest.Downstream) target.Target { return at(t, start(t, d)) },
		StartRefused:    func(t testing.TB) target.Target { return at(t, "http://"+refusing(t)) },
		ForwardedHeader: "X-Tenant",
		Secrets:         []string{canary},
	}
}

func newTarget(t testing.TB, cfg httptarget.Config) *httptarget.Target {
	t.Helper()
	h, err := httptarget.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// refusing returns an address where nobody listens.
func refusing(t testing.TB) string {
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve runs a net/http server until the test ends and returns its URL.
func serve(t testing.TB, handler http.Handler) string {
	l := listen(t)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

// serveTLS runs a TLS server until the test ends. Its certificate is for
// 127.0.0.1 and not for localhost.
func serveTLS(t testing.TB, handler http.Handler) *httptest.Server {
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// scripted is a handler that does what the script says.
func scripted(d *targettest.Downstream) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var seen targettest.Seen
		seen.Payload, _ = io.ReadAll(r.Body)
		seen.Key = r.Header.Get("Idempotency-Key")
		seen.Header = make(map[string][]string)
		for name, values := range r.Header {
			seen.Header[strings.ToLower(name)] = values
		}
		switch d.Arrived(seen) {
		case targettest.Answer:
			_, _ = io.WriteString(w, "done")
		case targettest.HangBefore:
			<-r.Context().Done()
		case targettest.HangWithin:
			begin(w)
			<-r.Context().Done()
		case targettest.ResetBefore:
			reset(w, "")
		case targettest.ResetWithin:
			reset(w, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
		case targettest.Endless:
			endless(w)
		case targettest.Trickle:
			trickle(w, r)
		case targettest.Garbage:
			reset(w, "\x16\x03\x01 hello\r\n"+canary+"\r\n\r\n")
		}
	})
}

func begin(w http.ResponseWriter) {
	_, _ = io.WriteString(w, "begun")
	_ = http.NewResponseController(w).Flush()
}

func endless(w http.ResponseWriter) {
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<10)
	for {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

func trickle(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		begin(w)
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// reset writes raw bytes and closes the connection; with none it resets it.
func reset(w http.ResponseWriter, raw string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if raw == "" {
		hard(conn)
	}
	_, _ = io.WriteString(conn, raw)
	_ = conn.Close()
}

// hard makes Close a reset.
func hard(conn net.Conn) {
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn()
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
}

// rawServer answers every request with the same bytes, connections kept, until
// the test ends. It counts nothing and allocates little: for what net/http's
// server would not say, and for benchmarks.
func rawServer(t testing.TB, answer string, closing bool) string {
	l := listen(t)
	done := make(chan struct{})
	conns := make(chan net.Conn, 1024)
	go func() {
		defer close(done)
		defer close(conns)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns <- conn
			go answerAll(conn, []byte(answer), closing)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		for conn := range conns {
			_ = conn.Close()
		}
	})
	return "http://" + l.Addr().String()
}

// answerAll reads requests with a Content-Length and answers them.
func answerAll(conn net.Conn, answer []byte, closing bool) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for skipRequest(r) == nil {
		if _, err := conn.Write(answer); err != nil || closing {
			return
		}
	}
}

func skipRequest(r *bufio.Reader) error {
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.Equal(name, []byte("Content-Length")) {
			for _, c := range bytes.TrimSpace(value) {
				length = length*10 + int(c-'0')
			}
		}
	}
	_, err := r.Discard(length)
	return err
}
