package queue

import (
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// outage is a time without a connection.
type outage struct {
	since, said time.Time // when it began, and when it was spoken of last
	err         string    // what was said then
}

// How often an outage is spoken of: at once, soon again when the error is
// another one, and now and then.
const (
	remindEvery = 30 * time.Second
	remindOther = 5 * time.Second
)

// Remind logs that NATS cannot be reached, if that was not said lately. The
// client is silent while it is refused (wrong credentials); whoever looks
// after the process calls this each second.
func (c *Conn) Remind(now time.Time) {
	if !c.nc.IsConnected() && !c.nc.IsClosed() {
		c.complain(now, c.nc.LastError())
	}
}

// Outage says in a sentence why NATS cannot be reached, "" if it can.
func (c *Conn) Outage(now time.Time) string {
	if c.Connected() {
		return ""
	}
	c.mu.Lock()
	o := c.outage
	c.mu.Unlock()
	text := "not connected to " + c.cfg.Address()
	if o.err == "" {
		return text
	}
	return text + " for " + now.Sub(o.since).Round(time.Second).String() + ": " + o.err
}

func (c *Conn) complain(now time.Time, err error) {
	// The first try ends with this error; the next one tells why.
	if err == nil || errors.Is(err, nats.ErrNoServers) {
		return
	}
	c.mu.Lock()
	due, lasts := c.outage.speak(now, err.Error())
	c.mu.Unlock()
	if due {
		c.log.Warn("cannot reach NATS, trying until it answers", "url", c.cfg.Address(), "err", err, "for", lasts.Round(time.Second))
	}
}

// speak tells whether it is time to say something, and how long this lasts.
func (o *outage) speak(now time.Time, text string) (due bool, lasts time.Duration) {
	if o.since.IsZero() {
		o.since = now
	}
	quiet := remindEvery
	if text != o.err {
		quiet = remindOther
	}
	if !o.said.IsZero() && now.Sub(o.said) < quiet {
		return false, 0
	}
	o.said, o.err = now, text
	return true, now.Sub(o.since)
}

func (c *Conn) endOutage() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outage = outage{}
}
