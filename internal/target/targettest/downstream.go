package targettest

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Behaviour is what a downstream does with a request.
type Behaviour uint8

// The behaviours. All of them record the request, whole as far as it came,
// before they begin to misbehave.
const (
	// Answer with success, quickly and whole.
	Answer Behaviour = iota
	// HangBefore never answers, but notices when the caller leaves.
	HangBefore
	// HangWithin begins a successful answer and then says nothing more.
	HangWithin
	// ResetBefore breaks the connection instead of answering.
	ResetBefore
	// ResetWithin begins a successful answer and breaks the connection.
	ResetWithin
	// Endless begins a successful answer that goes on and on, fast.
	Endless
	// Trickle begins a successful answer and goes on byte by byte for ever,
	// slowly.
	Trickle
	// Garbage answers with bytes that are not of the protocol.
	Garbage
)

// String returns the behaviour in words.
func (b Behaviour) String() string {
	return [...]string{
		"answer", "hang before the answer", "hang within the answer", "reset before the answer",
		"reset within the answer", "endless answer", "trickling answer", "garbage",
	}[b]
}

// Seen is a request as it arrived downstream.
type Seen struct {
	// Payload as far as it was read.
	Payload []byte
	// Key for idempotency.
	Key string
	// Header as far as the protocol has one, keys in lower case.
	Header map[string][]string
}

// Downstream is the script of a protocol's test server and the record of what
// arrived there. The server asks for the behaviour at each request and records
// the request before it behaves. All methods may be called from any goroutine.
type Downstream struct {
	mu        sync.Mutex
	behaviour Behaviour
	seen      []Seen
	arrived   chan struct{} // closed and replaced at each arrival
}

// NewDownstream returns a script that answers.
func NewDownstream() *Downstream { return &Downstream{arrived: make(chan struct{})} }

// Behave sets the behaviour towards requests from now on.
func (d *Downstream) Behave(b Behaviour) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.behaviour = b
}

// Arrived records a request and says what to do with it.
func (d *Downstream) Arrived(s Seen) Behaviour {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = append(d.seen, s)
	close(d.arrived)
	d.arrived = make(chan struct{})
	return d.behaviour
}

// Requests returns what has arrived so far, in order.
func (d *Downstream) Requests() []Seen {
	seen, _ := d.snapshot()
	return seen
}

func (d *Downstream) snapshot() ([]Seen, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.seen), d.arrived
}

// await waits until a request with that payload has arrived.
func (d *Downstream) await(ctx context.Context, payload string) error {
	for {
		seen, arrived := d.snapshot()
		if slices.ContainsFunc(seen, func(s Seen) bool { return string(s.Payload) == payload }) {
			return nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return fmt.Errorf("request %q has not arrived: %w", payload, context.Cause(ctx))
		}
	}
}

// sawExactly compares what arrived with these payloads, in any order, as the
// record of an interrupted request may come late.
func (d *Downstream) sawExactly(payloads ...string) error {
	var got []string
	for _, s := range d.Requests() {
		got = append(got, brief(s.Payload))
	}
	want := make([]string, len(payloads))
	for i, p := range payloads {
		want[i] = brief([]byte(p))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("downstream saw the requests %q, want exactly %q", got, want)
	}
	return nil
}

// brief tells payloads apart in a message of bearable length.
func brief(payload []byte) string {
	if len(payload) <= 32 {
		return string(payload)
	}
	return fmt.Sprintf("%s… (%d bytes)", payload[:32], len(payload))
}

// last returns the request that arrived last.
func (d *Downstream) last() Seen {
	seen := d.Requests()
	if len(seen) == 0 {
		return Seen{}
	}
	return seen[len(seen)-1]
}
