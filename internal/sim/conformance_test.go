package sim

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// These tests keep the model honest: each asks the real server and the model
// the same, in the words of the protocol, and wants the same answer.

// lab is a stream JOBS with one consumer, pool0-normal of jobs.0.normal, and a
// client that speaks the protocol itself.
type lab struct {
	*testing.T
	broker broker
	nc     *nats.Conn
	js     jetstream.JetStream
	in     chan *nats.Msg
	prefix string
	n      int
}

const labAckWait = 4 * time.Second

// conforms runs a test against both.
func conforms(t *testing.T, test func(l *lab)) {
	t.Helper()
	ats.Register()
	t.Cleanup(ats.Unregister)
	for _, layer := range layers() {
		t.Run(string(layer), func(t *testing.T) {
			dir := t.TempDir()
			defer patience(t, t.Name())()
			forgetTimers()
			synctest.Test(t, func(t *testing.T) {
				l := &lab{T: t, in: make(chan *nats.Msg, 1000)}
				if l.broker = newFake(1); layer == realLayer {
					l.broker = newRealBroker(t, dir)
				}
				defer l.broker.stop()
				l.nc, l.js = connect(t, l.broker)
				defer l.nc.Close()
				l.setUp()
				test(l)
			})
		})
	}
}

func (l *lab) setUp() {
	_, err := l.js.CreateStream(l.Context(), jetstream.StreamConfig{
		Name: jobStream, Subjects: []string{"jobs.>"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
	})
	if err != nil {
		l.Fatal(err)
	}
	l.createConsumer()
	l.prefix = nats.NewInbox() + "."
	if _, err := l.nc.ChanSubscribe(l.prefix+"*", l.in); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) createConsumer() {
	_, err := l.js.CreateConsumer(l.Context(), jobStream, jetstream.ConsumerConfig{
		Durable: "pool0-normal", FilterSubject: "jobs.0.normal", AckPolicy: jetstream.AckExplicitPolicy, AckWait: labAckWait, MaxDeliver: -1,
		MaxAckPending: -1,
	})
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lab) publish(data string) {
	l.Helper()
	if _, err := l.js.Publish(l.Context(), "jobs.0.normal", []byte(data)); err != nil {
		l.Fatal(err)
	}
}

// pull asks for n messages, and pulled for n and waits for them.
func (l *lab) pull(n int, more string) {
	l.Helper()
	l.n++
	body := fmt.Sprintf(`{"batch":%d,"expires":%d%s}`, n, 20*time.Second, more)
	if err := l.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.JOBS.pool0-normal", fmt.Sprintf("%s%d", l.prefix, l.n), []byte(body)); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) pulled(n int) (all []*nats.Msg) {
	l.Helper()
	l.pull(n, "")
	for range n {
		all = append(all, l.receive(time.Minute))
	}
	return all
}

func (l *lab) receive(within time.Duration) *nats.Msg {
	l.Helper()
	select {
	case m := <-l.in:
		return m
	case <-time.After(within):
		l.Fatalf("nothing came within %s", within)
		return nil
	}
}

// silent fails if something comes within a time.
func (l *lab) silent(within time.Duration) {
	l.Helper()
	select {
	case m := <-l.in:
		l.Fatalf("%q %v came after all", m.Data, m.Header)
	case <-time.After(within):
	}
}

// say tells the broker something about a delivery and waits for the confirmation.
func (l *lab) say(m *nats.Msg, verb string) error {
	_, err := l.nc.Request(m.Reply, []byte(verb), 2*time.Second)
	return err
}

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lab) deliveries(m *nats.Msg) int {
	l.Helper()
	meta, err := m.Metadata()
	l.must(err)
	return int(meta.NumDelivered)
}

func (l *lab) wantLeft(want int) {
	l.Helper()
	if got, err := l.broker.left(l.Context()); err != nil || got != want {
		l.Errorf("%d jobs are left (%v), want %d", got, err, want)
	}
}

// about is whether a time is nearly another: the real server's timers are up to
// half a second late.
func (l *lab) about(what string, got, want time.Duration) {
	l.Helper()
	if got < want-10*time.Millisecond || got > want+1200*time.Millisecond {
		l.Errorf("%s after %s, want %s", what, got, want)
	}
}

func TestConformance_deliversInOrderAndSaysWhatIsLeft(t *testing.T) {
	conforms(t, func(l *lab) {
		for i := range 5 {
			l.publish(fmt.Sprint(i))
		}
		for i, m := range l.pulled(5) {
			meta, err := m.Metadata()
			l.must(err)
			if string(m.Data) != fmt.Sprint(i) || meta.NumPending != uint64(4-i) || meta.NumDelivered != 1 || meta.Sequence.Stream != uint64(i+1) {
				l.Errorf("delivery %d is %q: %+v", i, m.Data, meta)
			}
			if meta.Stream != jobStream || meta.Consumer != "pool0-normal" || m.Subject != "jobs.0.normal" || meta.Timestamp.After(time.Now()) {
				l.Errorf("%s: %+v", m.Subject, meta)
			}
		}
	})
}

func TestConformance_anAckEndsTheJob(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("a")
		m := l.pulled(1)[0]
		l.wantLeft(1)
		l.must(l.say(m, "+ACK"))
		l.wantLeft(0)
		l.must(l.say(m, "+ACK")) // once more is confirmed too
		l.pull(1, "")
		l.silent(3 * labAckWait)
	})
}

func TestConformance_aTermEndsTheJob(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("a")
		l.must(l.say(l.pulled(1)[0], "+TERM"))
		l.wantLeft(0)
	})
}

func TestConformance_withoutASignOfLifeAJobComesAgainAfterAckWait(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("a")
		l.pulled(1)
		began := time.Now()
		m := l.pulled(1)[0]
		l.about("it came again", time.Since(began), labAckWait)
		if n := l.deliveries(m); n != 2 {
			l.Errorf("delivery %d, want the second", n)
		}
	})
}

func TestConformance_aSignOfLifeKeepsTheJob(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("a")
		m := l.pulled(1)[0]
		l.pull(1, "")
		for range 3 {
			l.silent(labAckWait * 3 / 4)
			l.must(l.say(m, "+WPI"))
		}
		began := time.Now()
		l.receive(time.Minute)
		l.about("it came again", time.Since(began), labAckWait)
	})
}

func TestConformance_aSignOfLifeThatComesTooLateIsConfirmedAndChangesNothing(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("a")
		m := l.pulled(1)[0]
		l.silent(labAckWait + 1500*time.Millisecond)
		l.must(l.say(m, "+WPI"))
		l.pull(1, "")
		l.receive(time.Second) // at once: it was due already
	})
}

func TestConformance_aNakGivesTheJobBackAtOnce(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("a")
		l.must(l.say(l.pulled(1)[0], "-NAK"))
		began := time.Now()
		m := l.pulled(1)[0]
		l.about("it came again", time.Since(began), 0)
		if n := l.deliveries(m); n != 2 {
			l.Errorf("delivery %d, want the second", n)
		}
	})
}

func TestConformance_aNakWithADelayGivesItBackThen(t *testing.T) {
	for _, delay := range []time.Duration{time.Second, time.Minute} {
		conforms(t, func(l *lab) {
			l.publish("a")
			l.must(l.say(l.pulled(1)[0], fmt.Sprintf(`-NAK {"delay":%d}`, delay)))
			began := time.Now()
			for {
				l.pull(1, "")
				if m := l.receive(2 * time.Minute); m.Reply != "" {
					break // otherwise the request has expired
				}
			}
			l.about("it came again", time.Since(began), delay)
		})
	}
}

func TestConformance_whatComesAgainComesFirst(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("old")
		m := l.pulled(1)[0]
		l.publish("new")
		l.must(l.say(m, "-NAK"))
		if got := l.pulled(1)[0]; string(got.Data) != "old" {
			l.Errorf("%s came first", got.Data)
		}
	})
}

func TestConformance_aLateAckOfAnEarlierDeliveryEndsTheLaterToo(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("a")
		first := l.pulled(1)[0]
		l.pulled(1) // after ack_wait
		l.must(l.say(first, "+ACK"))
		l.wantLeft(0)
		l.pull(1, "")
		l.silent(3 * labAckWait)
	})
}

func TestConformance_aLateNakOfAnEarlierDeliveryHitsTheLater(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("a")
		first := l.pulled(1)[0]
		l.pulled(1) // after ack_wait, and somebody is at work on it
		l.must(l.say(first, "-NAK"))
		l.pull(1, "")
		if m := l.receive(time.Second); l.deliveries(m) != 3 {
			l.Errorf("delivery %d, want the third", l.deliveries(m))
		}
	})
}

func TestConformance_aRequestExpiresAndSaysHowMuchIsLeft(t *testing.T) {
	conforms(t, func(l *lab) {
		began := time.Now()
		l.publish("a")
		l.pull(3, "")
		l.must(l.say(l.receive(time.Second), "+ACK"))
		m := l.receive(time.Minute)
		l.about("it expired", time.Since(began), 20*time.Second)
		if m.Header.Get("Status") != "408" || m.Header.Get("Nats-Pending-Messages") != "2" {
			l.Errorf("got %v, want 408 and 2 that are left", m.Header)
		}
	})
}

func TestConformance_aWaitingRequestShowsThatItLives(t *testing.T) {
	conforms(t, func(l *lab) {
		l.pull(1, fmt.Sprintf(`,"idle_heartbeat":%d`, time.Second))
		for range 5 {
			began := time.Now()
			m := l.receive(3 * time.Second)
			l.about("a heartbeat", time.Since(began), time.Second)
			if m.Header.Get("Status") != "100" {
				l.Errorf("got %v, want 100", m.Header)
			}
		}
	})
}

func TestConformance_requestsTakeTurns(t *testing.T) {
	conforms(t, func(l *lab) {
		other := make(chan *nats.Msg, 10)
		inbox := nats.NewInbox()
		_, err := l.nc.ChanSubscribe(inbox, other)
		l.must(err)
		l.pull(2, "")
		l.must(l.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.JOBS.pool0-normal", inbox, fmt.Appendf(nil, `{"batch":2,"expires":%d}`, 20*time.Second)))
		l.must(l.nc.Flush())
		for i := range 4 {
			l.publish(fmt.Sprint(i))
		}
		for i, in := range []chan *nats.Msg{l.in, other, l.in, other} {
			select {
			case m := <-in:
				if string(m.Data) != fmt.Sprint(i) {
					l.Errorf("message %d is %s", i, m.Data)
				}
			case <-time.After(time.Second):
				l.Fatalf("message %d did not come where it should", i)
			}
		}
	})
}

func TestConformance_aConsumerThatIsDeletedSaysSo(t *testing.T) {
	conforms(t, func(l *lab) {
		l.pull(1, "")
		l.must(l.nc.Flush())
		l.must(l.broker.deleteConsumer(l.Context(), "pool0-normal"))
		if m := l.receive(5 * time.Second); m.Header.Get("Status") != "409" || m.Header.Get("Description") != "Consumer Deleted" {
			l.Errorf("got %v, want 409 Consumer Deleted", m.Header)
		}
		l.pull(1, "")
		if m := l.receive(5 * time.Second); m.Header.Get("Status") != "503" {
			l.Errorf("got %v, want 503", m.Header)
		}
		_, err := l.js.Consumer(l.Context(), jobStream, "pool0-normal")
		if err == nil || !strings.Contains(err.Error(), "consumer not found") {
			l.Errorf("got %v", err)
		}
	})
}

func TestConformance_aConsumerThatIsMadeAnewCountsAnew(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("a")
		l.publish("b")
		old := l.pulled(2)
		l.must(l.say(old[0], "+ACK"))
		l.must(l.broker.deleteConsumer(l.Context(), "pool0-normal"))
		l.createConsumer()
		if err := l.say(old[1], "+ACK"); err == nil {
			l.Error("an ack for what the new consumer has not delivered was confirmed")
		}
		m := l.pulled(1)[0]
		if string(m.Data) != "b" || l.deliveries(m) != 1 {
			l.Errorf("got %s, delivery %d", m.Data, l.deliveries(m))
		}
		l.must(l.say(old[1], "+ACK")) // the old delivery's ack ends the new one
		l.wantLeft(0)
	})
}

func TestConformance_aNakOfAConsumerThatIsGoneHitsThatMadeAnew(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("a")
		old := l.pulled(1)[0]
		l.must(l.broker.deleteConsumer(l.Context(), "pool0-normal"))
		before, err := l.js.Consumer(l.Context(), jobStream, "pool0-normal")
		if err == nil {
			l.Errorf("it is still there: %v", before)
		}
		l.createConsumer()
		l.pulled(1)                // by somebody else
		l.must(l.say(old, "+WPI")) // is welcome
		l.must(l.say(old, "-NAK"))
		if m := l.pulled(1)[0]; l.deliveries(m) != 2 {
			l.Errorf("delivery %d, want the second", l.deliveries(m))
		}
	})
}

func TestConformance_aConsumerSaysWhenItWasMadeAndHowManyItDelivered(t *testing.T) {
	conforms(t, func(l *lab) {
		info := func() *jetstream.ConsumerInfo {
			c, err := l.js.Consumer(l.Context(), jobStream, "pool0-normal")
			l.must(err)
			return c.CachedInfo()
		}
		l.publish("a")
		l.publish("b")
		l.must(l.say(l.pulled(2)[1], "-NAK"))
		l.pulled(1)
		was := info()
		if was.Delivered.Consumer != 3 || was.Delivered.Stream != 2 || was.NumAckPending != 2 || was.NumPending != 0 {
			l.Errorf("%+v", was)
		}
		l.silent(time.Second)
		l.must(l.broker.deleteConsumer(l.Context(), "pool0-normal"))
		l.createConsumer()
		if is := info(); !is.Created.After(was.Created) || is.Delivered.Consumer != 0 || is.Delivered.Stream != 0 || is.NumPending != 2 {
			l.Errorf("%+v after %+v", is, was)
		}
	})
}

func TestConformance_aRestartForgetsThatAJobIsInHandUnlessThereWasASignOfLife(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("quiet")
		l.publish("alive")
		l.silent(3 * time.Second)
		got := l.pulled(2)
		l.must(l.say(got[1], "+WPI"))
		l.broker.restart(l.Context(), 1500*time.Millisecond)
		began := time.Now()
		for !l.nc.IsConnected() {
			l.silent(100 * time.Millisecond)
		}
		l.pull(2, "")
		if m := l.receive(time.Minute); string(m.Data) != "quiet" || time.Since(began) > 2*time.Second || l.deliveries(m) != 2 {
			l.Errorf("%s came, delivery %d, after %s; want the quiet one at once", m.Data, l.deliveries(m), time.Since(began))
		}
		if m := l.receive(time.Minute); string(m.Data) != "alive" || time.Since(began) < 500*time.Millisecond {
			l.Errorf("%s came after %s", m.Data, time.Since(began))
		}
	})
}

func TestConformance_aRestartKeepsTheDelayOfANak(t *testing.T) {
	conforms(t, func(l *lab) {
		l.publish("a")
		began := time.Now()
		l.must(l.say(l.pulled(1)[0], fmt.Sprintf(`-NAK {"delay":%d}`, 10*time.Second)))
		l.broker.restart(l.Context(), time.Second)
		for !l.nc.IsConnected() {
			l.silent(100 * time.Millisecond)
		}
		l.pull(1, "")
		m := l.receive(time.Minute)
		l.about("it came again", time.Since(began), 9*time.Second+500*time.Millisecond) // what is on disk counts seconds
		if n := l.deliveries(m); n != 2 {
			l.Errorf("delivery %d, want the second", n)
		}
	})
}

func TestConformance_aMessageWithTheSameIDIsStoredOnce(t *testing.T) {
	conforms(t, func(l *lab) {
		for n, want := range []bool{false, true} {
			ack, err := l.js.Publish(l.Context(), "jobs.0.normal", nil, jetstream.WithMsgID("x"))
			l.must(err)
			if ack.Sequence != 1 || ack.Duplicate != want {
				l.Errorf("publish %d: %+v", n, ack)
			}
		}
		l.wantLeft(1)
	})
}

func TestConformance_aFullStreamRefuses(t *testing.T) {
	conforms(t, func(l *lab) {
		cfg := jetstream.StreamConfig{Name: letterStream, Subjects: []string{"workerd.dlq.>"}, Discard: jetstream.DiscardNew, MaxMsgs: -1, Replicas: 1}
		_, err := l.js.CreateStream(l.Context(), cfg)
		l.must(err)
		publish := func() error {
			_, err := l.js.Publish(l.Context(), "workerd.dlq.a", nil)
			return err
		}
		l.must(publish())
		l.must(l.broker.limitLetters(l.Context(), true))
		if err := publish(); err == nil || !strings.Contains(err.Error(), "maximum messages exceeded") {
			l.Errorf("got %v", err)
		}
		l.must(l.broker.limitLetters(l.Context(), false))
		l.must(publish())
	})
}

func TestConformance_nobodyTakesWhatNoStreamIsFor(t *testing.T) {
	conforms(t, func(l *lab) {
		_, err := l.js.Publish(l.Context(), "other", nil, jetstream.WithRetryAttempts(1))
		if err == nil || !strings.Contains(err.Error(), "no response from stream") {
			l.Errorf("got %v", err)
		}
		if _, err := l.js.Stream(l.Context(), "OTHER"); err == nil || !strings.Contains(err.Error(), "stream not found") {
			l.Errorf("got %v", err)
		}
	})
}

func TestConformance_aKeyIsKeptAndForgotten(t *testing.T) {
	conforms(t, func(l *lab) {
		ctx := context.Background()
		kv, err := l.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "B", History: 1})
		l.must(err)
		_, err = kv.Put(ctx, "a.b.1", []byte("one"))
		l.must(err)
		_, err = kv.Put(ctx, "a.b.1", []byte("two"))
		l.must(err)
		e, err := kv.Get(ctx, "a.b.1")
		l.must(err)
		if string(e.Value()) != "two" {
			l.Errorf("got %s", e.Value())
		}
		l.must(kv.Delete(ctx, "a.b.1"))
		if _, err := kv.Get(ctx, "a.b.1"); err == nil {
			l.Error("it is still there")
		}
		if _, err := kv.Get(ctx, "a.b.2"); err == nil {
			l.Error("there is what never was")
		}
	})
}
