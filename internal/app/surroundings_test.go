package app_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/workerd/workerd/internal/app"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/natstest"
)

// freePort is one that nobody listens on at the moment.
func freePort(t *testing.T) int {
	t.Helper()
	port, err := natstest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// embedded is a configuration with a broker of its own.
func (k *kit) embedded(port int, dir string) *config.File {
	k.t.Helper()
	cfg := k.load(described)
	cfg.NATS.Embedded, cfg.NATS.URL, cfg.NATS.StoreDir = true, fmt.Sprintf("nats://127.0.0.1:%d", port), dir
	return cfg
}

// TestApp_withABrokerOfItsOwn is not run beside others: they might get its port.
func TestApp_withABrokerOfItsOwn(t *testing.T) {
	k, port, dir := newKit(t), freePort(t), t.TempDir()
	d := k.run(k.embedded(port, dir))
	if want := fmt.Sprintf("nats://127.0.0.1:%d", port); d.BrokerURL() != want {
		t.Errorf("the broker is at %s, want %s", d.BrokerURL(), want)
	}
	d.awaitReady()
	if err := d.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if strings.Contains(d.log.String(), "complains") {
		t.Errorf("the broker complains though nothing is wrong:\n%s", &d.log)
	}
	again := k.run(k.embedded(port, dir)) // port and store are free again
	again.awaitReady()
}

func TestNew_pullsNothingWhenAnAddressIsTaken(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.publishTo("JOBS", 1)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, cfg := range map[string]*config.File{
		"admin":  k.load(fmt.Sprintf("admin: {listen: %q}", taken.Addr())),
		"broker": k.embedded(taken.Addr().(*net.TCPAddr).Port, filepath.Join(t.TempDir(), "store")),
	} {
		d := daemon{t: t}
		_, err := app.New(cfg, app.Options{Log: d.logger()})
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), name+": ") || !strings.Contains(err.Error(), taken.Addr().String()) {
			t.Errorf("%s: got %v, want what and where", name, err)
		}
	}
	s, err := k.js.Stream(t.Context(), "JOBS")
	if err != nil {
		t.Fatal(err)
	}
	for c := range s.ConsumerNames(t.Context()).Name() {
		t.Errorf("consumer %s was made", c)
	}
	if k.calls.Load() != 0 {
		t.Error("a job was run")
	}
}

func TestApp_onAUnixSocket(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	socket := filepath.Join(t.TempDir(), "w.sock")
	more := described + fmt.Sprintf("\nadmin: {listen: %q}", "unix:"+socket)
	d := k.start(more)
	d.awaitReady()
	if c, err := net.Dial("unix", socket); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if _, err := app.New(k.load(more), app.Options{Log: d.logger()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the second one on the same socket: %v", err)
	}
	if err := d.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestNew_removesNoFileThatIsNoSocket(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := daemon{t: t}
	_, err := app.New(k.load(fmt.Sprintf("admin: {listen: %q}", "unix:"+file)), app.Options{Log: d.logger()})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "data" {
		t.Errorf("the file: %q, %v", text, err)
	}
}

// TestApp_whatCannotBeSetUpIsSaidOnce, and tried again until it can.
func TestApp_whatCannotBeSetUpIsSaidOnce(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.broker.Stream(k.js, "OTHER", "jobs.x") // of which JOBS wants to have jobs.>
	d := k.start(described)
	const problem = "cannot set up a stream, trying again"
	await(t, "the problem is logged", func() bool { return strings.Contains(d.log.String(), problem) })
	if err := k.js.DeleteStream(t.Context(), "OTHER"); err != nil {
		t.Fatal(err)
	}
	d.awaitReady()
	if n := strings.Count(d.log.String(), problem); n != 1 {
		t.Errorf("said %d times", n)
	}
}
