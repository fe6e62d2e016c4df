package dlq_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestShelf_keepsTheJobOnceUnderTheOtherSubject(t *testing.T) {
	k := newKit(t, nil)
	if _, err := k.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LATER", Subjects: []string{"later.>"}}); err != nil {
		t.Fatal(err)
	}
	j, out, record := failedJob()
	for range 2 { // the PubAck of the first may be lost
		if err := k.store.Shelf("later.email").Put(t.Context(), j, out, record); err != nil {
			t.Fatal(err)
		}
	}
	s, err := k.js.Stream(t.Context(), "LATER")
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 1 || m.Subject != "later.email" || !bytes.Equal(m.Data, j.Payload) {
		t.Errorf("%d messages, the first %+v", n, m)
	}
	if m.Header.Get("Nats-Msg-Id") == "order-1" || m.Header.Get("Workerd-Orig-Nats-Msg-Id") != "order-1" || m.Header.Get("Workerd-Dlq-Reason") != "max_attempts" {
		t.Errorf("header %v", m.Header)
	}
	if len(k.letters()) > 0 {
		t.Error("there is a dead letter, too")
	}
}

func TestShelf_withoutAStreamIsAnError(t *testing.T) {
	k := newKit(t, nil)
	j, out, record := failedJob()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := k.store.Shelf("nobody.takes.this").Put(ctx, j, out, record); err == nil {
		t.Error("the job is lost and nobody was told")
	}
}
