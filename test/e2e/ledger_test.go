package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// downstream is a real HTTP server that keeps the books.
type downstream struct {
	url    string
	server *http.Server
	addr   string
	wg     sync.WaitGroup

	mu         sync.Mutex
	handle     func(r *http.Request) int // status to answer; 0 aborts the connection
	retryAfter string                    // sent with a 429
	calls      map[string]int
	done       map[string]int // calls answered 2xx
	doneAt     map[string]time.Time
	aborted    int // calls given up by the caller
	inFlight   int
	most       int // most calls in flight at once
	total      int
}

func startDownstream(t *testing.T, handle func(r *http.Request) int) *downstream {
	t.Helper()
	d := &downstream{
		handle: handle, calls: map[string]int{}, done: map[string]int{}, doneAt: map[string]time.Time{},
	}
	d.listen(t, "127.0.0.1:0")
	t.Cleanup(d.close)
	return d
}

func (d *downstream) listen(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	d.addr = l.Addr().String()
	d.url = "http://" + d.addr + "/work"
	d.server = &http.Server{Handler: d, ReadHeaderTimeout: 10 * time.Second}
	d.wg.Go(func() { _ = d.server.Serve(l) })
}

// close refuses connections from here on and cuts those there are.
func (d *downstream) close() {
	_ = d.server.Close()
	d.wg.Wait()
}

func (d *downstream) behave(handle func(r *http.Request) int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handle = handle
}

func (d *downstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("Workerd-Job-Id")
	_, _ = io.Copy(io.Discard, r.Body)
	d.mu.Lock()
	d.calls[id]++
	d.total++
	d.inFlight++
	d.most = max(d.most, d.inFlight)
	handle := d.handle
	d.mu.Unlock()
	status := handle(r)
	d.mu.Lock()
	d.inFlight--
	switch {
	case r.Context().Err() != nil:
		d.aborted++
	case status >= 200 && status < 300:
		d.done[id]++
		d.doneAt[id] = time.Now()
	}
	d.mu.Unlock()
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", d.retryAfter)
	}
	w.WriteHeader(status)
}

// after answers status once the time has passed, 0 if the caller gave up.
func after(r *http.Request, d time.Duration, status int) int {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return status
	case <-r.Context().Done():
		return 0
	}
}

func ok(r *http.Request) int { return http.StatusOK }

type books struct {
	total, most, aborted, inFlight int
	done, twice                    int
}

func (d *downstream) books() books {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := books{total: d.total, most: d.most, aborted: d.aborted, inFlight: d.inFlight, done: len(d.done)}
	for _, n := range d.done {
		if n > 1 {
			b.twice++
		}
	}
	return b
}

func (d *downstream) isDone(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done[id] > 0
}

// client publishes and looks into streams.
type client struct {
	t  *testing.T
	nc *nats.Conn
	js jetstream.JetStream
}

func connect(t *testing.T, n *natsProcess) *client {
	t.Helper()
	nc, err := nats.Connect(n.url(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t, nc, js}
	_, err = js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{
		Name: "JOBS", Subjects: []string{"jobs.>"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// publish sends n jobs <prefix>-0... to subject and returns their ids once the
// stream has acknowledged all.
func (c *client) publish(subject, prefix string, n int) []string {
	c.t.Helper()
	ids := make([]string, n)
	futures := make([]jetstream.PubAckFuture, n)
	for i := range n {
		ids[i] = fmt.Sprintf("%s-%d", prefix, i)
		f, err := c.js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: []byte(`{"id":"` + ids[i] + `"}`)}, jetstream.WithMsgID(ids[i]), jetstream.WithStallWait(time.Minute))
		if err != nil {
			c.t.Fatal(err)
		}
		futures[i] = f
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			c.t.Fatal(err)
		case <-time.After(30 * time.Second):
			c.t.Fatal("publish was not acknowledged")
		}
	}
	return ids
}

// pace publishes rate jobs per second until ctx ends, and returns the ids of
// those that were acknowledged.
func (c *client) pace(ctx context.Context, subject, prefix string, rate int) []string {
	const ticks = 50 // per second
	tick := time.NewTicker(time.Second / ticks)
	defer tick.Stop()
	var ids []string
	for n, sent := 1, 0; ; n++ {
		select {
		case <-ctx.Done():
			return ids
		case <-tick.C:
		}
		for ; sent < n*rate/ticks; sent++ {
			id := fmt.Sprintf("%s-%d", prefix, sent)
			pub, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			_, err := c.js.Publish(pub, subject, []byte(id), jetstream.WithMsgID(id))
			cancel()
			if err == nil {
				ids = append(ids, id)
			}
		}
	}
}

// deadLetters returns the reason of each dead letter by job id.
func (c *client) deadLetters() map[string]string {
	c.t.Helper()
	dead := map[string]string{}
	s, err := c.js.Stream(c.t.Context(), "WORKERD_DLQ")
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return dead
	}
	if err != nil {
		c.t.Fatal(err)
	}
	info := s.CachedInfo()
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && seq > 0; seq++ {
		m, err := s.GetMsg(c.t.Context(), seq)
		if err != nil {
			c.t.Fatal(err)
		}
		id := m.Header.Get("Workerd-Orig-Nats-Msg-Id")
		if dead[id] != "" {
			c.t.Errorf("job %s has two dead letters", id)
		}
		dead[id] = m.Header.Get("Workerd-Dlq-Reason")
	}
	return dead
}

// left is the number of jobs in the stream.
func (c *client) left() int {
	c.t.Helper()
	s, err := c.js.Stream(c.t.Context(), "JOBS")
	if err != nil {
		return -1
	}
	return int(s.CachedInfo().State.Msgs)
}

func (c *client) awaitEmpty(limit time.Duration) {
	c.t.Helper()
	await(c.t, limit, "the stream is empty", func() bool { return c.left() == 0 })
}

// reconcile checks that every acknowledged job was done or is a dead letter.
func reconcile(t *testing.T, ids []string, d *downstream, dead map[string]string) {
	t.Helper()
	lost := 0
	for _, id := range ids {
		if !d.isDone(id) && dead[id] == "" {
			lost++
			if lost <= 5 {
				t.Errorf("job %s is lost", id)
			}
		}
	}
	if lost > 5 {
		t.Errorf("%d jobs of %d are lost", lost, len(ids))
	}
}
