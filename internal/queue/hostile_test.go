package queue_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/queue"
)

// publishRaw writes a message with the given header block past any client
// library, which would refuse it, and waits until the server has taken it.
func (k *kit) publishRaw(subject, header, payload string) {
	k.t.Helper()
	u, err := url.Parse(k.broker.URL())
	if err != nil {
		k.t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		k.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"headers\":true,\"protocol\":1}\r\nHPUB %s %d %d\r\n%s%s\r\nPING\r\n",
		subject, len(header), len(header)+len(payload), header, payload)
	var said []byte
	for buffer := make([]byte, 4096); !bytes.Contains(said, []byte("PONG")); {
		n, err := conn.Read(buffer)
		if said = append(said, buffer[:n]...); err != nil {
			k.t.Fatalf("the server said %q, then %v", said, err)
		}
	}
}

// TestSource_aHeaderBlockThatCannotBeReadMakesTheJobInvalid: the client passes
// such a message on as if it had no header.
func TestSource_aHeaderBlockThatCannotBeReadMakesTheJobInvalid(t *testing.T) {
	k := newKit(t)
	blocks := []string{
		"NATS/1.0\r\nNo-Colon\r\n\r\n", "NATS/1.0\r\nX: y\r\n", "HTTP/1.1\r\nX: y\r\n\r\n",
		"\x00\x01\x02\r\n\r\n", "NATS/1.0" + strings.Repeat("x", 60_000),
	}
	for _, b := range blocks {
		k.publishRaw("jobs.a", b, "payload")
	}
	k.publishRaw("jobs.a", "NATS/1.0\r\n\r\n", "payload") // an empty one is no mistake
	k.publishRaw("jobs.a", "NATS/1.0\r\nX: y\r\n\r\n", "payload")
	s := k.source(k.conn, time.Minute)
	c := newCatcher()
	defer run(s, c)()
	s.Request(len(blocks) + 2)
	for i, d := range c.await(t, len(blocks)+2) {
		j := d.Job()
		if string(j.Payload) != "payload" {
			t.Errorf("job %d has the payload %q", i, j.Payload)
		}
		switch {
		case i >= len(blocks) && j.Invalid != nil:
			t.Errorf("a good header is called bad: %v", j.Invalid)
		case i < len(blocks) && (j.Invalid == nil || j.Invalid.Error() != fmt.Sprintf("header block of %d bytes cannot be read, so what it says is unknown", len(blocks[i]))):
			t.Errorf("%.30q: %v", blocks[i], j.Invalid)
		}
	}
}

// inbox returns the subject a source waits at, as an eavesdropper learns it.
func (k *kit) inbox(nc *nats.Conn, ask func()) string {
	k.t.Helper()
	pulls, err := nc.SubscribeSync("$JS.API.CONSUMER.MSG.NEXT.>")
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		k.t.Fatal(err)
	}
	ask()
	m, err := pulls.NextMsg(10 * time.Second)
	if err != nil {
		k.t.Fatal(err)
	}
	_ = pulls.Unsubscribe()
	return m.Reply
}

// forge sends straight into an inbox what a broker might send.
func forge(nc *nats.Conn, inbox string) error {
	stamp := time.Now().UnixNano()
	for _, reply := range []string{
		fmt.Sprintf("$JS.ACK.JOBS.p-normal.1.1.1.%d.0", stamp), // ours, to acknowledge somebody's job
		fmt.Sprintf("$JS.ACK.OTHER.p-normal.1.1.1.%d.0", stamp),
		fmt.Sprintf("$JS.ACK.JOBS.other.1.1.1.%d.0", stamp),
		fmt.Sprintf("$JS.ACK._.hash.JOBS.p-normal.1.1.1.%d.0.token", stamp),
		"$JS.API.STREAM.DELETE.JOBS", "jobs.injected", "$JS.ACK.x", "$SYS.REQ.SERVER.PING",
	} {
		if err := nc.PublishMsg(&nats.Msg{Subject: inbox, Reply: reply, Data: []byte("evil")}); err != nil {
			return err
		}
	}
	for _, h := range []nats.Header{nil, {"Status": {""}}, {"X": {"y"}}} {
		if err := nc.PublishMsg(&nats.Msg{Subject: inbox, Header: h}); err != nil {
			return err
		}
	}
	return nc.Flush()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestSource_forgedDeliveriesAreIgnored: acting on a forged reply subject would
// acknowledge other people's jobs, or publish what an attacker wrote there.
func TestSource_forgedDeliveriesAreIgnored(t *testing.T) {
	k := newKit(t)
	var said lockedBuffer
	conn, err := queue.Dial(queue.Config{URL: k.broker.URL()}.WithDefaults(), slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Of these replies recent servers refuse the $JS.ACK ones by themselves
	// (see FuzzOrigin for those), but not from leaf nodes and gateways.
	attacker, _ := k.broker.Connect()
	attacker.SetErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})
	spy, _ := k.broker.Connect()
	heard := make(chan *nats.Msg, 64)
	for _, subject := range []string{"$JS.ACK.>", "$JS.API.STREAM.DELETE.>", "jobs.injected", "$SYS.>"} {
		if _, err := spy.ChanSubscribe(subject, heard); err != nil {
			t.Fatal(err)
		}
	}
	if err := spy.Flush(); err != nil {
		t.Fatal(err)
	}
	s := k.source(conn, time.Minute)
	c := newCatcher()
	defer run(s, c)()
	inbox := k.inbox(attacker, func() { s.Request(2) })
	for range 10 {
		if err := forge(attacker, inbox); err != nil {
			t.Fatal(err)
		}
	}
	k.publish(2)
	for i, d := range c.await(t, 2) {
		if string(d.Job().Payload) != fmt.Sprint(i) {
			t.Errorf("job %d is %q", i, d.Job().Payload)
		}
	}
	if stats := s.Stats(); stats.Delivered != 2 || stats.Outstanding != 0 {
		t.Errorf("%+v, want 2 delivered and none outstanding", stats)
	}
	if c.mu.Lock(); len(c.got) != 2 || c.returned != 0 {
		t.Errorf("%d delivered, %d returned, want 2 and 0", len(c.got), c.returned)
	}
	c.mu.Unlock()
	k.flush(conn)
	if err := spy.Flush(); err != nil {
		t.Fatal(err)
	}
	if len(heard) > 0 {
		m := <-heard
		t.Errorf("%q was sent to %s", m.Data, m.Subject)
	}
	// A status cannot be told from a real one. It may cost a request, no more.
	for range 5 {
		if err := attacker.PublishMsg(&nats.Msg{Subject: inbox, Header: nats.Header{"Status": {"409"}, "Nats-Pending-Messages": {"-7"}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := attacker.Flush(); err != nil {
		t.Fatal(err)
	}
	s.Request(3)
	k.publish(3)
	c.await(t, 5)
	if n := strings.Count(said.String(), "somebody publishes to it"); n != 1 {
		t.Errorf("the log speaks of it %d times, want once:\n%s", n, said.String())
	}
}
