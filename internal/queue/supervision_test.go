package queue_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/queue"
)

// journal keeps what is logged.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func (j *journal) times(text string) int { return strings.Count(j.String(), text) }

// dialAs connects with a configuration of its own and returns what it logs.
func (k *kit) dialAs(cfg queue.Config) (*queue.Conn, *journal) {
	k.t.Helper()
	if cfg.URL == "" {
		cfg.URL = k.broker.URL()
	}
	j := &journal{}
	c, err := queue.Dial(cfg.WithDefaults(), slog.New(slog.NewTextHandler(j, nil)))
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() {
		c.Close()
		if k.t.Failed() {
			k.t.Logf("the connection said:\n%s", j)
		}
	})
	return c, j
}

// awaitFor asks again and again: what happens in the broker sends no event. A
// round trip to the broker comes between two questions.
func (k *kit) awaitFor(what string, ok func() bool) {
	k.t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-limit.C:
			k.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// supervise does what app does each second, more often.
func (k *kit) supervise(c *queue.Conn, sources ...*queue.Source) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			c.TryPermissions(time.Now())
			for _, s := range sources {
				if s.Stats().Ready {
					_, _ = s.Lag(ctx) // what it cannot learn it asks again
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	k.t.Cleanup(func() { cancel(); wg.Wait() })
}

// work acknowledges whatever comes, and asks for as much again.
type worker struct {
	*catcher
	s *queue.Source
}

func (w worker) Deliver(d job.Delivery, n uint64) {
	if err := d.Settle(job.Ack, 0); err != nil {
		panic(err)
	}
	w.s.Request(1)
	w.catcher.Deliver(d, n)
}

func (w worker) Returned(n int) { w.s.Request(n) }

func (k *kit) working(c *queue.Conn) (*queue.Source, worker) {
	s := k.source(c, 30*time.Second)
	w := worker{newCatcher(), s}
	k.t.Cleanup(run(s, w))
	s.Request(10)
	k.supervise(c, s)
	k.awaitFor("the source is ready", func() bool { return s.Stats().Ready })
	return s, w
}

func (k *kit) do(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func TestSupervision_consumerDeletedWhileIdleIsMadeAnew(t *testing.T) {
	k := newKit(t)
	c, said := k.dialAs(queue.Config{})
	s := k.source(c, 30*time.Second) // asks for nothing, as behind an open breaker
	t.Cleanup(run(s, newCatcher()))
	k.supervise(c, s)
	k.awaitFor("the source is ready", func() bool { return s.Stats().Ready })
	k.do(k.js.DeleteConsumer(t.Context(), "JOBS", "p-normal"))
	k.awaitFor("there is a consumer again", func() bool {
		_, err := k.js.Consumer(t.Context(), "JOBS", "p-normal")
		return err == nil
	})
	k.awaitFor("it is said", func() bool { return said.times("the consumer had gone and was made anew") == 1 })
}

func TestSupervision_consumerDeletedWhileDisconnectedIsMadeAnew(t *testing.T) {
	k := newKit(t)
	proxy := newProxy(t, k.broker.URL())
	c, _ := k.dialAs(queue.Config{URL: proxy.url()})
	_, w := k.working(c)
	k.publish(1)
	w.await(t, 1)
	proxy.cut()
	k.awaitFor("we are disconnected", func() bool { return !c.Connected() })
	k.do(k.js.DeleteConsumer(t.Context(), "JOBS", "p-normal"))
	proxy.mend()
	k.publish(1)
	w.await(t, 2)
}

func TestSupervision_streamDeletedAndMadeAgainIsWorkedOn(t *testing.T) {
	k := newKit(t)
	c, _ := k.dialAs(queue.Config{})
	s, w := k.working(c)
	k.publish(2)
	w.await(t, 2)
	k.flush(c)
	k.do(k.js.DeleteStream(t.Context(), "JOBS"))
	k.awaitFor("it says so", func() bool {
		st := s.Stats()
		return !st.Ready && st.Problem == "stream JOBS does not exist: create it, or describe it under streams"
	})
	k.stream = k.broker.Stream(k.js, "JOBS", "jobs.>")
	k.publish(2) // has the sequences of the first two
	w.await(t, 4)
	k.awaitFor("all are done", func() bool { return k.left() == 0 })
	if lost := s.Stats().Lost; lost != 0 {
		t.Errorf("%d jobs counted as lost, none was", lost)
	}
}

func TestSupervision_brokerRestartedEmptyIsSetUpAgain(t *testing.T) {
	k := newKit(t)
	c, _ := k.dialAs(queue.Config{})
	s := c.Source(queue.SourceConfig{
		Stream: "OURS", Consumer: "p-normal", Subjects: []string{"ours.>"}, AckWait: 30 * time.Second, MaxMessage: 1 << 20, Limit: 10,
		Create: &queue.StreamConfig{Subjects: []string{"ours.>"}, Retention: "workqueue", Replicas: 1},
	})
	w := worker{newCatcher(), s}
	t.Cleanup(run(s, w))
	s.Request(5)
	k.supervise(c, s)
	k.awaitFor("the source is ready", func() bool { return s.Stats().Ready })
	k.broker.RestartEmpty()
	k.awaitFor("a job can be published", func() bool {
		_, err := k.js.Publish(t.Context(), "ours.a", []byte("x"))
		return err == nil
	})
	w.await(t, 1)
}

func TestSupervision_aConsumerThatIsNotForUsIsNotUsed(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  jetstream.ConsumerConfig
		want string
	}{
		{"no acks", jetstream.ConsumerConfig{AckPolicy: jetstream.AckAllPolicy}, "has ack policy AckAll, workerd needs explicit"},
		{"other subjects", jetstream.ConsumerConfig{FilterSubject: "other.>"}, "also takes other.>, which would run in the wrong pool"},
		{"more subjects", jetstream.ConsumerConfig{FilterSubjects: []string{"jobs.>", "other.a"}}, "also takes other.a, which would run in the wrong pool"},
		{"everything", jetstream.ConsumerConfig{}, "also takes other.>, which would run in the wrong pool"},
		{"no payloads", jetstream.ConsumerConfig{FilterSubject: "jobs.>", HeadersOnly: true}, "delivers headers only"},
		{"short requests", jetstream.ConsumerConfig{FilterSubject: "jobs.>", MaxRequestExpires: 5 * time.Second}, "the broker gives no jobs of consumer p-normal: 409 Exceeded MaxRequestExpires"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKitWith(t, jetstream.StreamConfig{Subjects: []string{"jobs.>", "other.>"}})
			conn, _ := k.dialAs(queue.Config{})
			s, w := k.working(conn)
			k.publish(1)
			w.await(t, 1)
			k.do(k.js.DeleteConsumer(t.Context(), "JOBS", "p-normal"))
			c.cfg.Durable = "p-normal"
			k.replace(c.cfg)
			k.awaitFor("it says why", func() bool {
				st := s.Stats()
				return !st.Ready && strings.Contains(st.Problem, c.want)
			})
			_, err := k.js.Publish(t.Context(), "other.a", nil)
			k.do(err)
			k.do(k.js.DeleteConsumer(t.Context(), "JOBS", "p-normal"))
			k.awaitFor("it heals", func() bool { return s.Stats().Ready })
			k.publish(1)
			k.awaitFor("works again", func() bool { return k.consumer().NumPending == 0 })
			for _, d := range w.await(t, 1) {
				if d.Job().Subject == "other.a" {
					t.Error("a job of another subject was run")
				}
			}
		})
	}
}

// TestSupervision_aJobWithoutItsPayloadIsNotRun: somebody lets the consumer deliver
// headers only while workerd pulls from it. What is run then, and acked, is gone.
func TestSupervision_aJobWithoutItsPayloadIsNotRun(t *testing.T) {
	k := newKit(t)
	conn, said := k.dialAs(queue.Config{})
	s, w := k.working(conn)
	k.publish(1)
	w.await(t, 1)
	cfg := k.consumer().Config
	cfg.HeadersOnly = true
	_, err := k.js.UpdateConsumer(t.Context(), "JOBS", cfg)
	k.do(err)
	k.publishRaw("jobs.a", "NATS/1.0\r\nNats-Msg-Size: 0\r\n\r\n", "with a size of its own")
	k.awaitFor("it says why", func() bool {
		st := s.Stats()
		return !st.Ready && strings.Contains(st.Problem, "delivers headers only") && said.times("came without its payload") == 1
	})
	cfg.HeadersOnly = false
	_, err = k.js.UpdateConsumer(t.Context(), "JOBS", cfg)
	k.do(err)
	k.awaitFor("it heals", func() bool { return s.Stats().Ready })
	k.publish(1)
	for _, d := range w.await(t, 2) { // the other one waits for another look
		if len(d.Job().Payload) == 0 {
			t.Error("a job was run without its payload")
		}
	}
}

// TestSupervision_anEmptyJobThatNamesASizeIsRun: the broker has kept nothing back.
func TestSupervision_anEmptyJobThatNamesASizeIsRun(t *testing.T) {
	k := newKit(t)
	conn, said := k.dialAs(queue.Config{})
	_, w := k.working(conn)
	k.publishRaw("jobs.a", "NATS/1.0\r\nNats-Msg-Size: 5\r\n\r\n", "")
	w.await(t, 1)
	if said.times("without its payload") != 0 {
		t.Error("it was given back first")
	}
}

// TestSupervision_aPausedConsumerIsSaid, as no job comes and all looks well.
func TestSupervision_aPausedConsumerIsSaid(t *testing.T) {
	k := newKit(t)
	conn, _ := k.dialAs(queue.Config{})
	s, w := k.working(conn)
	_, err := k.js.PauseConsumer(t.Context(), "JOBS", "p-normal", time.Now().Add(time.Hour))
	k.do(err)
	look := func() string {
		_, err := s.Lag(t.Context())
		k.do(err)
		return s.Stats().Notice
	}
	k.awaitFor("it says so", func() bool { return strings.Contains(look(), "is paused") })
	_, err = k.js.ResumeConsumer(t.Context(), "JOBS", "p-normal")
	k.do(err)
	k.publish(1)
	w.await(t, 1)
	k.awaitFor("it says so no more", func() bool { return look() == "" })
}

// replace makes the consumer anew before workerd does, or instead of it.
func (k *kit) replace(cfg jetstream.ConsumerConfig) {
	k.t.Helper()
	k.awaitFor("the consumer is another", func() bool {
		_, err := k.js.CreateConsumer(k.t.Context(), "JOBS", cfg)
		if err != nil {
			_ = k.js.DeleteConsumer(k.t.Context(), "JOBS", cfg.Durable) // workerd's own
		}
		return err == nil
	})
}

func TestSupervision_aNarrowerFilterIsUsedAndSaid(t *testing.T) {
	k := newKit(t)
	_, err := k.js.CreateConsumer(t.Context(), "JOBS", jetstream.ConsumerConfig{
		Durable: "p-normal", FilterSubject: "jobs.a", AckPolicy: jetstream.AckExplicitPolicy,
	})
	k.do(err)
	c, said := k.dialAs(queue.Config{})
	s, w := k.working(c)
	k.publish(1)
	w.await(t, 1)
	const want = "consumer p-normal of stream JOBS does not take jobs.>: these jobs wait"
	if n := s.Stats().Notice; !strings.HasPrefix(n, want) {
		t.Errorf("notice is %q", n)
	}
	k.broker.Restart()
	k.publish(1)
	w.await(t, 2)
	if n := said.times(want); n != 1 {
		t.Errorf("said %d times, want once", n)
	}
}

func TestSupervision_aChangedAckWaitIsAdopted(t *testing.T) {
	k := newKit(t)
	c, said := k.dialAs(queue.Config{})
	s, w := k.working(c)
	cfg := k.consumer().Config
	cfg.AckWait = 7 * time.Second
	_, err := k.js.UpdateConsumer(t.Context(), "JOBS", cfg)
	k.do(err)
	k.awaitFor("it is adopted", func() bool { return s.AckWait() == 7*time.Second })
	k.publish(1)
	d := w.await(t, 1)[0]
	if lease := time.Until(d.LeaseUntil()); lease > 7*time.Second {
		t.Errorf("the lease lasts %s", lease)
	}
	k.awaitFor("it is said once", func() bool { return said.times("setting=ack_wait is=7s") == 1 })
}

// TestSupervision_aRecreatedConsumerOfALimitsStreamDoesNotDoAllAgain: such a
// stream keeps what is done.
func TestSupervision_aRecreatedConsumerOfALimitsStreamDoesNotDoAllAgain(t *testing.T) {
	k := newKitWith(t, jetstream.StreamConfig{Subjects: []string{"jobs.>"}})
	c, _ := k.dialAs(queue.Config{})
	_, w := k.working(c)
	k.publish(20)
	w.await(t, 20)
	k.flush(c)
	k.awaitFor("all is acknowledged", func() bool { return k.consumer().AckFloor.Stream == 20 })
	seen := k.consumer().Created
	k.lag(c, w.s)
	k.do(k.js.DeleteConsumer(t.Context(), "JOBS", "p-normal"))
	k.awaitFor("there is another", func() bool {
		c, err := k.js.Consumer(t.Context(), "JOBS", "p-normal")
		return err == nil && !c.CachedInfo().Created.Equal(seen)
	})
	if i := k.consumer(); i.Config.OptStartSeq != 21 {
		t.Errorf("the new consumer starts at %d, want 21", i.Config.OptStartSeq)
	}
	k.publish(1)
	w.await(t, 21)
}

// lag asks once the broker's answer of a second ago is not used any more.
func (k *kit) lag(c *queue.Conn, s *queue.Source) {
	k.t.Helper()
	if _, err := s.Lag(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
	k.flush(c)
}
