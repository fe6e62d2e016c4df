package queue_test

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/queue"
)

// TestDelivery_aConfirmationThatComesTooLateChangesNothing: the sign of life may
// have arrived when the job was somebody else's, and is confirmed all the same
// (found by sim, I9).
func TestDelivery_aConfirmationThatComesTooLateChangesNothing(t *testing.T) {
	k := newKit(t)
	way := newProxy(t, k.broker.URL())
	there, _ := k.dialAs(queue.Config{URL: way.url()})
	const lease = 4 * time.Second
	s, c := k.source(there, lease), newCatcher()
	defer run(s, c)()
	s.Request(2)
	k.publish(1)
	d := c.await(t, 1)[0]
	end := d.LeaseUntil()
	release := way.hold()
	t.Cleanup(release)
	timer := time.NewTimer(lease / 2)
	defer timer.Stop()
	<-timer.C
	d.Extend()
	timer.Reset(time.Until(end) + 50*time.Millisecond)
	<-timer.C
	release()
	k.publish(1)
	settle(t, job.Ack, c.await(t, 2)[1])
	k.flush(there) // its confirmation comes after that of the sign of life
	if !d.LeaseUntil().Equal(end) {
		t.Errorf("a lease that was over ends %s later", d.LeaseUntil().Sub(end))
	}
}

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
