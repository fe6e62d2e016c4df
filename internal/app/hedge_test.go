package app_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestHedge_aCallThatHangsIsMadeASecondTime by a whole workerd, at a real
// server: the job is done without an attempt that failed, and the call that hung
// is given up.
func TestHedge_aCallThatHangsIsMadeASecondTime(t *testing.T) {
	k := newKit(t)
	k.retry = "{max_attempts: 1}, idempotent: true, hedge: {after: 100ms, budget: 0.5}"
	hung := false
	k.decide = func(body string) int {
		k.mu.Lock()
		defer k.mu.Unlock()
		if body == "9" && !hung {
			hung = true
			return 0 // until the caller gives up
		}
		return http.StatusOK
	}
	d := k.start(described)
	d.awaitReady()
	k.publish(10)
	await(t, "ten jobs done", func() bool { return d.Status().Pools[0].Jobs.OK == 10 })
	if n := k.calls.Load(); n != 11 {
		t.Errorf("%d calls for ten jobs, want one more", n)
	}
	s := d.Status()
	if s.Targets[0].Failed != 0 || s.Targets[0].Breaker.Bad != 0 || s.Pools[0].Jobs.Retry != 0 {
		t.Errorf("the call that lost counts as failed: %+v", s.Targets[0])
	}
	if m := d.metrics(); !strings.Contains(m, `workerd_hedges_total{result="won",target="t"} 1`) {
		t.Error("no hedge was counted as won")
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}
