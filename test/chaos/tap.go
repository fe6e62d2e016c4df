package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// settlement is what was said about a delivery, by whomever.
type settlement struct {
	At   time.Duration `json:"at"`
	Node string        `json:"node"` // at which the tap heard it
	Said string        `json:"said"` // +ACK, -NAK {...}, +TERM ...
}

// tap hears every ack, nak and term on its way to the consumers: one connection
// to each node, so that what reaches a living node is heard there, and what goes
// from one to another is heard twice. It decides who has lost a job that is gone:
// the broker, if nobody has acked or terminated it.
type tap struct {
	clock func() time.Duration
	conns []*nats.Conn

	mu   sync.Mutex
	said map[uint64][]settlement // by sequence in the stream
}

func newTap(brokers []*broker, clock func() time.Duration) (*tap, error) {
	t := &tap{clock: clock, said: map[uint64][]settlement{}}
	for _, b := range brokers {
		nc, err := nats.Connect(b.url(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0),
			nats.IgnoreDiscoveredServers(), nats.PingInterval(time.Second), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.close()
			return nil, fmt.Errorf("tap %s: %w", b.node.Name, err)
		}
		t.conns = append(t.conns, nc)
		_, err = nc.Subscribe("$JS.ACK."+stream+".>", func(m *nats.Msg) { t.hear(b.node.Name, m) })
		if err == nil {
			_, err = nc.Subscribe("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED."+stream+".>", func(m *nats.Msg) { t.advised(b.node.Name, m) })
		}
		if err != nil {
			t.close()
			return nil, fmt.Errorf("tap %s: %w", b.node.Name, err)
		}
	}
	return t, nil
}

// hear takes down what is final, and naks. $JS.ACK.<stream>.<consumer>.<times
// delivered>.<sequence in the stream>, and more.
func (t *tap) hear(node string, m *nats.Msg) {
	tokens := strings.Split(m.Subject, ".")
	if len(tokens) < 6 || strings.HasPrefix(string(m.Data), "+WPI") {
		return
	}
	sequence, err := strconv.ParseUint(tokens[5], 10, 64)
	if err != nil {
		return
	}
	t.note(sequence, node, string(m.Data))
}

// advised notes what the broker itself says about the end of a job. It terminates
// what it takes for deleted.
func (t *tap) advised(node string, m *nats.Msg) {
	var a struct {
		Sequence uint64 `json:"stream_seq"`
		Reason   string `json:"reason"`
	}
	if json.Unmarshal(m.Data, &a) == nil {
		t.note(a.Sequence, node, advisory+a.Reason)
	}
}

const advisory = "advisory: terminated: "

func (t *tap) note(sequence uint64, node, said string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.said[sequence] = append(t.said[sequence], settlement{At: t.clock(), Node: node, Said: said})
}

// book returns all of it; the tap goes on.
func (t *tap) book() map[uint64][]settlement {
	t.mu.Lock()
	defer t.mu.Unlock()
	book := make(map[uint64][]settlement, len(t.said))
	for sequence, said := range t.said {
		book[sequence] = slices.Clone(said)
	}
	return book
}

func (t *tap) close() {
	for _, nc := range t.conns {
		nc.Close()
	}
}

// ended tells whether anybody but the broker has said that a job needs no more.
func ended(said []settlement) bool {
	return slices.ContainsFunc(said, func(s settlement) bool {
		return !strings.HasPrefix(s.Said, "-NAK") && !strings.HasPrefix(s.Said, advisory)
	})
}
