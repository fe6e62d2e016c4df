package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestFairness_behindTheJobsOfOneTenantAnotherIsServed: two thousand jobs of one
// lie before ten of another in the same stream. The ten do not wait for them,
// and each of all is done once, without a record.
func TestFairness_behindTheJobsOfOneTenantAnotherIsServed(t *testing.T) {
	k := newKit(t)
	const big, small = 2000, 10
	var mu sync.Mutex
	calls, after := map[string]int{}, 0
	k.decide = func(body string) int {
		<-time.After(10 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		calls[body]++
		if strings.HasPrefix(body, "small") {
			after = len(calls)
		}
		return http.StatusOK
	}
	k.pool = "fairness: {by: key, look_ahead: 5000}"
	file := k.load(described)
	d := k.run(file)
	await(t, "the stream", func() bool { _, err := k.js.Stream(t.Context(), "JOBS"); return err == nil })
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	for i := range big + small {
		tenant := "big"
		if i >= big {
			tenant = "small"
		}
		m := &nats.Msg{Subject: "jobs.a", Header: nats.Header{"Workerd-Key": {tenant}}, Data: fmt.Appendf(nil, "%s %d", tenant, i)}
		if _, err := k.js.PublishMsgAsync(m); err != nil {
			t.Fatal(err)
		}
	}
	<-k.js.PublishAsyncComplete()
	d = k.run(file)
	for tenths := range 10 { // one await is too short for a machine that is slow
		await(t, fmt.Sprintf("%d tenths are done", tenths+1), func() bool { return k.left() <= uint64(big/10*(9-tenths)) })
	}
	text := d.metrics()
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(text, `workerd_pool_set_aside{pool="p"}`) || strings.Contains(text, `workerd_jobs_deferred_total{pool="p",reason="fairness"} 0`) {
		t.Error("it does not say what was set aside")
	}
	mu.Lock()
	defer mu.Unlock()
	t.Logf("the ten were done after %d of %d", after, big)
	if after > big/2 {
		t.Errorf("the ten were done after %d others, want them long before", after)
	}
	if len(calls) != big+small {
		t.Errorf("%d jobs ran, want %d", len(calls), big+small)
	}
	for body, n := range calls {
		if n != 1 {
			t.Errorf("%q ran %d times", body, n)
		}
	}
	if kv, err := k.js.KeyValue(t.Context(), "WORKERD_ATTEMPTS"); err == nil {
		if status, err := kv.Status(t.Context()); err != nil || status.Values() > 0 {
			t.Errorf("%d records were written, want none: %v", status.Values(), err)
		}
	}
}
