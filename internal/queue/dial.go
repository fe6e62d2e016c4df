package queue

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// dialer opens connections that remember why the server refused them.
//
// A server that is full says so right behind its greeting and hangs up. The
// client reads both at once, keeps the greeting, and then only knows that its
// own first words could not be written: "broken pipe".
type dialer struct{}

// Dial implements nats.CustomDialer.
func (dialer) Dial(network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: dialTimeout}).Dial(network, address)
	if err != nil {
		return nil, err
	}
	return &greeted{Conn: c}, nil
}

// greeted is a connection whose greeting has been, or is being, read. Until
// the server has answered the first words it is used by one goroutine only.
type greeted struct {
	net.Conn
	accepted atomic.Bool
	spoken   bool   // the first words were written
	refusal  string // what the server said against it
}

// greetingLonger bounds what is waited for a refusal on a connection that
// cannot be written to any more.
const greetingLonger = 100 * time.Millisecond

// Read implements net.Conn.
func (c *greeted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.accepted.Load() {
		return n, err
	}
	c.listen(p[:n])
	if c.spoken && n > 0 {
		c.accepted.Store(true) // or refused in words that the client itself reads
	}
	return n, c.why(err)
}

// Write implements net.Conn.
func (c *greeted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.accepted.Load() {
		return n, err
	}
	c.spoken = true
	if err != nil && c.refusal == "" {
		var rest [512]byte
		_ = c.SetReadDeadline(time.Now().Add(greetingLonger)) // the connection is lost anyway
		m, _ := c.Conn.Read(rest[:])
		c.listen(rest[:m])
	}
	return n, c.why(err)
}

func (c *greeted) listen(said []byte) {
	for line := range bytes.Lines(said) {
		if text, ok := bytes.CutPrefix(line, []byte("-ERR ")); ok {
			c.refusal = strings.Trim(string(text), "' \r\n")
		}
	}
}

func (c *greeted) why(err error) error {
	if err == nil || c.refusal == "" {
		return err
	}
	return fmt.Errorf("the server refused the connection: %s: %w", c.refusal, err)
}
