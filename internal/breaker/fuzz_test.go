package breaker_test

import (
	"testing"
	"time"

	"github.com/workerd/workerd/internal/breaker"
)

// FuzzBreaker lets the bytes decide on config and steps, and compares the
// breaker with the naive model after each.
func FuzzBreaker(f *testing.F) {
	f.Add([]byte("0000000000000000000000000000000000000"))
	f.Add([]byte("\x00\x01\x01\x00\x01\x00\x00\x00\x01\x00\x02\x01\x00\x00\x07\x02\x00\x00\x07\x02\x00\x11\x00\x01"))
	f.Add([]byte("breaker open half open closed breaker open half open closed breaker open half open closed"))
	f.Fuzz(func(t *testing.T, story []byte) {
		story = story[:min(len(story), 1000)] // the model is slow, and longer stories repeat themselves
		d := func(n int) int {
			if len(story) == 0 {
				return 0
			}
			b := story[0]
			story = story[1:]
			return int(b) % n
		}
		w := newWorld(t, randomConfig(d))
		for len(story) > 0 {
			w.step(d, true)
		}
	})
}

// TestModel_agreesOnAPlainOutage keeps the model honest: a short story with
// every number written out.
func TestModel_agreesOnAPlainOutage(t *testing.T) {
	w := newWorld(t, breaker.Config{OpenJitter: -1})
	for range 5 {
		w.acquire()
		w.done(0, breaker.Bad, 0)
	}
	want := facts{State: breaker.Open, Reason: breaker.ConsecutiveFailures, Until: 5 * time.Second, Opens: 1, CreditUntil: 5 * time.Second}
	if got := w.facts(); got != want {
		t.Errorf("after five failures: %+v, want %+v", got, want)
	}
	w.wait(5 * time.Second)
	for range 3 {
		w.acquire()
		w.done(0, breaker.Good, 0)
	}
	if s := w.stats(); s.State != breaker.Closed || s.Reason != breaker.Recovered {
		t.Errorf("after three good probes: %v (%v)", s.State, s.Reason)
	}
}
