package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// rawPublisher writes messages past any client library, which would refuse them.
type rawPublisher struct {
	t    *testing.T
	conn net.Conn
}

func publishRaw(t *testing.T, n *natsProcess) *rawPublisher {
	t.Helper()
	u, err := url.Parse(n.url())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := &rawPublisher{t, conn}
	r.write("CONNECT {\"verbose\":false,\"headers\":true,\"protocol\":1}\r\n")
	return r
}

func (r *rawPublisher) write(s string) {
	r.t.Helper()
	_ = r.conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := r.conn.Write([]byte(s)); err != nil {
		r.t.Fatal(err)
	}
}

// publish sends one message; the block is whatever stands for its header.
func (r *rawPublisher) publish(subject, block, payload string) {
	r.t.Helper()
	r.write(fmt.Sprintf("HPUB %s %d %d\r\n%s%s\r\n", subject, len(block), len(block)+len(payload), block, payload))
}

// flush returns once the server has taken in everything.
func (r *rawPublisher) flush() {
	r.t.Helper()
	r.write("PING\r\n")
	buffer := make([]byte, 64<<10)
	for said := ""; !strings.Contains(said, "PONG"); {
		n, err := r.conn.Read(buffer)
		if said += string(buffer[:n]); err != nil {
			r.t.Fatalf("the server said %.300q, then %v", said, err)
		}
	}
}

// commands are headers by which a message commands the broker, in the case the
// broker reads them and in others, which it keeps.
func commands() []string {
	return []string{
		"Nats-Rollup: sub", "Nats-TTL: 1s", "Nats-Expected-Last-Sequence: 999999", "Nats-Expected-Stream: NOWHERE",
		"Nats-Expected-Last-Msg-Id: nothing", "Nats-Expected-Last-Subject-Sequence: 7", "Nats-Msg-Id: the-same-for-all",
		"Nats-Trace-Dest: elsewhere.traced", "Nats-Trace-Only: true", "Nats-Batch-Id: b", "Nats-Batch-Sequence: 3", "Nats-Batch-Commit: 1",
		"Nats-Schedule: @every 1s", "Nats-Schedule-Target: elsewhere.scheduled", "Nats-Schedule-TTL: 5m", "Nats-Incr: 1", "Nats-Marker-Reason: Purge",
		"Nats-Request-Info: {\"acc\":\"SYS\"}", "Nats-Stream-Source: X 1 > > >", "Nats-Required-Api-Level: 99", "Status: 503", "Description: gone",
		"Workerd-Dlq-Reason: done", "Workerd-Deadline: 9999-12-31T23:59:59Z", "Workerd-Deadline: tomorrow", "Workerd-TTL: -1s",
		"Workerd-TTL: 99999999999h", "Workerd-Idempotency-Key: \x01\x1b[2J", "Workerd-Job-Id: forged", "Workerd-Orig-Nats-Rollup: all",
	}
}

// hostileBlock is a header block; the same for the same number.
func hostileBlock(i int) string {
	rng := rand.New(rand.NewPCG(uint64(i), 7))
	var b strings.Builder
	b.WriteString("NATS/1.0\r\n")
	all := commands()
	for range 1 + rng.IntN(4) {
		line := all[rng.IntN(len(all))]
		switch rng.IntN(4) {
		case 0:
			line = strings.ToLower(line)
		case 1:
			line = strings.ToUpper(line)
		}
		b.WriteString(line + "\r\n")
	}
	if rng.IntN(2) == 0 { // noise: any bytes, line breaks among them
		noise := make([]byte, rng.IntN(80))
		for j := range noise {
			noise[j] = byte(rng.Uint32())
		}
		fmt.Fprintf(&b, "X-%s: %s\r\n", noise[:len(noise)/2], noise[len(noise)/2:])
	}
	if rng.IntN(10) == 0 {
		b.WriteString(strings.Repeat(fmt.Sprintf("X-Many-%d: v\r\n", i), 1000))
	}
	if rng.IntN(10) != 0 { // otherwise a block without an end
		b.WriteString("\r\n")
	}
	return b.String()
}

const valveOff = "valve: {ratio: -1}"

// TestHostileHeaders_neverDamageTheDeadLetterStream, even one that allows all
// that a header can command: every job is there, once, and no series is new.
func TestHostileHeaders_neverDamageTheDeadLetterStream(t *testing.T) {
	const jobs = 3000
	n := startNATS(t)
	c := connect(t, n)
	for _, s := range []jetstream.StreamConfig{
		{Name: "JOBS", Subjects: []string{"jobs.>"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, AllowRollup: true},
		{Name: "WORKERD_DLQ", Subjects: []string{"workerd.dlq.>"}, Discard: jetstream.DiscardNew, AllowRollup: true, AllowMsgTTL: true},
	} {
		if _, err := c.js.CreateOrUpdateStream(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	d := startDownstream(t, func(r *http.Request) int { return http.StatusUnprocessableEntity })
	w := startWorker(t, configure(n, 5*time.Second, lane{
		name: "mail", url: d.url, pool: "concurrency: 32, " + valveOff + ", " + quickRedelivery, target: "breaker: {consecutive_failures: -1}",
	}))
	before := series(w)
	raw := publishRaw(t, n)
	for i := range jobs {
		raw.publish(fmt.Sprintf("jobs.mail.%d", i), hostileBlock(i), fmt.Sprint(i))
	}
	raw.flush()
	c.awaitEmpty(90 * time.Second)
	accepted := c.state("JOBS").LastSeq
	if accepted < jobs/3 {
		t.Fatalf("the stream took %d of %d jobs: too few to mean anything", accepted, jobs)
	}
	await(t, 10*time.Second, "every job is reported", func() bool { return uint64(w.metric("workerd_jobs_completed_total", `outcome="dead"`)) >= accepted })
	dead := c.state("WORKERD_DLQ")
	if dead.Msgs != accepted || dead.FirstSeq != 1 || dead.NumDeleted != 0 || dead.LastSeq != accepted {
		t.Errorf("%d jobs were accepted, the dead letters are %+v", accepted, dead)
	}
	c.checkDeadLetters()
	if s := c.state("JOBS"); s.LastSeq != accepted {
		t.Errorf("%d messages were published in the name of jobs", s.LastSeq-accepted)
	}
	if after := series(w); after != before {
		t.Errorf("%d series before, %d after: jobs make series", before, after)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(w.stderr.String()), "\n") {
		if !strings.HasPrefix(line, "{") || len(line) > 4000 {
			t.Errorf("not one bounded record: %.300q", line)
			break
		}
	}
	t.Logf("%d of %d hostile jobs were accepted by the stream, all are dead letters", accepted, jobs)
}

func series(w *worker) int {
	_, body := w.get("/metrics")
	n := 0
	for line := range strings.SplitSeq(body, "\n") {
		if line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "go_") && !strings.HasPrefix(line, "process_") {
			n++
		}
	}
	return n
}

func (c *client) state(stream string) jetstream.StreamState {
	c.t.Helper()
	s, err := c.js.Stream(c.t.Context(), stream)
	if err != nil {
		c.t.Fatal(err)
	}
	return s.CachedInfo().State
}

// checkDeadLetters: payloads are there once each, and no header commands.
func (c *client) checkDeadLetters() {
	c.t.Helper()
	s, err := c.js.Stream(c.t.Context(), "WORKERD_DLQ")
	if err != nil {
		c.t.Fatal(err)
	}
	seen := map[string]bool{}
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(c.t.Context(), seq)
		if err != nil {
			c.t.Fatal(err)
		}
		if seen[string(m.Data)] {
			c.t.Errorf("job %s has two dead letters", m.Data)
		}
		seen[string(m.Data)] = true
		for key := range m.Header {
			if strings.HasPrefix(strings.ToLower(key), "nats-") && key != jetstream.MsgIDHeader && key != jetstream.ExpectedStreamHeader {
				c.t.Errorf("dead letter of job %s has the header %s", m.Data, key)
			}
		}
		if reason := m.Header.Get("Workerd-Dlq-Reason"); reason != "status_4xx" && reason != "decode" && reason != "bad_request" {
			c.t.Errorf("job %s is dead for %q", m.Data, reason)
		}
	}
}

// refused is a test of dead letters that cannot be stored for some time.
func refused(t *testing.T, stop func(c *client), heal func(c *client), says string) {
	const jobs = 20
	n := startNATS(t)
	c := connect(t, n)
	stop(c)
	d := startDownstream(t, func(r *http.Request) int { return http.StatusUnprocessableEntity })
	ids := c.publish("jobs.mail.x", "job", jobs)
	w := startWorker(t, configure(n, 5*time.Second, lane{name: "mail", url: d.url, pool: valveOff, target: "breaker: {consecutive_failures: -1}"}))
	await(t, 60*time.Second, "the log says that dead letters cannot be stored", func() bool {
		return strings.Contains(w.stderr.String(), "dead letter could not be stored") && strings.Contains(w.stderr.String(), says)
	})
	await(t, 60*time.Second, "every job was tried", func() bool { return d.books().total >= jobs })
	await(t, 10*time.Second, "every job is reported", func() bool {
		return w.metric("workerd_jobs_completed_total", `outcome="dead"`)+w.metric("workerd_jobs_completed_total", `outcome="deferred"`) >= jobs
	})
	if left, dead := c.left(), len(c.deadLetters()); left+dead < jobs || left == 0 {
		t.Errorf("%d jobs are left and %d dead, want %d together", left, dead, jobs)
	}
	heal(c)
	c.awaitEmpty(2 * time.Minute)
	dead := c.deadLetters()
	for _, id := range ids {
		if dead[id] != "status_4xx" {
			t.Errorf("job %s: %q", id, dead[id])
		}
	}
}

func (c *client) stream(cfg jetstream.StreamConfig) {
	c.t.Helper()
	if _, err := c.js.CreateOrUpdateStream(c.t.Context(), cfg); err != nil {
		c.t.Fatal(err)
	}
}

func TestDeadLetterStreamFull_losesNothingAndGoesOnWhenThereIsRoom(t *testing.T) {
	t.Parallel() // it mostly waits
	cfg := jetstream.StreamConfig{Name: "WORKERD_DLQ", Subjects: []string{"workerd.dlq.>"}, Discard: jetstream.DiscardNew, MaxMsgs: 3}
	refused(t, func(c *client) { c.stream(cfg) }, func(c *client) {
		cfg.MaxMsgs = -1
		c.stream(cfg)
	}, "maximum messages exceeded")
}

// TestDeadLetterStreamMissing_losesNothingAndIsMadeWhenItCanBe: its subjects
// belong to somebody else, so the server refuses to create it.
func TestDeadLetterStreamMissing_losesNothingAndIsMadeWhenItCanBe(t *testing.T) {
	t.Parallel() // it mostly waits
	refused(t, func(c *client) {
		c.stream(jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"workerd.dlq.>"}})
	}, func(c *client) {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
		defer cancel()
		if err := c.js.DeleteStream(ctx, "OTHER"); err != nil {
			c.t.Fatal(err)
		}
	}, "WORKERD_DLQ")
}
