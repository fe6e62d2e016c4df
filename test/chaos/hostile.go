package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// How the ids of jobs begin that mean harm, as does what they carry.
const (
	hostile = "hostile-" // by headers that a client library sends
	broken  = "broken-"  // by a block of headers that none would send
)

// forgedValue is what must never reach the downstream as workerd's own word.
const forgedValue = "forged"

// evil says how a hostile job tries it.
func evil(seed uint64, id string) string {
	if !strings.HasPrefix(id, hostile) {
		return ""
	}
	return []string{"forges", "floods", "babbles", "lies"}[chance(seed, id, "evil", 4)]
}

// hostileHeader of a job; nil for one that means no harm.
func hostileHeader(seed uint64, id string) nats.Header {
	h := nats.Header{}
	switch evil(seed, id) {
	case "forges": // what workerd, the broker and HTTP say
		for _, name := range []string{
			"Workerd-Job-Id", "workerd-job-id", "X-Replica", "Workerd-Attempt", "Workerd-Delivery", "Workerd-Disposition", "Workerd-Dlq-Reason",
			"Workerd-Orig-Nats-Msg-Id", "Host", "Authorization", "Transfer-Encoding", "Connection", "Status", "Nats-Stream", "Nats-Sequence",
		} {
			h[name] = []string{forgedValue}
		}
		h["Content-Length"] = []string{"1"}
	case "floods":
		for n := range 20 {
			h[fmt.Sprintf("X-Much-%d", n)] = []string{strings.Repeat("x", 1<<10)}
		}
	case "babbles": // bytes that nobody can read
		h["X-Odd"] = []string{"\x00\x01\x1b[2J\xff\xfe", "\u202egnihton", strings.Repeat("%0d%0a", 50)}
		h["Workerd-Idempotency-Key"] = []string{"\x1b]0;owned\x07"}
		h["Workerd-Priority"], h["Workerd-Reply-To"] = []string{"highest\x00"}, []string{"jobs.>"}
	case "lies": // about its time, so that it must not run
		h["Workerd-Deadline"] = []string{"tomorrow"}
		h["Workerd-TTL"] = []string{"-1s"}
	}
	return h
}

// forged tells whether the downstream was told what a job says of itself.
func forged(r *http.Request) bool {
	for name, values := range r.Header {
		for _, v := range values {
			if v == forgedValue || len(values) > 1 && strings.HasPrefix(name, "Workerd-") {
				return true
			}
		}
	}
	return r.Host == forgedValue
}

// vandal publishes jobs past any client library, ten a second, until ctx ends:
// their headers cannot be read.
func (w *world) vandal(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(w.brokers[0].url(), "nats://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "CONNECT {\"verbose\":false,\"headers\":true,\"protocol\":1}\r\n"); err != nil {
		return err
	}
	answers, err := w.nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		return err
	}
	defer func() { _ = answers.Unsubscribe() }()
	r := rand.New(rand.NewPCG(w.seed, 66))
	for n := 0; pause(ctx, 100*time.Millisecond); n++ {
		id := fmt.Sprintf("%s%s-%d", broken, w.name, n)
		if err := w.vandalise(conn, answers, id, r.IntN(5)); err != nil {
			return err
		}
	}
	return nil
}

// vandalise publishes one such job. Its id is known to us only.
func (w *world) vandalise(conn net.Conn, answers *nats.Subscription, id string, n int) error {
	block := []string{
		"NATS/1.0\r\nNo-Colon\r\n\r\n", "NATS/1.0\r\nX: y\r\n", "HTTP/1.1\r\nX: y\r\n\r\n", "\x00\x01\x02\r\n\r\n", "NATS/1.0" + strings.Repeat("x", 20_000),
	}[n]
	body := payload(w.seed, id, w.size)
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(conn, "HPUB jobs.normal %s %d %d\r\n%s%s\r\n", answers.Subject, len(block), len(block)+len(body), block, body); err != nil {
		return fmt.Errorf("publish a broken job: %w", err)
	}
	m, err := answers.NextMsg(10 * time.Second)
	if err != nil {
		return fmt.Errorf("publish a broken job: %w", err)
	}
	var sequence uint64
	if _, err := fmt.Sscanf(string(m.Data), `{"stream":"`+stream+`","seq":%d`, &sequence); err != nil {
		return fmt.Errorf("publish a broken job: %s", m.Data)
	}
	w.mu.Lock()
	w.probes[id] = sequence
	w.mu.Unlock()
	return nil
}

// whose letter it is, also if the job's own id could not be read.
func (w *world) whose(m *jetstream.RawStreamMsg) string {
	if id := m.Header.Get("Workerd-Orig-Nats-Msg-Id"); id != "" && id != forgedValue {
		return id
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, sequence := range w.probes {
		if fmt.Sprint(sequence) == m.Header.Get("Workerd-Dlq-Sequence") {
			return id
		}
	}
	return ""
}
