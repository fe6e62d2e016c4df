package queue

import (
	"testing"

	"github.com/nats-io/nats.go"
)

// TestConn_aServerThatTakesNothingIsLeftWithin15s: while the client writes it
// holds the lock under which it would notice that nobody answers its pings, so
// that the time for a write bounds that, too. (With a real connection this takes
// 15 s, and the client's timers cannot be shared with a bubble.)
func TestConn_aServerThatTakesNothingIsLeftWithin15s(t *testing.T) {
	opts, err := new(Conn).options(Config{URL: "nats://127.0.0.1:4222", InboxPrefix: "_INBOX"})
	if err != nil {
		t.Fatal(err)
	}
	all := nats.GetDefaultOptions()
	for _, o := range opts {
		if err := o(&all); err != nil {
			t.Fatal(err)
		}
	}
	if limit := pingInterval * (pingsOutstanding + 1); all.FlusherTimeout > limit || !all.ReconnectOnFlusherError {
		t.Errorf("a write may take %s and then leaves the server: %v; pings take %s", all.FlusherTimeout, all.ReconnectOnFlusherError, limit)
	}
}
