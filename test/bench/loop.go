package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/broker"
)

// serveBroker is a nats-server with file storage, synced in nats-server's own
// intervals, as is its default.
func serveBroker(ctx context.Context, dir string) error {
	s, err := broker.Start(broker.Config{Port: -1, StoreDir: dir, Lazy: true})
	if err != nil {
		return err
	}
	fmt.Println(s.URL())
	<-ctx.Done()
	s.Shutdown()
	return nil
}

// runLoop is the rival: what one writes in an afternoon with nats.go and
// net/http, tuned as one should (connections kept, jobs buffered ahead by the
// client library, a goroutine per slot). It keeps no lease, retries nothing and
// breaks nothing. Other shapes of it (Consume, a larger buffer, Next in each
// goroutine) were no faster.
func runLoop(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(roleLoop, flag.ContinueOnError)
	server, url := flags.String("nats", "", ""), flags.String("url", "", "")
	concurrency, confirm := flags.Int("c", 64, ""), flags.Bool("confirm", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	nc, err := nats.Connect(*server)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	cons, err := js.CreateOrUpdateConsumer(ctx, streamName, jetstream.ConsumerConfig{
		Durable: "loop", FilterSubject: subject, AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second, MaxAckPending: -1,
	})
	if err != nil {
		return err
	}
	ahead := 2 * *concurrency
	// Now and then the client misses that it has to pull again, and notices
	// after two heartbeats: of 15 s, if one does not know.
	it, err := cons.Messages(jetstream.PullMaxMessages(ahead), jetstream.PullHeartbeat(time.Second))
	if err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConns: *concurrency, MaxIdleConnsPerHost: *concurrency}
	defer transport.CloseIdleConnections()
	l := loop{client: &http.Client{Transport: transport, Timeout: 10 * time.Second}, url: *url, confirm: *confirm}
	jobs := make(chan jetstream.Msg)
	var workers sync.WaitGroup
	for range *concurrency {
		workers.Go(func() {
			for m := range jobs {
				l.one(ctx, m)
			}
		})
	}
	defer workers.Wait()
	defer close(jobs)
	stop := context.AfterFunc(ctx, it.Drain)
	defer stop()
	for {
		m, err := it.Next()
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return nil
		}
		if err == nil {
			jobs <- m
		}
	}
}

// loop is what its goroutines share.
type loop struct {
	client  *http.Client
	url     string
	confirm bool // wait for the broker to confirm the ack
}

// one calls and acknowledges. What fails is left to the broker to deliver again,
// and the books will show it.
func (l loop) one(ctx context.Context, m jetstream.Msg) {
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, l.url, bytes.NewReader(m.Data()))
	if err != nil {
		return
	}
	req.Header.Set(idHeader, m.Headers().Get(nats.MsgIdHdr))
	resp, err := l.client.Do(req)
	if err != nil {
		return
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close() // read to its end
	switch {
	case err != nil || resp.StatusCode != http.StatusOK:
	case l.confirm:
		_ = m.DoubleAck(context.WithoutCancel(ctx))
	default:
		_ = m.Ack()
	}
}
