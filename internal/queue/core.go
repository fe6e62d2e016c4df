package queue

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/codel"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/shed"
)

// CoreConfig describes an intake of core NATS.
type CoreConfig struct {
	// Subject and Queue group to subscribe to.
	Subject, Queue string
	// Local bounds what waits here.
	Local codel.Config
	// Priority of the jobs, and whether a header may raise it.
	Priority job.Priority
	Trust    bool
	// MaxMessage is the largest payload in bytes that is run.
	MaxMessage int64
}

// Core takes jobs from core NATS. Nobody keeps them: what this process does not
// do is lost, at most once is all there is. So it tells whoever waits for a
// reply at once, and counts what nobody will hear of.
//
//	message ─► local queue (bounded, CoDel) ──Request──► job.Receiver
//	             │ no room, waited too long: 429   │ Settle
//	             │ draining: 503                   ▼
//	             └──────────────────────────► reply, if one is wanted
type Core struct {
	conn *Conn
	cfg  CoreConfig
	id   string // of this intake among all there ever were

	wanted   atomic.Int64
	wake     chan struct{}
	draining atomic.Bool

	mu    sync.Mutex // guards stats
	stats CoreStats
}

// CoreStats is what an intake has done so far and how it is.
type CoreStats struct {
	// Subject subscribed to.
	Subject string
	// Ready: subscribed and connected. Problem says why not.
	Ready   bool
	Problem string
	// Waiting messages in the local queue; Overloaded while it does not empty.
	Waiting    int
	Overloaded bool
	// Received messages; of these Refused for want of room, Expired in the
	// local queue, and Undone: handed over, and given back.
	Received, Refused, Expired, Undone uint64
	// Lost are those of the last three whose sender wanted no reply.
	Lost uint64
}

// Core returns an intake. It does nothing until Run.
func (c *Conn) Core(cfg CoreConfig) *Core {
	return &Core{
		conn: c, cfg: cfg, id: "core-" + rand.Text()[:10], wake: make(chan struct{}, 1),
		stats: CoreStats{Subject: cfg.Subject, Problem: "not started"},
	}
}

// serverPatience is how long an intake waits for the server to know of it, at a
// time. Nothing is lost meanwhile: no message can have come.
const serverPatience = 200 * time.Millisecond

// coreLease is that of a job that nobody else can get.
const coreLease = 1000 * time.Hour

// AckWait is as good as endless: there is nobody to take the job away.
func (c *Core) AckWait() time.Duration { return coreLease }

// Request asks for n more jobs. It does not block.
func (c *Core) Request(n int) {
	c.wanted.Add(int64(n))
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Stats returns a copy of the counters.
func (c *Core) Stats() CoreStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Run takes messages until ctx ends. Then it unsubscribes, refuses what has not
// been handed over, so that the sender can ask another, and returns.
func (c *Core) Run(ctx context.Context, to job.Receiver) {
	i := &coreIntake{Core: c, to: to, msgs: make(chan *nats.Msg, c.cfg.Local.Capacity+1024), local: codel.New[arrival](c.cfg.Local)}
	i.run(ctx)
}

// coreIntake is the state of a running intake. Only its goroutine touches it.
type coreIntake struct {
	*Core
	to    job.Receiver
	msgs  chan *nats.Msg
	sub   *nats.Subscription
	heard bool // the server has the subscription
	local *codel.Queue[arrival]
	want  int
	seq   uint64
}

type arrival struct {
	msg *nats.Msg
	at  time.Time
}

func (i *coreIntake) run(ctx context.Context) {
	tick := time.NewTicker(i.cfg.Local.Interval)
	defer tick.Stop()
	for {
		i.subscribe()
		i.awaitServer()
		i.want += int(i.wanted.Swap(0))
		i.handOver(time.Now())
		select {
		case <-ctx.Done():
			i.stop()
			return
		case m := <-i.msgs:
			i.receive(m)
		case <-i.wake:
		case now := <-tick.C:
			i.refuseAll(i.local.Expire(now), true)
		}
		i.report()
	}
}

// subscribe is tried again at each step until it succeeds; from then on the
// client keeps it over reconnects.
func (i *coreIntake) subscribe() {
	if i.sub != nil {
		return
	}
	sub, err := i.conn.nc.ChanQueueSubscribe(i.cfg.Subject, i.cfg.Queue, i.msgs)
	if err != nil {
		i.note(func(s *CoreStats) { s.Ready, s.Problem = false, i.conn.explain(err).Error() })
		return
	}
	i.sub = sub
}

// awaitServer is called at each step until the server has the subscription: before
// that whoever asks is told that nobody is there.
func (i *coreIntake) awaitServer() {
	if i.sub != nil && !i.heard {
		i.heard = i.conn.nc.FlushTimeout(serverPatience) == nil
	}
}

func (i *coreIntake) report() {
	local, connected := i.local.Stats(), i.conn.Connected()
	i.note(func(s *CoreStats) {
		s.Waiting, s.Overloaded = local.Waiting, local.Overloaded
		if i.sub == nil {
			return
		}
		s.Ready, s.Problem = connected && i.heard, ""
		switch {
		case !connected:
			s.Problem = "not connected to NATS"
		case !i.heard:
			s.Problem = "the server has not confirmed the subscription"
		}
	})
}

func (c *Core) note(change func(*CoreStats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.stats)
}

// receive puts a message into the local queue, if there is room.
func (i *coreIntake) receive(m *nats.Msg) {
	i.note(func(s *CoreStats) { s.Received++ })
	class := i.cfg.Priority
	if wish, err := job.ParsePriority(job.Header(m.Header).Get(job.HeaderPriority)); err == nil && (wish > class || i.cfg.Trust) {
		class = wish
	}
	now := time.Now()
	a, rank := arrival{m, now}, codel.RankOf(int(class), shed.Level(whose(job.Header(m.Header)), now))
	turnedAway, ok := i.local.Push(now, rank, int64(m.Size()), a)
	if !ok {
		turnedAway = []arrival{a}
	}
	i.refuseAll(turnedAway, false)
}

// whose a message is: that of its key, or else its own. All that have neither are
// one.
func whose(h job.Header) string { return cmp.Or(h.Get(job.HeaderKey), h.Get(job.HeaderMsgID)) }

// handOver gives the pool what it has asked for.
func (i *coreIntake) handOver(now time.Time) {
	for i.want > 0 {
		a, ok, expired := i.local.Next(now)
		i.refuseAll(expired, true)
		if !ok {
			return
		}
		i.want--
		i.seq++
		meta := &nats.MsgMetadata{Stream: i.id, Timestamp: a.at, NumDelivered: 1, Sequence: nats.SequencePair{Stream: i.seq}}
		j := decode(a.msg, meta, SourceConfig{Priority: i.cfg.Priority, MaxMessage: i.cfg.MaxMessage})
		i.to.Deliver(&coreDelivery{core: i.Core, job: j, reply: a.msg.Reply, until: now.Add(coreLease)}, uint64(i.local.Stats().Waiting))
	}
}

// refuseAll turns messages away because there are too many of them.
func (i *coreIntake) refuseAll(all []arrival, expired bool) {
	for _, a := range all {
		i.note(func(s *CoreStats) {
			if expired {
				s.Expired++
			} else {
				s.Refused++
			}
		})
		i.refuse(a.msg.Reply, "429", "too many requests, try again later", time.Second)
	}
}

// stop unsubscribes and refuses what has not been handed over. The flush makes
// sure that what the server had sent before has arrived.
func (i *coreIntake) stop() {
	i.draining.Store(true)
	if i.sub != nil {
		if err := i.sub.Drain(); err == nil {
			_ = i.conn.nc.FlushTimeout(drainTimeout) // without an answer the server is gone, and with it the senders
		}
	}
	for {
		select {
		case m := <-i.msgs:
			i.refuse(m.Reply, "503", "draining, try another", 0)
			i.note(func(s *CoreStats) { s.Received++; s.Refused++ })
			continue
		default:
		}
		break
	}
	for _, a := range i.local.Drain() {
		i.refuse(a.msg.Reply, "503", "draining, try another", 0)
		i.note(func(s *CoreStats) { s.Refused++ })
	}
	i.report()
}

// refuse tells whoever waits for a reply that there will be none, in the words
// of NATS services. Who does not wait will never know; that is counted.
func (c *Core) refuse(reply, code, text string, after time.Duration) {
	if reply == "" {
		c.note(func(s *CoreStats) { s.Lost++ })
		return
	}
	h := nats.Header{"Nats-Service-Error-Code": {code}, "Nats-Service-Error": {text}}
	if after > 0 {
		h["Retry-After"] = []string{strconv.Itoa(int(math.Ceil(after.Seconds())))}
	}
	c.respond(&nats.Msg{Subject: reply, Header: h})
}

// respond sends a reply. If it cannot be sent the sender hears nothing, as if
// we had been killed.
func (c *Core) respond(m *nats.Msg) {
	if err := c.conn.nc.PublishMsg(m); err != nil {
		c.note(func(s *CoreStats) { s.Lost++ })
	}
}

// coreDelivery is a job in hand that came by core NATS.
type coreDelivery struct {
	core    *Core
	job     *job.Job
	reply   string
	until   time.Time
	settled atomic.Bool
}

// Job implements job.Delivery.
func (d *coreDelivery) Job() *job.Job { return d.job }

// Extend implements job.Delivery: there is nobody to tell.
func (d *coreDelivery) Extend() {}

// LeaseUntil implements job.Delivery.
func (d *coreDelivery) LeaseUntil() time.Time { return d.until }

// Settle implements job.Delivery. A job cannot be given back: who waits for a
// reply is asked to try again, otherwise the job is lost.
func (d *coreDelivery) Settle(v job.Verb, after time.Duration) error {
	if d.settled.Swap(true) {
		panic("queue: delivery settled twice: " + d.job.Key())
	}
	switch v {
	case job.Ack:
		if d.reply != "" {
			d.core.respond(&nats.Msg{Subject: d.reply})
		}
	case job.Term:
		d.fail("500", "the job failed for good; it is among the dead letters")
	case job.Nak:
		d.core.note(func(s *CoreStats) { s.Undone++ })
		text := "not done, try again later"
		if d.core.draining.Load() {
			text, after = "draining, try another", 0
		}
		d.core.refuse(d.reply, "503", text, after)
	default:
		panic(fmt.Sprintf("queue: verb %d", v))
	}
	return nil
}

// fail tells whoever waits; nothing is lost, as the dead letter is stored.
func (d *coreDelivery) fail(code, text string) {
	if d.reply != "" {
		d.core.refuse(d.reply, code, text, 0)
	}
}
