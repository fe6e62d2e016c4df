package sim

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// This file is the client's protocol of NATS, as far as workerd and the
// conformance tests speak it: enough for the real client library, whose other
// end is the model in fake_test.go.

// stream of bytes in one direction. Who writes never waits.
type flow struct {
	mu       sync.Mutex
	some     *sync.Cond
	bytes    []byte
	closed   bool
	deadline time.Time
}

func newFlow() *flow {
	f := &flow{}
	f.some = sync.NewCond(&f.mu)
	return f
}

func (f *flow) read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case len(f.bytes) > 0:
			n := copy(p, f.bytes)
			if f.bytes = f.bytes[n:]; len(f.bytes) == 0 {
				f.bytes = nil
			}
			return n, nil
		case f.closed:
			return 0, io.EOF
		case !f.deadline.IsZero() && !time.Now().Before(f.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		f.some.Wait()
	}
}

func (f *flow) write(parts ...[]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	for _, p := range parts {
		f.bytes = append(f.bytes, p...)
	}
	f.some.Signal()
}

func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed, f.bytes = true, nil
	f.some.Broadcast()
}

func (f *flow) setDeadline(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deadline = at
	if !at.IsZero() {
		time.AfterFunc(time.Until(at), f.some.Broadcast)
	}
}

// fakeConn is a client's connection to the model. What the client writes is
// dealt with at once, in the client's goroutine.
type fakeConn struct {
	f    *fake
	in   *flow  // to the client
	rest []byte // of what it has sent: the beginning of an operation; guarded by f.mu
	over bool   // guarded by f.mu
	sids map[string]string
}

var errProtocol = errors.New("sim: the client says what the model does not understand")

// Read implements net.Conn.
func (c *fakeConn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write implements net.Conn.
func (c *fakeConn) Write(p []byte) (int, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if c.over {
		return 0, io.ErrClosedPipe
	}
	c.rest = append(c.rest, p...)
	done := 0
	for {
		n, err := c.operation(c.rest[done:])
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
		done += n
	}
	c.rest = c.rest[:copy(c.rest, c.rest[done:])]
	return len(p), nil
}

// operation carries out the first operation in b and returns its length, 0 if
// it is not there as a whole.
func (c *fakeConn) operation(b []byte) (int, error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return 0, nil
	}
	words := bytes.Fields(b[:end])
	if len(words) == 0 {
		return end + 1, nil
	}
	switch op := words[0]; op[0] {
	case 'P', 'H':
		switch string(op) {
		case "PING":
			c.in.write([]byte("PONG\r\n"))
			return end + 1, nil
		case "PONG":
			return end + 1, nil
		case "PUB", "HPUB":
			return c.publication(words, b, end+1)
		}
	case 'S':
		c.subscribe(string(words[1]), string(words[len(words)-1]))
		return end + 1, nil
	case 'U':
		c.unsubscribe(string(words[1]))
		return end + 1, nil
	case 'C':
		return end + 1, nil
	}
	return 0, errProtocol
}

// publication is PUB subject [reply] size, or HPUB subject [reply] header-size size.
func (c *fakeConn) publication(words [][]byte, b []byte, begin int) (int, error) {
	size, err := strconv.Atoi(string(words[len(words)-1]))
	if err != nil {
		return 0, errProtocol
	}
	if len(b) < begin+size+2 {
		return 0, nil
	}
	m := message{subject: string(words[1]), data: b[begin : begin+size]}
	numbers := 1
	if words[0][0] == 'H' {
		numbers = 2
		n, err := strconv.Atoi(string(words[len(words)-2]))
		if err != nil {
			return 0, errProtocol
		}
		m.header, m.data = m.data[:n], m.data[n:]
	}
	if len(words) == 3+numbers {
		m.reply = string(words[2])
	}
	c.f.publish(c, m)
	return begin + size + 2, nil
}

func (c *fakeConn) subscribe(subject, sid string) {
	c.sids[sid] = subject
	c.f.subs[subject] = subscription{c, sid}
}

func (c *fakeConn) unsubscribe(sid string) {
	if subject, ok := c.sids[sid]; ok {
		delete(c.sids, sid)
		delete(c.f.subs, subject)
	}
}

// Close implements net.Conn.
func (c *fakeConn) Close() error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.end()
	return nil
}

// end is called with f.mu held.
func (c *fakeConn) end() {
	for sid := range c.sids {
		c.unsubscribe(sid)
	}
	c.over = true
	delete(c.f.conns, c)
	c.in.close()
}

// LocalAddr implements net.Conn.
func (c *fakeConn) LocalAddr() net.Addr { return &net.UnixAddr{Name: "sim", Net: "unix"} }

// RemoteAddr implements net.Conn.
func (c *fakeConn) RemoteAddr() net.Addr { return c.LocalAddr() }

// SetDeadline implements net.Conn.
func (c *fakeConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *fakeConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

// SetWriteDeadline implements net.Conn. Writing takes no time.
func (c *fakeConn) SetWriteDeadline(time.Time) error { return nil }

// subscription of one client. No two subscribe to the same.
type subscription struct {
	conn *fakeConn
	sid  string
}

// message as it goes over the wire.
type message struct {
	subject, reply string
	header, data   []byte // the header with its first line and the empty one at its end
}

// lookup returns who has subscribed to a subject: to itself, or to all that
// differ from it in the last word.
func (f *fake) lookup(subject string) (subscription, bool) {
	if s, ok := f.subs[subject]; ok {
		return s, true
	}
	s, ok := f.subs[subject[:strings.LastIndexByte(subject, '.')+1]+"*"]
	return s, ok
}

// send hands a message to whoever has subscribed to a subject.
func (f *fake) send(to string, m message) bool {
	s, ok := f.lookup(to)
	if !ok {
		return false
	}
	line := make([]byte, 0, 64+len(m.subject)+len(m.reply))
	line = append(line, "MSG "...)
	if m.header != nil {
		line = append(line[:0], "HMSG "...)
	}
	line = append(append(line, m.subject...), ' ')
	line = append(append(line, s.sid...), ' ')
	if m.reply != "" {
		line = append(append(line, m.reply...), ' ')
	}
	if m.header != nil {
		line = append(strconv.AppendInt(line, int64(len(m.header)), 10), ' ')
	}
	line = strconv.AppendInt(line, int64(len(m.header)+len(m.data)), 10)
	s.conn.in.write(line, []byte("\r\n"), m.header, m.data, []byte("\r\n"))
	return true
}

// answer sends a reply, unless nobody wants one.
func (f *fake) answer(reply, status string, data []byte) {
	if reply == "" {
		return
	}
	m := message{subject: reply, data: data}
	if status != "" {
		m.header = []byte("NATS/1.0 " + status + "\r\n\r\n")
	}
	f.send(reply, m)
}

// headerOf finds a value in a header.
func headerOf(header []byte, key string) string {
	_, after, ok := bytes.Cut(header, []byte("\r\n"+key+":"))
	if !ok {
		return ""
	}
	value, _, _ := bytes.Cut(after, []byte("\r\n"))
	return string(bytes.TrimSpace(value))
}
