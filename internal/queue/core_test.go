package queue_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/codel"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/natstest"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/shed"
)

// coreKit is an intake that runs, somebody who publishes, and what has come.
type coreKit struct {
	t    *testing.T
	core *queue.Core
	nc   *nats.Conn
	got  chan job.Delivery
	stop func()
}

// Deliver implements job.Receiver.
func (k *coreKit) Deliver(d job.Delivery, _ uint64) { k.got <- d }

// Returned implements job.Receiver.
func (k *coreKit) Returned(int) { k.t.Error("core NATS returns no requests") }

func newCoreKit(t *testing.T, capacity int) *coreKit {
	b := natstest.Start(t)
	k := &coreKit{t: t, got: make(chan job.Delivery, 100)}
	k.nc, _ = b.Connect()
	conn := (&kit{t: t, broker: b}).dial()
	k.core = conn.Core(queue.CoreConfig{
		Subject: "rpc.>", Queue: "workers", MaxMessage: 100, Priority: job.Normal,
		Local: codel.Config{Capacity: capacity, Bytes: 1 << 20, Target: time.Hour, Interval: 20 * time.Millisecond},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { k.core.Run(ctx, k) })
	k.stop = func() { cancel(); running.Wait() }
	t.Cleanup(k.stop)
	k.until(func(s queue.CoreStats) bool { return s.Ready })
	if err := conn.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

// until waits for the counters to be so.
func (k *coreKit) until(so func(queue.CoreStats) bool) {
	k.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for patience := time.After(30 * time.Second); !so(k.core.Stats()); {
		select {
		case <-tick.C:
		case <-patience:
			k.t.Fatalf("still %+v", k.core.Stats())
		}
	}
}

// ask publishes with a reply subject and returns where the reply will come.
func (k *coreKit) ask(body string) chan *nats.Msg { return k.askFor(body, nil) }

// askFor is ask with headers.
func (k *coreKit) askFor(body string, header nats.Header) chan *nats.Msg {
	k.t.Helper()
	inbox, replies := k.nc.NewInbox(), make(chan *nats.Msg, 2)
	if _, err := k.nc.ChanSubscribe(inbox, replies); err != nil {
		k.t.Fatal(err)
	}
	if err := k.nc.PublishMsg(&nats.Msg{Subject: "rpc.a", Reply: inbox, Header: header, Data: []byte(body)}); err != nil {
		k.t.Fatal(err)
	}
	return replies
}

func (k *coreKit) reply(from chan *nats.Msg) *nats.Msg {
	k.t.Helper()
	select {
	case m := <-from:
		return m
	case <-time.After(30 * time.Second):
		k.t.Fatal("no reply")
		return nil
	}
}

func (k *coreKit) wantCode(from chan *nats.Msg, code string) *nats.Msg {
	k.t.Helper()
	m := k.reply(from)
	if got := m.Header.Get("Nats-Service-Error-Code"); got != code {
		k.t.Errorf("replied %q %v, want code %q", m.Data, m.Header, code)
	}
	return m
}

func TestCore_whoAsksHearsWhatBecameOfTheJob(t *testing.T) {
	for _, c := range []struct {
		verb  job.Verb
		after time.Duration
		code  string
		retry string
	}{
		{job.Ack, 0, "", ""},
		{job.Term, 0, "500", ""},
		{job.Nak, 1500 * time.Millisecond, "503", "2"},
	} {
		k := newCoreKit(t, 10)
		k.core.Request(1)
		replies := k.ask("x")
		d := <-k.got
		if j := d.Job(); string(j.Payload) != "x" || j.Subject != "rpc.a" || j.Deliveries != 1 || j.Key() == ":0" {
			t.Errorf("got %+v", j)
		}
		if err := d.Settle(c.verb, c.after); err != nil {
			t.Error(err)
		}
		if m := k.wantCode(replies, c.code); m.Header.Get("Retry-After") != c.retry {
			t.Errorf("%s: replied %v, want Retry-After %q", c.verb, m.Header, c.retry)
		}
	}
}

func TestCore_handsOverExactlyWhatIsAskedForAndRefusesWhatHasNoRoom(t *testing.T) {
	k := newCoreKit(t, 3)
	k.core.Request(2)
	k.ask("1")
	k.ask("2")
	for range 2 {
		<-k.got
	}
	var waiting []chan *nats.Msg
	for range 3 {
		waiting = append(waiting, k.ask("waits"))
	}
	refused := k.wantCode(k.ask("too many"), "429")
	if refused.Header.Get("Retry-After") != "1" || refused.Header.Get("Nats-Service-Error") == "" {
		t.Errorf("refused with %v", refused.Header)
	}
	if err := k.nc.Publish("rpc.a", []byte("nobody waits")); err != nil {
		t.Fatal(err)
	}
	k.until(func(s queue.CoreStats) bool {
		return s.Received == 7 && s.Refused == 2 && s.Lost == 1 && s.Waiting == 3
	})
	if len(k.got) != 0 {
		t.Error("more was handed over than was asked for")
	}
	k.stop() // those who wait hear of it at once
	for _, replies := range waiting {
		k.wantCode(replies, "503")
	}
	if s := k.core.Stats(); s.Received != 7 || s.Refused != 5 || s.Lost != 1 || s.Waiting != 0 {
		t.Errorf("left %+v", s)
	}
}

// TestInvariant31_forWantOfRoomTheSameTenantsAreTurnedAway, whatever the order
// in which they come: those of the highest levels, by their keys or else their ids.
func TestInvariant31_forWantOfRoomTheSameTenantsAreTurnedAway(t *testing.T) {
	k := newCoreKit(t, 10)
	hour := func() time.Time { return time.Now().Truncate(time.Hour) }
	for began := (time.Time{}); !began.Equal(hour()); { // the levels must not change meanwhile
		began = hour()
		before := k.core.Stats()
		var levels []int
		for i := range 40 {
			name := fmt.Sprintf("tenant-%d", i)
			levels = append(levels, shed.Level(name, began))
			header := nats.Header{job.HeaderKey: {name}, job.HeaderMsgID: {"any"}}
			if i%2 == 0 {
				header = nats.Header{job.HeaderMsgID: {name}}
			}
			k.askFor(strconv.Itoa(levels[i]), header)
		}
		k.until(func(s queue.CoreStats) bool {
			return s.Received-before.Received == 40 && s.Refused-before.Refused == 30
		})
		k.core.Request(10)
		var got []int
		for range 10 {
			d := <-k.got
			level, err := strconv.Atoi(string(d.Job().Payload))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, level)
		}
		slices.Sort(levels)
		slices.Sort(got)
		if !slices.Equal(got, levels[:10]) && began.Equal(hour()) {
			t.Errorf("of levels %v those waited: %v", levels, got)
		}
	}
}

// TestCore_everyMessageIsAccountedFor while the intake stops in the middle of
// a stream of them.
func TestCore_everyMessageIsAccountedFor(t *testing.T) {
	k := newCoreKit(t, 50)
	const n = 500
	answers := make(chan string, n)
	inbox := k.nc.NewInbox()
	if _, err := k.nc.Subscribe(inbox, func(m *nats.Msg) {
		if m.Header.Get("Status") == "" { // otherwise it is the server's: nobody listens any more
			answers <- m.Header.Get("Nats-Service-Error-Code")
		}
	}); err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	quit := make(chan struct{})
	done.Go(func() {
		for {
			select {
			case d := <-k.got:
				_ = d.Settle(job.Ack, 0) // there is nobody to fail to tell
				k.core.Request(1)
			case <-quit:
				return
			}
		}
	})
	k.core.Request(10)
	for i := range n {
		if err := k.nc.PublishRequest("rpc.a", inbox, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if i == n/2 {
			if err := k.nc.Flush(); err != nil {
				t.Fatal(err)
			}
			k.stop()
		}
	}
	close(quit)
	done.Wait()
	for len(k.got) > 0 {
		_ = (<-k.got).Settle(job.Nak, 0)
	}
	s := k.core.Stats()
	if s.Received < n/2 {
		t.Errorf("%d were received, %d were there before the end", s.Received, n/2)
	}
	codes := map[string]uint64{}
	for range s.Received {
		select {
		case code := <-answers:
			codes[code]++
		case <-time.After(30 * time.Second):
			t.Fatalf("%d were received, answered were only %v", s.Received, codes)
		}
	}
	if codes["429"]+codes["503"] != s.Refused+s.Expired+s.Undone {
		t.Errorf("answers %v do not agree with %+v", codes, s)
	}
}

func TestCore_tooLargeIsInvalidNotLost(t *testing.T) {
	k := newCoreKit(t, 10)
	k.core.Request(1)
	k.ask(string(make([]byte, 101)))
	if d := <-k.got; d.Job().Invalid == nil {
		t.Error("a payload above max_message is not invalid")
	}
}
