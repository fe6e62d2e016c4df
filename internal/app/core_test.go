package app_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/app"
	"github.com/workerd/workerd/internal/config"
)

// startCore runs a workerd whose pool takes its jobs from core NATS.
func (k *kit) startCore(core string) (*daemon, *nats.Conn) {
	k.t.Helper()
	text := `
nats: {url: "` + k.broker.URL() + `"}
targets: {t: {http: {url: "` + k.down.URL + `"}, retry: {max_attempts: 1}}}
pools: {p: {target: t, core: ` + core + `, concurrency: 4, redelivery: {initial_backoff: 3s}}}
admin: {listen: "127.0.0.1:0"}`
	file, problems := config.Load("test.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if file == nil {
		k.t.Fatal(problems)
	}
	d := k.run(file)
	d.awaitReady()
	nc, _ := k.broker.Connect()
	await(k.t, "subscribed", func() bool {
		_, err := nc.Request("rpc.nobody", nil, time.Second)
		return errors.Is(err, nats.ErrNoResponders)
	})
	return d, nc
}

func TestCore_requestersHearWhatBecameOfTheirJob(t *testing.T) {
	k := newKit(t)
	d, nc := k.startCore(`{subject: "rpc.work"}`)
	for _, c := range []struct {
		status      int
		code, retry string
	}{
		{http.StatusOK, "", ""},
		{http.StatusInternalServerError, "503", "2 or 3"}, // it was tried, and may be again
		{http.StatusBadRequest, "500", ""},
	} {
		k.answer.Store(int64(c.status))
		m, err := nc.Request("rpc.work", []byte("x"), 15*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		code, retry := m.Header.Get("Nats-Service-Error-Code"), m.Header.Get("Retry-After")
		if code != c.code || (retry == "") != (c.retry == "") || !strings.Contains(c.retry, retry) {
			t.Errorf("status %d: replied %v, want code %q and Retry-After %s", c.status, m.Header, c.code, c.retry)
		}
	}
	await(t, "a dead letter", func() bool {
		s, err := k.js.Stream(t.Context(), "WORKERD_DLQ")
		return err == nil && s.CachedInfo().State.Msgs == 1
	})
	if _, text := d.get("/metrics"); !strings.Contains(text, `workerd_core_undone_total{pool="p",why="given_back"} 1`) {
		t.Error("the job that was given back is not counted")
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}

// TestCore_overloadIsRefusedAndADrainSendsThemElsewhere: of 100 requests at
// once, with a target that hangs, each gets a reply.
func TestCore_overloadIsRefusedAndADrainSendsThemElsewhere(t *testing.T) {
	k := newKit(t)
	k.answer.Store(0)
	d, nc := k.startCore(`{subject: "rpc.work", capacity: 10, max_wait: 1h}`)
	var mu sync.Mutex
	codes := map[string]int{}
	count := func(code string) int {
		mu.Lock()
		defer mu.Unlock()
		return codes[code]
	}
	inbox := nc.NewInbox()
	if _, err := nc.Subscribe(inbox, func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		codes[m.Header.Get("Nats-Service-Error-Code")]++
	}); err != nil {
		t.Fatal(err)
	}
	ask := func(n int) {
		for range n {
			if err := nc.PublishRequest("rpc.work", inbox, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask(4)
	await(t, "four calls", func() bool { return k.calls.Load() == 4 })
	ask(96)
	await(t, "86 refused", func() bool { return count("429") == 86 })
	d.drain()
	await(t, "the ten that wait are sent elsewhere", func() bool { return count("503") == 10 })
	d.hurry()
	if err := d.end(); !errors.Is(err, app.ErrIncomplete) {
		t.Errorf("ended with %v, want the four calls interrupted", err)
	}
	await(t, "the four that ran as well", func() bool { return count("503") == 14 })
}
