package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/job"
)

const (
	// settleRTO is how long a settlement waits for its confirmation before it
	// is sent again.
	settleRTO = time.Second
	// settleTick is how often overdue settlements are looked for.
	settleTick = 250 * time.Millisecond
	// settleGiveUp is the least time a settlement is pursued.
	settleGiveUp = time.Minute
	// settleWindow bounds the unconfirmed settlements of a connection. When it
	// is full the slots wait: the natural back-pressure while the broker has
	// no leader.
	settleWindow = 4096
	// extendPatience is how long the confirmation of an extension is waited for,
	// nakPatience how long that of a nak, which is not sent again.
	extendPatience = 5 * time.Second
	nakPatience    = 2 * settleRTO
)

// settler sends acks, naks and terms without making the job's slot wait, and
// sends acks and terms again until the broker has confirmed them: a plain ack
// is lost with the connection, and the job would run twice.
//
// A nak that may have left is never sent again. If only its confirmation was
// lost, somebody else has the job by now, and the broker would take it from
// them: it does not compare delivery counts. If the nak was lost, the job comes
// again when its lease ends.
//
// One goroutine reads confirmations and resends; any goroutine may send.
type settler struct {
	conn   *Conn
	prefix string // inbox of confirmations, with its final dot
	sub    *nats.Subscription
	in     chan *nats.Msg
	window chan struct{}
	stop   chan struct{}
	wg     sync.WaitGroup

	mu        sync.Mutex
	next      uint64
	open      map[uint64]*settlement
	unsettled int           // settlements in open that end a delivery
	idle      chan struct{} // closed when unsettled falls to 0; nil if nobody waits
	resent    uint64
	abandoned uint64
}

// settlement is one message the broker has to confirm.
type settlement struct {
	l       *lease
	kind    kind
	payload []byte
	first   time.Time
	sent    time.Time
	left    bool // it may have reached the broker
}

// kind of settlement: what may be done if no confirmation comes.
type kind uint8

const (
	extension kind = iota // of the lease; it ends nothing
	ack                   // may be sent for ever
	term                  // while the lease lasts
	nak                   // once, while the lease lasts
)

// hopeless tells whether there is no more to be done for a settlement.
func (p *settlement) hopeless(now time.Time) bool {
	age := now.Sub(p.first)
	switch p.kind {
	case extension:
		return age > extendPatience
	case ack:
		return age > max(settleGiveUp, 2*p.l.ackWait)
	case nak:
		return !p.l.ours(now) || p.left && age > nakPatience
	case term:
	}
	return !p.l.ours(now)
}

// again tells whether it may be sent once more.
func (p *settlement) again(now time.Time, rto time.Duration) bool {
	return p.kind != extension && now.Sub(p.sent) >= rto && !(p.kind == nak && p.left)
}

func newSettler(c *Conn) (*settler, error) {
	s := &settler{
		conn:   c,
		prefix: c.nc.NewInbox() + ".",
		in:     make(chan *nats.Msg, 2*settleWindow),
		window: make(chan struct{}, settleWindow),
		stop:   make(chan struct{}),
		open:   make(map[uint64]*settlement),
	}
	var err error
	if s.sub, err = c.nc.ChanSubscribe(s.prefix+"*", s.in); err != nil {
		return nil, fmt.Errorf("subscribe to confirmations: %w", err)
	}
	s.wg.Go(s.run)
	return s, nil
}

func (s *settler) close() {
	close(s.stop)
	s.wg.Wait()
	_ = s.sub.Unsubscribe() // the connection is about to be closed
}

// settle sends what ends a delivery. It blocks while the window is full.
func (s *settler) settle(l *lease, v job.Verb, after time.Duration) {
	p := &settlement{l: l, kind: nak, payload: verbPayload(v, after)}
	switch v {
	case job.Ack:
		p.kind = ack
	case job.Term:
		p.kind = term
	case job.Nak:
	}
	select {
	case s.window <- struct{}{}:
	case <-s.stop:
		return
	}
	s.send(p)
}

// extend sends a sign of life. Losing one does no harm, the next will come.
func (s *settler) extend(l *lease) {
	s.send(&settlement{l: l, payload: []byte("+WPI")})
}

func (s *settler) send(p *settlement) {
	p.first = time.Now()
	p.sent, p.left = p.first, true
	s.mu.Lock()
	token := s.next
	s.next++
	s.open[token] = p
	if p.kind != extension {
		s.unsettled++
	}
	s.mu.Unlock()
	s.publish(token, p)
}

// publish leaves errors to the next resend: the only one is that there is no
// connection, and that nothing has left.
func (s *settler) publish(token uint64, p *settlement) {
	err := s.conn.nc.PublishRequest(p.l.replySubject(), s.prefix+strconv.FormatUint(token, 36), p.payload)
	if err == nil || p.kind != nak {
		return
	}
	s.mu.Lock()
	p.left = false
	s.mu.Unlock()
}

func (s *settler) run() {
	tick := time.NewTicker(settleTick)
	defer tick.Stop()
	changed := s.conn.Changed()
	for {
		select {
		case <-s.stop:
			return
		case m := <-s.in:
			s.confirmed(m)
		case now := <-tick.C:
			s.resend(now, settleRTO)
		case <-changed:
			changed = s.conn.Changed()
			if s.conn.Connected() {
				s.resend(time.Now(), 0)
			}
		}
	}
}

func (s *settler) confirmed(m *nats.Msg) {
	if len(m.Data) > 0 || m.Header.Get("Status") != "" {
		return // an error or "no responders": the resend follows
	}
	token, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, s.prefix), 36, 64)
	if err != nil {
		return
	}
	s.mu.Lock()
	p := s.open[token]
	s.remove(token, p)
	s.mu.Unlock()
	if p != nil && p.kind == extension {
		p.l.extended(p.sent)
	}
}

// remove forgets a settlement. The caller holds mu.
func (s *settler) remove(token uint64, p *settlement) {
	if p == nil {
		return
	}
	delete(s.open, token)
	if p.kind == extension {
		return
	}
	<-s.window
	s.unsettled--
	if s.unsettled == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// resend sends again what has waited longer than rto, and gives up what is
// hopeless or would be harmful.
func (s *settler) resend(now time.Time, rto time.Duration) {
	type item struct {
		token uint64
		p     *settlement
	}
	var due []item
	s.mu.Lock()
	for token, p := range s.open {
		switch {
		case p.hopeless(now):
			if p.kind != extension {
				s.abandoned++
			}
			s.remove(token, p)
		case p.again(now, rto):
			p.sent, p.left = now, true
			s.resent++
			due = append(due, item{token, p})
		}
	}
	s.mu.Unlock()
	for _, i := range due {
		s.publish(i.token, i.p)
	}
}

// flush waits until no settlement is open.
func (s *settler) flush(ctx context.Context) error {
	s.mu.Lock()
	if s.unsettled == 0 {
		s.mu.Unlock()
		return nil
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d settlements are not confirmed: %w", s.count(), context.Cause(ctx))
	}
}

func (s *settler) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsettled
}

func (s *settler) stats() (unsettled int, resent, abandoned uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsettled, s.resent, s.abandoned
}
