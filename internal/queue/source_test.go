package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/natstest"
	"github.com/workerd/workerd/internal/queue"
)

// kit is a broker, a connection of ours and a stream JOBS.
type kit struct {
	t      *testing.T
	broker *natstest.Broker
	conn   *queue.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
}

func newKit(t *testing.T) *kit {
	t.Helper()
	return newKitWith(t, jetstream.StreamConfig{Subjects: []string{"jobs.>"}, Retention: jetstream.WorkQueuePolicy})
}

// newKitWith has another stream JOBS.
func newKitWith(t *testing.T, cfg jetstream.StreamConfig) *kit {
	t.Helper()
	b := natstest.Start(t)
	_, js := b.Connect()
	k := &kit{t: t, broker: b, js: js}
	k.conn = k.dial()
	cfg.Name = "JOBS"
	var err error
	if k.stream, err = js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *kit) dial() *queue.Conn {
	k.t.Helper()
	c, err := queue.Dial(queue.Config{URL: k.broker.URL()}.WithDefaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(c.Close)
	return c
}

// answers waits for the broker: what is written into a connection whose server has
// just stopped is gone.
func (k *kit) answers() {
	k.t.Helper()
	k.awaitFor("the broker answers", func() bool { return k.js.Conn().FlushTimeout(time.Second) == nil })
}

func (k *kit) publish(n int) {
	k.t.Helper()
	k.answers()
	for i := range n {
		if _, err := k.js.Publish(k.t.Context(), "jobs.a", fmt.Appendf(nil, "%d", i)); err != nil {
			k.t.Fatal(err)
		}
	}
}

func (k *kit) source(c *queue.Conn, ackWait time.Duration) *queue.Source {
	return c.Source(queue.SourceConfig{
		Stream: "JOBS", Consumer: "p-normal", Subjects: []string{"jobs.>"},
		Priority: job.Normal, AckWait: ackWait, MaxMessage: 1 << 20, Limit: 100,
	})
}

// catcher is a job.Receiver that keeps what it gets.
type catcher struct {
	mu       sync.Mutex
	got      []job.Delivery
	returned int
	changed  chan struct{}
}

func newCatcher() *catcher { return &catcher{changed: make(chan struct{}, 1)} }

func (c *catcher) Deliver(d job.Delivery, _ uint64) {
	c.mu.Lock()
	c.got = append(c.got, d)
	c.mu.Unlock()
	c.nudge()
}

func (c *catcher) Returned(n int) {
	c.mu.Lock()
	c.returned += n
	c.mu.Unlock()
	c.nudge()
}

func (c *catcher) nudge() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// await returns the deliveries once there are n.
func (c *catcher) await(t *testing.T, n int) []job.Delivery {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		c.mu.Lock()
		got := append([]job.Delivery(nil), c.got...)
		c.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-c.changed:
		case <-deadline:
			t.Fatalf("got %d deliveries, want %d", len(got), n)
		}
	}
}

// run starts a source and returns what stops it and waits.
func run(s *queue.Source, to job.Receiver) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx, to) })
	return func() { cancel(); wg.Wait() }
}

func (k *kit) flush(c *queue.Conn) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Flush(ctx); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kit) consumer() *jetstream.ConsumerInfo {
	k.t.Helper()
	c, err := k.stream.Consumer(context.Background(), "p-normal")
	if err != nil {
		k.t.Fatal(err)
	}
	return c.CachedInfo()
}

func (k *kit) left() uint64 {
	k.t.Helper()
	info, err := k.stream.Info(context.Background())
	if err != nil {
		k.t.Fatal(err)
	}
	return info.State.Msgs
}

func settle(t *testing.T, v job.Verb, ds ...job.Delivery) {
	t.Helper()
	for _, d := range ds {
		if err := d.Settle(v, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSource_bringsExactlyWhatWasRequested(t *testing.T) {
	k := newKit(t)
	k.publish(50)
	s, c := k.source(k.conn, 30*time.Second), newCatcher()
	defer run(s, c)()
	s.Request(7)
	got := c.await(t, 7)
	if pending := k.consumer().NumAckPending; pending != 7 {
		t.Errorf("broker has %d jobs out, want the 7 that were requested", pending)
	}
	settle(t, job.Ack, got...)
	k.flush(k.conn)
	if left := k.left(); left != 43 {
		t.Errorf("%d jobs left in the stream, want 43", left)
	}
}

// TestSource_theFirstConnectionIsNoReasonToAskTwice: that it was made may be
// told when the source has used it already, and it asked for all again.
func TestSource_theFirstConnectionIsNoReasonToAskTwice(t *testing.T) {
	k := newKit(t)
	k.publish(100)
	for range 20 {
		conn := k.dial()
		s, c := k.source(conn, 30*time.Second), newCatcher()
		stop := run(s, c)
		s.Request(2)
		got := c.await(t, 2)
		if pending := k.consumer().NumAckPending; pending != 2 {
			t.Errorf("broker has %d jobs out, want the 2 that were requested", pending)
		}
		settle(t, job.Ack, got...)
		k.flush(conn) // or the next round counts these, too
		stop()
	}
}

func TestSource_createsItsConsumerAsDesigned(t *testing.T) {
	k := newKit(t)
	s, c := k.source(k.conn, 30*time.Second), newCatcher()
	stop := run(s, c)
	s.Request(1)
	k.publish(1)
	settle(t, job.Ack, c.await(t, 1)...)
	stop()
	cfg := k.consumer().Config
	if cfg.MaxDeliver != -1 || cfg.MaxAckPending != -1 || len(cfg.BackOff) != 0 || cfg.AckPolicy != jetstream.AckExplicitPolicy || cfg.InactiveThreshold != 0 {
		t.Errorf("consumer would lose or hold jobs: %+v", cfg)
	}
}

func TestSource_stopHandsBackWhatWasNotStarted(t *testing.T) {
	k := newKit(t)
	first, c1 := k.source(k.conn, 30*time.Second), newCatcher()
	stop := run(first, c1)
	first.Request(20)
	stop() // asks for 20, then stops: nothing may stay with it
	k.publish(20)
	second, c2 := k.source(k.dial(), 30*time.Second), newCatcher()
	defer run(second, c2)()
	second.Request(20)
	settle(t, job.Ack, c2.await(t, 20)...)
}

func TestSource_redeliveryOfAFinishedJobIsNotRunAgain(t *testing.T) {
	k := newKit(t)
	k.publish(3)
	s, c := k.source(k.conn, 30*time.Second), newCatcher()
	defer run(s, c)()
	s.Request(3)
	got := c.await(t, 3)
	settle(t, job.Nak, got[2])
	settle(t, job.Ack, got[:2]...)
	k.flush(k.conn)
	// The broker forgets everything it knew about the consumer.
	if err := k.js.DeleteConsumer(t.Context(), "JOBS", "p-normal"); err != nil {
		t.Fatal(err)
	}
	s.Request(5)
	again := c.await(t, 4)
	if id := again[3].Job().Sequence; id != got[2].Job().Sequence {
		t.Errorf("job %d came again, want only the one that was given back", id)
	}
	settle(t, job.Ack, again[3])
	k.flush(k.conn)
	if left := k.left(); left != 0 {
		t.Errorf("%d jobs left", left)
	}
}

func TestDelivery_leaseMovesOnlyWhenConfirmed(t *testing.T) {
	k := newKit(t)
	k.publish(1)
	s, c := k.source(k.conn, 10*time.Second), newCatcher()
	defer run(s, c)()
	s.Request(1)
	d := c.await(t, 1)[0]
	before := d.LeaseUntil()
	d.Extend()
	for d.LeaseUntil().Equal(before) {
		k.flush(k.conn)
	}
	if !d.LeaseUntil().After(before) {
		t.Errorf("lease moved from %v to %v", before, d.LeaseUntil())
	}
	settle(t, job.Ack, d)
}

// TestDelivery_aLostLeaseStaysLost: the broker confirms a sign of life for a
// job that it is about to give to somebody else. Found by sim.
func TestDelivery_aLostLeaseStaysLost(t *testing.T) {
	k := newKit(t)
	k.publish(2)
	s, c := k.source(k.conn, time.Second), newCatcher()
	stop := run(s, c)
	s.Request(2)
	got := c.await(t, 2)
	stop() // so that nobody asks for it
	until := got[0].LeaseUntil()
	lease := time.NewTimer(time.Until(until) + 10*time.Millisecond)
	defer lease.Stop()
	<-lease.C
	got[0].Extend()
	settle(t, job.Ack, got[1]) // is confirmed after whatever was sent before it
	k.flush(k.conn)
	if now := got[0].LeaseUntil(); !now.Equal(until) {
		t.Errorf("the lease was over at %v and is now at %v", until, now)
	}
	if err := got[0].Settle(job.Nak, 0); !errors.Is(err, job.ErrLeaseLost) {
		t.Errorf("a nak after the lease: %v, want %v", err, job.ErrLeaseLost)
	}
}

func TestDelivery_settledTwicePanics(t *testing.T) {
	k := newKit(t)
	k.publish(1)
	s, c := k.source(k.conn, 30*time.Second), newCatcher()
	defer run(s, c)()
	s.Request(1)
	d := c.await(t, 1)[0]
	settle(t, job.Ack, d)
	defer func() {
		if recover() == nil {
			t.Error("a second Settle did not panic")
		}
	}()
	_ = d.Settle(job.Nak, 0)
}

func TestSource_resumesAfterTheBrokerRestarted(t *testing.T) {
	k := newKit(t)
	k.publish(10)
	s, c := k.source(k.conn, 30*time.Second), newCatcher()
	defer run(s, c)()
	s.Request(4)
	got := c.await(t, 4)
	k.broker.Stop()
	settle(t, job.Ack, got...) // into the void: must be repeated after the restart
	k.broker.Restart()
	s.Request(6)
	got = c.await(t, 10)
	settle(t, job.Ack, got[4:]...)
	k.flush(k.conn)
	if left := k.left(); left != 0 {
		t.Errorf("%d jobs left in the stream, want all acknowledged", left)
	}
	seen := map[uint64]int{}
	for _, d := range got {
		seen[d.Job().Sequence]++
	}
	if len(seen) != 10 {
		t.Errorf("%d different jobs among 10 deliveries: a finished job was delivered again", len(seen))
	}
}

// TestSettler_aNakWhoseLeaseIsOverIsNotSentAfterAReconnect: it would hit the
// run of whoever has the job by then. The client library's buffer did that.
func TestSettler_aNakWhoseLeaseIsOverIsNotSentAfterAReconnect(t *testing.T) {
	k := newKit(t)
	k.publish(1)
	s, c := k.source(k.conn, time.Second), newCatcher()
	defer run(s, c)()
	s.Request(1)
	d := c.await(t, 1)[0]
	k.broker.Stop()
	settle(t, job.Nak, d)
	lease := time.NewTimer(time.Until(d.LeaseUntil()) + 10*time.Millisecond)
	defer lease.Stop()
	<-lease.C
	k.broker.Restart()
	spy, _ := k.broker.Connect()
	heard := make(chan *nats.Msg, 64)
	if _, err := spy.ChanSubscribe("$JS.ACK.>", heard); err != nil {
		t.Fatal(err)
	}
	if err := spy.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := k.conn.AwaitConnected(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.flush(k.conn)
	s.Request(1)
	again := c.await(t, 2)[1] // goes over the same connection, so whatever was sent before it has arrived
	settle(t, job.Ack, again)
	k.flush(k.conn)
	for {
		select {
		case m := <-heard:
			if strings.HasPrefix(string(m.Data), "-NAK") {
				t.Errorf("%s was sent to %s", m.Data, m.Subject)
			}
			continue
		default:
		}
		return
	}
}

// TestSettler_aNakThatMayHaveArrivedIsNotSentAgain: if only its confirmation was
// lost, another replica has the job by now, and would lose it.
func TestSettler_aNakThatMayHaveArrivedIsNotSentAgain(t *testing.T) {
	k := newKit(t)
	k.publish(1)
	way := newProxy(t, k.broker.URL())
	there, _ := k.dialAs(queue.Config{URL: way.url()})
	s, c := k.source(there, 30*time.Second), newCatcher()
	defer run(s, c)()
	s.Request(1)
	d := c.await(t, 1)[0]
	way.mute() // what the broker says gets lost, what we say arrives
	settle(t, job.Nak, d)

	s2, c2 := k.source(k.conn, 30*time.Second), newCatcher()
	defer run(s2, c2)()
	s2.Request(1)
	other := c2.await(t, 1)[0]
	way.cut()
	way.mend()
	k.awaitFor("connected again", func() bool { return there.Stats().Reconnects > 0 && there.Connected() })
	k.flush(there) // nothing that ends a delivery is on its way any more
	if p := k.consumer(); p.NumAckPending != 1 || p.NumRedelivered != 1 {
		t.Errorf("%d deliveries pending, %d jobs redelivered, want 1, 1", p.NumAckPending, p.NumRedelivered)
	}
	s2.Request(1)
	if n := there.Stats().Resent; n != 0 {
		t.Errorf("%d settlements were sent again, want none", n)
	}
	settle(t, job.Ack, other)
	k.flush(k.conn)
	if n := k.left(); n != 0 {
		t.Errorf("%d jobs left, want 0", n)
	}
}

// TestSource_aDeliveryThatLayHereCountsAsOldAsItMayBe: a process that was
// stopped for longer than the lease finds deliveries which are somebody else's.
func TestSource_aDeliveryThatLayHereCountsAsOldAsItMayBe(t *testing.T) {
	k := newKit(t)
	s := k.source(k.conn, 2*time.Second)
	c := stopped{newCatcher(), make(chan struct{})}
	defer run(s, c)()
	s.Request(2)
	k.publish(2)
	k.awaitFor("both are here", func() bool { return k.delivered() == 2 })
	lapse := time.NewTimer(2*time.Second + 100*time.Millisecond)
	defer lapse.Stop()
	<-lapse.C
	close(c.wake)
	for i, d := range c.await(t, 2) {
		if time.Now().Before(d.LeaseUntil()) {
			t.Errorf("delivery %d is believed to be ours for another %v", i, time.Until(d.LeaseUntil()))
		}
	}
}

// TestSource_aDeliveryThatLayInTheNetworkCountsAsOldAsItMayBe: a connection that
// stood still for longer than the lease brings jobs that are somebody else's.
func TestSource_aDeliveryThatLayInTheNetworkCountsAsOldAsItMayBe(t *testing.T) {
	k := newKit(t)
	way := newProxy(t, k.broker.URL())
	there, _ := k.dialAs(queue.Config{URL: way.url()})
	const lease = 4 * time.Second
	s, c := k.source(there, lease), newCatcher()
	defer run(s, c)()
	s.Request(2)
	k.publish(1)
	settle(t, job.Ack, c.await(t, 1)[0])
	k.flush(there)
	release := way.hold()
	t.Cleanup(release)
	k.publish(1)
	k.awaitFor("it is under way", func() bool { return k.delivered() == 2 })
	lapse := time.NewTimer(lease + 100*time.Millisecond)
	defer lapse.Stop()
	<-lapse.C
	release()
	if d := c.await(t, 2)[1]; time.Now().Before(d.LeaseUntil()) {
		t.Errorf("it is believed to be ours for another %v", time.Until(d.LeaseUntil()))
	}
}

// stopped is a receiver that holds up the source.
type stopped struct {
	*catcher
	wake chan struct{}
}

func (s stopped) Deliver(d job.Delivery, n uint64) {
	s.catcher.Deliver(d, n)
	<-s.wake
}

// delivered is how many deliveries the broker has made.
func (k *kit) delivered() uint64 {
	c, err := k.stream.Consumer(context.Background(), "p-normal")
	if err != nil {
		return 0
	}
	return c.CachedInfo().Delivered.Consumer
}

func TestSource_saysWhyItIsNotReady(t *testing.T) {
	k := newKit(t)
	s := k.conn.Source(queue.SourceConfig{Stream: "NOPE", Consumer: "x", Subjects: []string{"x"}, AckWait: time.Second, Limit: 1})
	c := newCatcher()
	stop := run(s, c)
	defer stop()
	s.Request(1)
	const want = "stream NOPE does not exist: create it, or describe it under streams"
	for deadline := time.Now().Add(10 * time.Second); s.Stats().Problem != want; {
		if time.Now().After(deadline) {
			t.Fatalf("problem is %q, want %q", s.Stats().Problem, want)
		}
		k.flush(k.conn)
	}
}

// TestSource_aClusterWithoutLeaderIsAskedAgainSoon: it drops the question after
// the consumer, and found one that had a leader again was asked late, as the
// last question was still waiting for its answer.
func TestSource_aClusterWithoutLeaderIsAskedAgainSoon(t *testing.T) {
	k := newKit(t)
	questions := make(chan time.Time, 10)
	nc, _ := k.broker.Connect()
	// No stream of this name, and nobody who would say so: the server answers
	// questions of its own domain only.
	_, err := nc.Subscribe("$JS.far.API.CONSUMER.INFO.JOBS.p-normal", func(*nats.Msg) { questions <- time.Now() })
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	c, err := queue.Dial(queue.Config{URL: k.broker.URL(), JetstreamDomain: "far"}.WithDefaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	s := k.source(c, 30*time.Second)
	stop := run(s, newCatcher())
	defer stop()
	s.Request(1)
	first := <-questions
	if waited := (<-questions).Sub(first); waited > 4*time.Second {
		t.Errorf("asked again after %s, want about 1s", waited)
	}
}
