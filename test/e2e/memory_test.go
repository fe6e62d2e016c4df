package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// memoryBase is the part of the bound in docs/reliability.md ("Memory") that
// belongs to no job.
const memoryBase = 64 << 20

// memoryBound is that bound for one pool of one priority.
func memoryBound(slots, maxMessage int64) int64 { return memoryBase + 2*slots*maxMessage }

// plainWorkerd builds workerd without the race detector, which has memory
// needs of its own, and returns its path.
func plainWorkerd(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "workerd")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/workerd").CombinedOutput(); err != nil {
		t.Fatalf("build workerd: %v\n%s", err, out)
	}
	return path
}

// peak is the largest resident size the process has had, from the kernel.
func (w *worker) peak() int64 {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		w.t.Skipf("SKIPPED: no /proc to read the memory of a process from: %v", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				w.t.Fatal(err)
			}
			return kib << 10
		}
	}
	w.t.Fatal("the kernel does not say VmHWM")
	return 0
}

// fill publishes n small jobs, as many at once as the client allows.
func (c *client) fill(subject string, n int) {
	c.t.Helper()
	js, err := jetstream.New(c.nc, jetstream.WithPublishAsyncMaxPending(4096), jetstream.WithPublishAsyncErrHandler(
		func(_ jetstream.JetStream, _ *nats.Msg, err error) { c.t.Errorf("publish: %v", err) }))
	if err != nil {
		c.t.Fatal(err)
	}
	payload := bytes.Repeat([]byte("x"), 256)
	for range n {
		if _, err := js.PublishAsync(subject, payload, jetstream.WithStallWait(time.Minute)); err != nil {
			c.t.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(5 * time.Minute):
		c.t.Fatal("publishing takes too long")
	}
}

// TestMemory_aBacklogDoesNotGrowIt: what lies in the stream is not in memory.
// The full size (WORKERD_E2E_MEMORY=1, `make memory-test`) is a million jobs.
func TestMemory_aBacklogDoesNotGrowIt(t *testing.T) {
	backlog, run := 50_000, 10_000
	if os.Getenv("WORKERD_E2E_MEMORY") != "" {
		backlog, run = 1_000_000, 200_000
	}
	const slots, maxMessage = 64, 64 << 10
	n := startNATS(t)
	c := connect(t, n)
	c.fill("jobs.mail.x", backlog)
	d := startDownstream(t, ok)
	w := spawnBinary(t, plainWorkerd(t), configure(n, 10*time.Second, lane{
		name: "mail", url: d.url, pool: fmt.Sprintf("concurrency: %d, max_message: 64KiB", slots),
	}))
	w.awaitReady()
	await(t, 5*time.Minute, "enough jobs have run", func() bool { return d.books().total >= run })
	peak, bound := w.peak(), memoryBound(slots, maxMessage)
	t.Logf("backlog of %d jobs, %d run: peak %.1f MiB, bound %.1f MiB", backlog, d.books().total, float64(peak)/(1<<20), float64(bound)/(1<<20))
	if peak > bound {
		t.Errorf("peak is %d bytes, bound %d", peak, bound)
	}
}

// memoryGroup makes a cgroup (v1) with a memory limit, and returns how to start
// a command in it and how often the limit killed somebody.
func memoryGroup(t *testing.T, limit int64) (dir string, kills func() int) {
	t.Helper()
	dir = fmt.Sprintf("/sys/fs/cgroup/memory/workerd-e2e-%d", os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("SKIPPED: needs root and cgroup v1 to limit the memory of a process: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("remove cgroup: %v", err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), fmt.Append(nil, limit), 0o600); err != nil {
		t.Skipf("SKIPPED: cannot limit the memory of a cgroup: %v", err)
	}
	return dir, func() int {
		text, err := os.ReadFile(filepath.Join(dir, "memory.oom_control"))
		if err != nil {
			t.Fatal(err)
		}
		kills := 0
		if _, count, ok := strings.Cut(string(text), "oom_kill "); ok {
			_, _ = fmt.Sscan(count, &kills)
		}
		return kills
	}
}

// hashes keeps what arrived downstream, by checksum.
type hashes struct {
	mu   sync.Mutex
	seen map[[32]byte]int
}

func (h *hashes) add(r *http.Request) bool {
	sum := sha256.New()
	if _, err := io.Copy(sum, r.Body); err != nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[[32]byte(sum.Sum(nil))]++
	return true
}

// bigPayload is size bytes, different for each i.
func bigPayload(i, size int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%015d\n", i), size/16)
}

// TestMemory_eightMiBPayloadsWithin128MiB: the largest jobs there are, as many
// at once as the bound allows, a fifth of them dead letters, in a cgroup that
// kills what goes beyond. Nothing is killed and nothing is lost or changed.
func TestMemory_eightMiBPayloadsWithin128MiB(t *testing.T) {
	const limit, slots, size, jobs = 128 << 20, 4, 8<<20 - 64<<10, 40
	dir, kills := memoryGroup(t, limit)
	n := startNATS(t)
	c := connect(t, n)
	want := map[[32]byte]bool{}
	for i := range jobs {
		payload := bigPayload(i, size)
		want[sha256.Sum256(payload)] = true
		if _, err := c.js.Publish(t.Context(), fmt.Sprintf("jobs.mail.%d", i), payload); err != nil {
			t.Fatal(err)
		}
	}
	got := hashes{seen: map[[32]byte]int{}}
	d := startDownstream(t, ok)
	d.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got.add(r) && strings.HasSuffix(r.Header.Get("Workerd-Subject"), "7") || strings.HasSuffix(r.Header.Get("Workerd-Subject"), "3") {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	})
	w := spawnBinary(t, plainWorkerd(t), configure(n, 10*time.Second, lane{
		name: "mail", url: d.url, pool: fmt.Sprintf("concurrency: %d, %s", slots, valveOff),
	}), "sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, dir)
	w.awaitReady()
	c.awaitEmpty(2 * time.Minute)
	t.Logf("%d jobs of %d bytes, %d at once: peak %.1f MiB of %d MiB, %d killed", jobs, size, slots, float64(w.peak())/(1<<20), limit>>20, kills())
	if k := kills(); k > 0 {
		t.Errorf("the kernel killed %d processes for memory", k)
	}
	for sum := range want {
		if got.seen[sum] != 1 {
			t.Errorf("a payload arrived %d times, want once", got.seen[sum])
		}
	}
	if len(got.seen) != jobs {
		t.Errorf("%d different payloads arrived, want %d", len(got.seen), jobs)
	}
	if dead := c.state("WORKERD_DLQ"); dead.Msgs != jobs/5 {
		t.Errorf("%d dead letters, want %d", dead.Msgs, jobs/5)
	}
	_ = w.cmd.Process.Kill()
	<-w.done
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		t.Error("the cgroup is gone: the limit held for nobody")
	}
}
