package main

import (
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
// to each node, so that what reaches a living node is heard there. It decides
// who has lost a job that is gone: nobody but the broker, if nobody has acked
// or terminated it.
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
		if _, err := nc.Subscribe("$JS.ACK."+stream+".>", func(m *nats.Msg) { t.hear(b.node.Name, m) }); err != nil {
			t.close()
			return nil, fmt.Errorf("tap %s: %w", b.node.Name, err)
		}
	}
	return t, nil
}

// hear takes down what is final, and naks. $JS.ACK.<stream>.<consumer>.<times
// delivered>.<sequence in the stream>.…
func (t *tap) hear(node string, m *nats.Msg) {
	tokens := strings.Split(m.Subject, ".")
	if len(tokens) < 6 || strings.HasPrefix(string(m.Data), "+WPI") {
		return
	}
	sequence, err := strconv.ParseUint(tokens[5], 10, 64)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.said[sequence] = append(t.said[sequence], settlement{At: t.clock(), Node: node, Said: string(m.Data)})
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

// wanted tells whether all that anybody has said about a job is that it be
// delivered again.
func wanted(said []settlement) bool {
	return len(said) > 0 && !slices.ContainsFunc(said, func(s settlement) bool { return !strings.HasPrefix(s.Said, "-NAK") })
}
