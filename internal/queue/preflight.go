package queue

import (
	"errors"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// How often permissions are tried: they may be changed while we are connected,
// and the server tells nobody. While one is missing it is tried more often.
const (
	tryPermissions = 10 * time.Second
	tryMissing     = 2 * time.Second
	// staleDenial is when a violation that nobody can try again is forgotten.
	staleDenial = time.Minute
)

// denials are the permissions the server has refused. The server answers a
// call that is not permitted with nothing but a line to the connection; without
// this it would look like a time-out. Guarded by Conn.mu.
type denials struct {
	needed     []Permission
	missing    map[string]denial // by verb and subject of the permission, or as denied
	tried      time.Time         // start of the last round
	reconnects uint64            // of the connection that was tried last
	connected  bool              // some connection was tried
}

type denial struct {
	Permission
	at time.Time // when it was refused last
}

// Need tells the connection what it is going to need. It is called once, before
// [Conn.TryPermissions].
func (c *Conn) Need(all []Permission) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied.needed = Distinct(all)
}

// Missing says in a sentence each what is needed and not permitted. An empty
// list may also mean that the server was not asked yet.
func (c *Conn) Missing() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, key := range slices.Sorted(maps.Keys(c.denied.missing)) {
		if d := c.denied.missing[key]; d.Need == Required {
			all = append(all, d.sentence())
		}
	}
	return all
}

// TryPermissions finds out what is not permitted, by doing things that have no
// effect. It does not wait: what the server refuses is logged, and in Missing,
// as soon as it says so. Whoever looks after the process calls it each second.
func (c *Conn) TryPermissions(now time.Time) {
	if !c.Connected() {
		return
	}
	due, restored := c.round(now)
	for _, p := range due {
		c.try(p)
	}
	if restored {
		// The server has thrown our subscriptions away and does not take them up
		// again by itself.
		c.log.Info("may subscribe again, connecting anew")
		_ = c.nc.ForceReconnect() // fails only if the connection is closed
	}
}

// round returns what is to be tried now, and whether subscriptions that were
// refused are permitted again.
func (c *Conn) round(now time.Time) (due []Permission, restored bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &c.denied
	fresh := !d.connected || d.reconnects != c.nc.Stats().Reconnects
	pause := tryPermissions
	if len(d.missing) > 0 {
		pause = tryMissing
	}
	if !fresh && now.Sub(d.tried) < pause {
		return nil, false
	}
	for key, m := range d.missing {
		if m.at.Before(d.tried) && (m.For != "" && !m.Untried || now.Sub(m.at) > staleDenial) {
			delete(d.missing, key)
			restored = restored || m.Verb == Subscribe && !fresh
			c.log.Info("NATS permits again", "permission", key)
		}
	}
	for _, p := range d.needed {
		if _, missing := d.missing[p.key()]; !p.Untried && (fresh || missing || !p.Overheard) {
			due = append(due, p)
		}
	}
	d.tried, d.connected, d.reconnects = now, true, c.nc.Stats().Reconnects
	return due, restored
}

func (p Permission) key() string { return string(p.Verb) + " " + p.Subject }

// try does something that has no effect but to be refused if it is not
// permitted. A publish wants no answer, and names a stream that a real one is
// not, so that none takes it.
func (c *Conn) try(p Permission) {
	subject := p.Probe
	if subject == "" {
		subject = p.Subject
	}
	if p.Verb == Subscribe {
		if sub, err := c.nc.SubscribeSync(subject); err == nil {
			_ = sub.Unsubscribe() // the server has seen both, in order
		}
		return
	}
	_ = c.nc.PublishMsg(&nats.Msg{ // fails with the connection, and is tried again with the next
		Subject: subject, Data: []byte(p.Body), Header: nats.Header{"Nats-Expected-Stream": {"-"}},
	})
}

// violation is what a server says; see sendErr in nats-server's client.go.
var violation = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to ("(?:[^"\\]|\\.)*")`)

// refused notes a violation the server told of, and says it the first time. It
// is false for another error.
func (c *Conn) refused(err error) bool {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return false
	}
	m := violation.FindStringSubmatch(err.Error())
	if m == nil {
		return false
	}
	p := Permission{Verb: Publish, Subject: m[2], Need: Useful}
	if m[1] != "Publish" && m[1] != "publish" {
		p.Verb = Subscribe
	}
	if s, err := strconv.Unquote(m[2]); err == nil {
		p.Subject = s
	}
	c.note(p)
	return true
}

func (c *Conn) note(p Permission) {
	c.mu.Lock()
	for _, n := range c.denied.needed {
		if n.Verb == p.Verb && (SubjectCovers(n.Subject, p.Subject) || n.Probe == p.Subject) {
			p = n
			break
		}
	}
	_, known := c.denied.missing[p.key()]
	if known || len(c.denied.missing) < maxOnce {
		c.denied.missing[p.key()] = denial{p, time.Now()}
	}
	c.mu.Unlock()
	if known {
		return
	}
	level, hint := slog.LevelError, "`workerd nats-permissions` prints what to permit"
	switch p.Need {
	case Creates:
		level, hint = slog.LevelInfo, "no harm while it exists"
	case Useful:
		level = slog.LevelWarn
	default: // without it nothing works
	}
	c.log.Log(c.life, level, "a permission is missing", "problem", p.sentence(), "hint", hint)
}

// forbidden tells whether publishing to a subject was refused lately.
func (c *Conn) forbidden(subject string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.denied.missing {
		if d.Verb == Publish && SubjectCovers(d.Subject, subject) {
			return true
		}
	}
	return false
}

// lastRefusal is the sentence about what was refused within the time a call
// takes, "" if nothing was.
func (c *Conn) lastRefusal(now time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var last denial
	for _, d := range c.denied.missing {
		if d.at.After(last.at) {
			last = d
		}
	}
	if now.Sub(last.at) > 2*apiTimeout {
		return ""
	}
	return last.sentence()
}
