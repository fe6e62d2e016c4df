package broker_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/broker"
)

func start(t *testing.T, dir string) *broker.Server {
	t.Helper()
	s, err := broker.Start(broker.Config{Port: -1, StoreDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func connect(t *testing.T, s *broker.Server) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestBroker_keepsItsStreamsOverARestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	js := connect(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "jobs.a", []byte("work")); err != nil {
		t.Fatal(err)
	}
	s.Shutdown()
	s = start(t, dir)
	defer s.Shutdown()
	stream, err := connect(t, s).Stream(t.Context(), "JOBS")
	if err != nil || stream.CachedInfo().State.Msgs != 1 {
		t.Errorf("after the restart: %v, %v", stream, err)
	}
}

func TestBroker_saysAtOnceWhatKeepsItFromStarting(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	running := start(t, dir)
	defer running.Shutdown()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	port := taken.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		name string
		cfg  broker.Config
		want []string
	}{
		{"no store", broker.Config{Port: -1}, []string{"a store directory is required"}},
		{"port taken", broker.Config{Port: port, StoreDir: t.TempDir()}, []string{taken.Addr().String(), "address already in use"}},
		{"store in use", broker.Config{Port: -1, StoreDir: dir}, []string{dir, "in use by another workerd"}},
		{"store is a file", broker.Config{Port: -1, StoreDir: file}, []string{file, "not a directory"}},
	} {
		s, err := broker.Start(c.cfg)
		if err == nil {
			s.Shutdown()
			t.Errorf("%s: it started", c.name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", c.name, err, want)
			}
		}
	}
}

func TestBroker_givesItsStoreBack(t *testing.T) {
	dir := t.TempDir()
	start(t, dir).Shutdown()
	start(t, dir).Shutdown()
}
