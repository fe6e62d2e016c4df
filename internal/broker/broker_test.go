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

// TestBroker_keepsWhatItHasOverARestart: jobs that are not done, and nothing
// of those that are.
func TestBroker_keepsWhatItHasOverARestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	js := connect(t, s)
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs.>"}, Retention: jetstream.WorkQueuePolicy})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"one", "two", "three"} {
		if _, err := js.Publish(t.Context(), "jobs.a", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	work, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "work", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := work.Next(); err != nil || m.DoubleAck(t.Context()) != nil {
		t.Fatal("the first job is not done", err)
	}
	s.Shutdown()
	s = start(t, dir)
	defer s.Shutdown()
	if stream, err = connect(t, s).Stream(t.Context(), "JOBS"); err != nil || stream.CachedInfo().State.Msgs != 2 {
		t.Fatalf("after the restart: %v, %v", stream, err)
	}
	if work, err = stream.Consumer(t.Context(), "work"); err != nil {
		t.Fatal(err)
	}
	if m, err := work.Next(); err != nil || string(m.Data()) != "two" {
		t.Errorf("the next job is %v, %v, want two", m, err)
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
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, "jetstream"), nil, 0o600); err != nil {
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
		{"store cannot be made", broker.Config{Port: -1, StoreDir: "/proc/workerd"}, []string{"store directory", "/proc"}},
		{"streams are no directory", broker.Config{Port: -1, StoreDir: damaged}, []string{damaged, "Can't start JetStream"}},
		{"no such address here", broker.Config{Host: "192.0.2.1", Port: 4222, StoreDir: t.TempDir()}, []string{"192.0.2.1:4222", "cannot assign requested address"}},
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

// TestBroker_tellsWhatIsWrongWithItsStreams: a broker that has lost some of
// them and says nothing is worse than none.
func TestBroker_tellsWhatIsWrongWithItsStreams(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	if _, err := connect(t, s).CreateStream(t.Context(), jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs.>"}}); err != nil {
		t.Fatal(err)
	}
	s.Shutdown()
	if err := os.WriteFile(filepath.Join(dir, "jetstream", "$G", "streams", "JOBS", "meta.inf"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 100)
	s, err := broker.Start(broker.Config{Port: -1, StoreDir: dir, Complain: func(text string) { told <- text }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	for {
		select {
		case text := <-told:
			if strings.Contains(text, "JOBS") {
				return
			}
		default:
			t.Fatal("nobody was told of the stream that cannot be read")
		}
	}
}
