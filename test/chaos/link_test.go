package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// through returns a link to a server that sends everything back, and a
// connection through it.
func through(t *testing.T) (*link, func() net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	k, err := newLink(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	return k, func() net.Conn {
		c, err := net.Dial("tcp", k.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
}

// echo sends text and returns what comes back within the limit.
func echo(c net.Conn, text []byte, limit time.Duration) ([]byte, error) {
	if _, err := c.Write(text); err != nil {
		return nil, err
	}
	_ = c.SetReadDeadline(time.Now().Add(limit))
	got := make([]byte, len(text))
	n, err := io.ReadFull(c, got)
	return got[:n], err
}

const (
	soon = 200 * time.Millisecond // what is not there by now does not come
	ever = 20 * time.Second
)

func mustEcho(t *testing.T, c net.Conn) {
	t.Helper()
	text := bytes.Repeat([]byte("0123456789"), 20_000)
	if got, err := echo(c, text, ever); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("%d of %d bytes came back, %v", len(got), len(text), err)
	}
}

func mustNotEcho(t *testing.T, c net.Conn) {
	t.Helper()
	got, err := echo(c, []byte("hello"), soon)
	if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() || len(got) > 0 {
		t.Fatalf("%q came back, %v; want nothing and no error", got, err)
	}
}

func TestLink_passesEverythingAndTheEnd(t *testing.T) {
	_, dial := through(t)
	c := dial()
	mustEcho(t, c)
	_ = c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

func TestLink_resetIsARealReset(t *testing.T) {
	k, dial := through(t)
	c := dial()
	mustEcho(t, c)
	if n := k.reset(); n != 1 {
		t.Errorf("%d connections were cut, want 1", n)
	}
	_ = c.SetReadDeadline(time.Now().Add(ever))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	mustEcho(t, dial())
}

func TestLink_halfOpenTellsNobody_newConnectionsAreWell(t *testing.T) {
	k, dial := through(t)
	c := dial()
	mustEcho(t, c)
	k.halfOpen()
	mustNotEcho(t, c)
	mustEcho(t, dial())
}

func TestLink_frozenBytesComeAfterTheThaw(t *testing.T) {
	k, dial := through(t)
	c := dial()
	k.freeze()
	mustNotEcho(t, c)
	k.thaw()
	_ = c.SetReadDeadline(time.Now().Add(ever))
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestLink_cutsAfterSoManyBytes(t *testing.T) {
	k, dial := through(t)
	k.shape(0, 100, 1000)
	got, err := echo(dial(), make([]byte, 5000), ever)
	if err == nil || len(got) >= 1000 {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	if k.cuts.Load() == 0 {
		t.Error("the cut was not counted")
	}
}

func TestLink_delaysEachPiece(t *testing.T) {
	k, dial := through(t)
	k.shape(20*time.Millisecond, 10, 0)
	began := time.Now()
	if got, err := echo(dial(), make([]byte, 50), ever); err != nil {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("5 pieces took %s, want at least 5 × 20ms", took)
	}
}
