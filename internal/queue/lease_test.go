package queue_test

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/workerd/workerd/internal/job"
)

// TestSettler_anUnconfirmedAckDoesNotHoldThePayload: thousands of settlements
// may wait for their confirmation, of payloads of 8 MiB each.
func TestSettler_anUnconfirmedAckDoesNotHoldThePayload(t *testing.T) {
	k := newKit(t)
	if _, err := k.js.Publish(t.Context(), "jobs.a", make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	s := k.source(k.conn, time.Minute)
	c := newCatcher()
	defer run(s, c)()
	s.Request(1)
	payload := weak.Make(&c.await(t, 1)[0].Job().Payload[0])
	k.broker.Stop() // so nobody confirms
	settle(t, job.Ack, c.got[0])
	c.mu.Lock()
	c.got = nil
	c.mu.Unlock()
	if n := k.conn.Stats().Unsettled; n != 1 {
		t.Fatalf("%d settlements are open, want 1", n)
	}
	for range 100 {
		if runtime.GC(); payload.Value() == nil {
			return
		}
	}
	t.Error("the payload of a job that is done is still held")
}
