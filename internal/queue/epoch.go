package queue

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

// retired is the inbox of an earlier epoch. Requests may still be answered
// there until they expire.
type retired struct {
	sub   *nats.Subscription
	until time.Time
}

// newEpoch gives up all requests: their inbox is kept until they have expired,
// and what they asked for is asked for anew after the pause.
func (p *puller) newEpoch(why string, pause time.Duration) {
	if p.sub == nil {
		return
	}
	if p.book.requests > 0 {
		p.conn.log.Log(context.Background(), slog.LevelDebug, "pull requests given up",
			"consumer", p.cfg.Consumer, "reason", why, "outstanding", p.book.out)
	}
	p.book.void()
	p.old = append(p.old, retired{p.sub, time.Now().Add(pullExpires)})
	p.sub = nil
	p.ensured = false
	p.resumeAt = time.Now().Add(pause)
	p.mu.Lock()
	p.stats.Epochs++
	p.stats.Outstanding = 0
	p.mu.Unlock()
}

// wakeUp notices that the process did not run for a while. What has been
// delivered meanwhile may have gone to somebody else since, and nothing in it
// tells how long it has lain here. So until catchUp it counts as old as it may be.
func (p *puller) wakeUp() {
	now := time.Now()
	if now.Sub(p.awake) > frozen && p.slept.IsZero() {
		p.slept = p.awake
	}
	p.awake = now
}

// unheard notes that nothing has come although something should have. If not
// the consumer is dead but the connection stands still, what was sent since is
// still under way, and will be somebody else's by the time it is here.
func (p *puller) unheard(now time.Time) {
	if p.quiet(now) && p.slept.IsZero() {
		p.slept = p.lastSeen
	}
}

// quiet tells whether nothing has come for so long that the connection may stand
// still, or have stood still until now.
func (p *puller) quiet(now time.Time) bool {
	return !p.lastSeen.IsZero() && now.Sub(p.lastSeen) > silence
}

// sure tells whether all that was sent before has come. While nothing is asked for
// nothing has to come, and a connection that stands still is not noticed; but
// an inbox that was given up may be answered yet.
func (p *puller) sure(now time.Time) bool {
	if p.book.requests == 0 {
		p.unheard(now)
		p.catchUp()
	}
	return p.slept.IsZero()
}

// catchUp takes whatever was sent while the process did not run, or nothing came:
// after the answer of the broker nothing older is under way.
func (p *puller) catchUp() {
	if p.slept.IsZero() || p.conn.Connected() && p.conn.nc.FlushTimeout(drainTimeout) != nil {
		return
	}
	for range len(p.msgs) {
		p.receive(<-p.msgs)
	}
	p.slept = time.Time{}
}

// reconnected gives up what was asked for over another connection. That there
// is a connection at all may be told late, when it has been used already.
func (p *puller) reconnected() {
	if p.conn.Connected() && p.connection == p.conn.nc.Stats().Reconnects {
		return
	}
	p.newEpoch("connection changed", 0)
	p.ensured = false
	if p.conn.Connected() {
		p.recent.extendAll()
	}
}

// counted notes the number a consumer gave to a delivery. If it goes back the
// consumer is another one, or a broker has forgotten the last ones.
func (p *puller) counted(delivery uint64, now time.Time) {
	if delivery <= p.last {
		p.turned = now
		p.suspect.Store(true)
	}
	p.last = delivery
}

// madeAnew disowns what is in hand of the consumer that was.
func (p *puller) madeAnew() {
	since := p.turned
	if since.IsZero() {
		since = time.Now()
		p.last = 0
	}
	if n := p.recent.disown(since); n > 0 {
		p.conn.log.Warn("the consumer is another one than before, which may give what is in hand here to others",
			"stream", p.cfg.Stream, "consumer", p.cfg.Consumer, "jobs", n)
	}
}

func (p *puller) expireOld(now time.Time) {
	for len(p.old) > 0 && now.After(p.old[0].until) {
		_ = p.old[0].sub.Unsubscribe() // fails only if the connection is closed
		p.old = p.old[1:]
	}
}
