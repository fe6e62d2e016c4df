package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/job"
)

// Timing of pulling.
const (
	// heartbeat is how often the broker shows that a waiting request is alive.
	heartbeat = time.Second
	// silence without which a request counts as lost: a dead consumer leader
	// is noticed within 3 s.
	silence = 2*heartbeat + heartbeat/2
	// pullExpires is how long a request waits at the broker.
	pullExpires = 10 * time.Second
	// frozen is how long the puller has not looked, though it does so each
	// quarter of a second, when the process must have been stopped.
	frozen = time.Second
	// linger is how long a stopping source waits for what it asked for:
	// unsubscribing at once would strand it until ack_wait.
	linger = 500 * time.Millisecond
	// drainTimeout bounds the last round trip with the broker.
	drainTimeout = 2 * time.Second
	// firstRetry and longestRetry bound the wait after the broker refused a request.
	firstRetry   = 100 * time.Millisecond
	longestRetry = 5 * time.Second
	// refusals in a row after which it is said: a leader that moves refuses one.
	refusals = 6
	// lookupTimeout bounds the first questions after the consumer. A cluster
	// that has no leader yet never answers them, not even once it has one.
	lookupTimeout = time.Second
	// hasty is how many of them go unanswered before the next ones get
	// apiTimeout: the broker may be that slow.
	hasty = 10
)

// puller is the state of a running source. Only its goroutine touches it.
type puller struct {
	*Source
	to   job.Receiver
	msgs chan *nats.Msg
	book book

	sub        *nats.Subscription
	connection uint64 // number of the connection sub was made on
	prefix     string // inbox of this epoch, with its final dot
	subject    string // of pull requests
	requests   uint64
	old        []retired
	lastSeen   time.Time
	awake      time.Time // when run looked last
	slept      time.Time // since when it had not, or heard nothing, until that is made up for
	forged     forgeries
	last       uint64    // number of the last delivery, by the consumer's count
	turned     time.Time // since when that count is a new one, for reasons not known yet; zero: it is the old one

	ensured  bool
	silent   int // questions after the consumer that went unanswered, in a row
	backoff  time.Duration
	resumeAt time.Time
	refused  int    // requests in a row that the broker refused
	refusal  string // why, if it has said so again and again
}

func (p *puller) run(ctx context.Context) {
	tick := time.NewTicker(heartbeat / 4)
	defer tick.Stop()
	changed := p.conn.Changed()
	p.awake = time.Now()
	for {
		p.wakeUp()
		p.catchUp()
		p.step(ctx)
		p.awake = time.Now()
		select {
		case <-ctx.Done():
			p.stop()
			return
		case m := <-p.msgs:
			p.receive(m)
			p.receiveWaiting()
		case <-p.wake:
		case <-tick.C:
		case <-changed:
			changed = p.conn.Changed()
			p.reconnected()
		}
	}
}

// receiveWaiting takes what has arrived meanwhile, so that a burst is answered
// by one request.
func (p *puller) receiveWaiting() {
	for range 64 {
		select {
		case m := <-p.msgs:
			p.receive(m)
		default:
			return
		}
	}
}

// step does whatever is due: a lost request, a missing consumer, a new request.
func (p *puller) step(ctx context.Context) {
	now := time.Now()
	p.expireOld(now)
	p.book.want(int(p.wanted.Swap(0)))
	if p.suspect.Swap(false) {
		p.ensured = false
	}
	if p.book.requests > 0 && p.quiet(now) {
		p.newEpoch("no heartbeat", p.nextBackoff())
		p.unheard(now)
	}
	if !p.conn.Connected() {
		p.report(false, "not connected to NATS")
		return
	}
	if p.book.wanted == 0 && p.ensured || now.Before(p.resumeAt) {
		return
	}
	if !p.ensured && !p.ensure(ctx) {
		return
	}
	if !p.sure(time.Now()) { // the consumer may have been looked up for long
		return
	}
	if n := p.book.ask(); n > 0 {
		p.pull(n)
	}
}

func (p *puller) subscribe() error {
	p.connection = p.conn.nc.Stats().Reconnects
	prefix := p.conn.nc.NewInbox() + "."
	sub, err := p.conn.nc.ChanSubscribe(prefix+"*", p.msgs)
	if err != nil {
		return fmt.Errorf("subscribe to deliveries: %w", err)
	}
	p.sub, p.prefix = sub, prefix
	return nil
}

func (p *puller) pull(n int) {
	body := make([]byte, 0, 96)
	body = append(body, `{"batch":`...)
	body = strconv.AppendInt(body, int64(n), 10)
	body = append(body, `,"expires":`...)
	body = strconv.AppendInt(body, int64(pullExpires), 10)
	body = append(body, `,"idle_heartbeat":`...)
	body = strconv.AppendInt(body, int64(heartbeat), 10)
	body = append(body, '}')
	p.requests++
	if p.book.requests == 1 {
		p.lastSeen = time.Now()
	}
	if err := p.conn.nc.PublishRequest(p.subject, p.prefix+strconv.FormatUint(p.requests, 36), body); err != nil {
		p.newEpoch(err.Error(), p.nextBackoff())
		return
	}
	p.mu.Lock()
	p.stats.Pulls++
	p.stats.Outstanding = p.book.out
	p.mu.Unlock()
}

// receive handles one message of an inbox, a job or a word about a request.
// What is neither is ignored before it can be counted as either.
func (p *puller) receive(m *nats.Msg) {
	p.wakeUp()
	current := m.Sub == p.sub
	if m.Reply == "" {
		if code := m.Header.Get("Status"); code == "" {
			p.ignore(errNoStatus)
		} else if current {
			p.lastSeen = time.Now()
			p.status(m, code)
		}
		return
	}
	meta, err := origin(m, strings.TrimSuffix(m.Sub.Subject, "*"), p.cfg)
	if err != nil {
		p.ignore(err)
		return
	}
	now := time.Now()
	p.counted(meta.Sequence.Consumer, now)
	if current {
		p.lastSeen = now
		p.book.delivered()
		p.accepted()
	} else {
		p.unheard(now)
		p.book.straggler()
		p.backoff = 0
	}
	p.job(m, meta, now)
}

func (p *puller) job(m *nats.Msg, meta *nats.MsgMetadata, now time.Time) {
	sent := now
	if !p.slept.IsZero() {
		sent = p.slept
	}
	d := newDelivery(decode(m, meta, p.cfg), p.Source, m.Reply, sent)
	if !p.takes(m.Subject) {
		p.refuse(d, "a job of another subject was given back", 0)
		return
	}
	what, first := p.recent.arrive(d)
	p.count(meta, what)
	switch what {
	case finished:
		d.settled.Store(true)
		p.conn.settler.settle(d.lease, job.Ack, 0)
		p.to.Returned(1)
	case inHand:
		first.adopt(m.Reply)
		first.Extend()
		p.to.Returned(1)
	case fresh:
		if beheaded(m) && !p.deliversAll() {
			p.refuse(d, "a job was given back, as it came without its payload", beheadedPause)
			return
		}
		// The broker keeps publication time + ack_wait as its deadline over a
		// restart: without this sign of life an old job would be repeated then.
		if now.Sub(d.job.Enqueued) > min(time.Second, d.ackWait/10) && now.Before(d.LeaseUntil()) {
			_ = p.conn.nc.Publish(m.Reply, []byte("+WPI")) // lost with the connection, as the delivery
		}
		p.to.Deliver(d, meta.NumPending)
	}
}

func (p *puller) count(meta *nats.MsgMetadata, what verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Delivered++
	p.stats.Outstanding = p.book.out
	p.stats.Backlog = meta.NumPending
	if meta.NumDelivered > 1 {
		p.stats.Redelivered++
	}
	if what != fresh {
		p.stats.Suppressed++
	}
}

// status handles what the broker says about a request; ref the statuses of the
// pull protocol in nats-server's consumer.go.
func (p *puller) status(m *nats.Msg, code string) {
	if code == "100" {
		p.accepted()
		return
	}
	description := m.Header.Get("Description")
	if left, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages")); err == nil && left >= 0 {
		if n := p.book.returned(left); n > 0 {
			p.to.Returned(n)
		}
		p.accepted()
		return
	}
	if code == "404" {
		return
	}
	p.newEpoch(code+" "+description, p.nextBackoff())
	if p.refused++; p.refused >= refusals {
		p.refusal = fmt.Sprintf("the broker gives no jobs of consumer %s: %s %s", p.cfg.Consumer, code, description)
	}
	// No responders, or the consumer is gone, or the leader has moved.
	p.ensured = false
}

// accepted notes that the broker keeps a request of this epoch, or has answered it.
func (p *puller) accepted() {
	p.backoff, p.refused = 0, 0
	if p.refusal == "" {
		return
	}
	p.refusal = ""
	if p.ensured { // else there is another reason, and it is said
		p.report(true, "")
	}
}

func (p *puller) nextBackoff() time.Duration {
	p.backoff = min(max(firstRetry, 2*p.backoff), longestRetry)
	return p.backoff - time.Duration(rand.Float64()*0.5*float64(p.backoff))
}

func (p *puller) report(ready bool, problem string) {
	p.mu.Lock()
	changed := p.stats.Ready != ready || p.stats.Problem != problem
	p.stats.Ready, p.stats.Problem = ready, problem
	p.mu.Unlock()
	if !changed {
		return
	}
	switch {
	case ready:
		p.conn.log.Info("consumer is ready", "stream", p.cfg.Stream, "consumer", p.cfg.Consumer)
	case p.conn.Connected(): // otherwise the connection says so, once
		p.conn.log.Warn("consumer is not ready", "stream", p.cfg.Stream, "consumer", p.cfg.Consumer, "problem", problem)
	}
}

// stop waits until what was asked for has come or will not come any more, and
// gives it back.
func (p *puller) stop() {
	p.mu.Lock()
	p.stats.Ready, p.stats.Problem = false, "stopped"
	p.mu.Unlock()
	var parked []job.Delivery
	p.to = parking{p.to, &parked}
	p.lingerUntil(time.NewTimer(linger))
	for _, sub := range p.subscriptions() {
		_ = sub.Drain() // fails only if the connection is closed
	}
	if p.conn.Connected() {
		_ = p.conn.nc.FlushTimeout(drainTimeout) // after its answer nothing is under way
	}
	for len(p.msgs) > 0 {
		p.receive(<-p.msgs)
	}
	for _, d := range parked {
		_ = d.Settle(job.Nak, 0) // a lost lease needs no hand-back
	}
}

func (p *puller) subscriptions() []*nats.Subscription {
	var subs []*nats.Subscription
	if p.sub != nil {
		subs = append(subs, p.sub)
	}
	for _, o := range p.old {
		subs = append(subs, o.sub)
	}
	return subs
}

func (p *puller) lingerUntil(timer *time.Timer) {
	defer timer.Stop()
	for p.book.out > 0 && p.conn.Connected() {
		select {
		case m := <-p.msgs:
			p.receive(m)
		case <-timer.C:
			return
		}
	}
}

// parking collects what arrives for a source that has stopped.
type parking struct {
	job.Receiver
	parked *[]job.Delivery
}

// Deliver implements job.Receiver.
func (k parking) Deliver(d job.Delivery, _ uint64) { *k.parked = append(*k.parked, d) }
