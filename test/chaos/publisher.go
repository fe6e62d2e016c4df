package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// stream the jobs lie in.
const stream = "JOBS"

// publisher sends jobs and remembers which ones the stream has taken.
type publisher struct {
	seed    uint64
	prefix  string
	size    int
	js      jetstream.JetStream
	clock   func() time.Duration
	hostile bool // one in ten means harm
	sent    []sent
	// sequences the stream said it has given to jobs.
	sequences map[string]uint64
	refused   int // the client would not even send them
}

type sent struct {
	id  string
	at  time.Duration
	ack jetstream.PubAckFuture
}

// pace publishes rate jobs a second until ctx ends.
func (p *publisher) pace(ctx context.Context, rate int) {
	const ticks = 50 // a second
	tick := time.NewTicker(time.Second / ticks)
	defer tick.Stop()
	for n, next := 1, 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for ; next < n*rate/ticks; next++ {
			p.publish(fmt.Sprintf("%s-%d", p.prefix, next))
		}
	}
}

// publish sends a job and does not wait for the answer. It is not sent again:
// whether one without an answer is in the stream is not known.
func (p *publisher) publish(id string) {
	if p.hostile && chance(p.seed, id, "hostile", 10) == 0 {
		id = hostile + id
	}
	m := &nats.Msg{Subject: "jobs.normal", Data: payload(p.seed, id, p.size), Header: hostileHeader(p.seed, id)}
	if chance(p.seed, id, "high", 4) == 0 {
		m.Subject = "jobs.high"
	}
	at := p.clock()
	ack, err := p.js.PublishMsgAsync(m, jetstream.WithMsgID(id))
	if err != nil {
		p.refused++
		return
	}
	p.sent = append(p.sent, sent{id, at, ack})
}

// settle waits for the answers that are still to come and sorts the jobs.
func (p *publisher) settle(limit time.Duration) (acked, unknown []string) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.js.PublishAsyncComplete():
	case <-timer.C:
	}
	for _, s := range p.sent {
		select {
		case ack := <-s.ack.Ok():
			acked = append(acked, s.id)
			p.sequences[s.id] = ack.Sequence
		default:
			unknown = append(unknown, s.id)
		}
	}
	return acked, unknown
}
