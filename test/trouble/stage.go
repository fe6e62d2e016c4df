package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/broker"
)

// stage is what a case plays on: a broker, a target, and a workerd.
type stage struct {
	dir, binary string
	broker      *broker.Server
	nc          *nats.Conn
	js          jetstream.JetStream
	target      *target
	server      *http.Server
	url         string
	replicas    []replica
	exited      sync.WaitGroup
}

// replica is a workerd, and where it can be asked.
type replica struct {
	cmd   *exec.Cmd
	admin string
}

// onStage sets everything up, runs a case and clears away.
func onStage(ctx context.Context, dir, binary string, play func(context.Context, *stage) ([]figure, error)) ([]figure, error) {
	sub, err := os.MkdirTemp(dir, "case-")
	if err != nil {
		return nil, err
	}
	s := &stage{dir: sub, binary: binary, target: newTarget()}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	return play(ctx, s)
}

func (s *stage) open(ctx context.Context) (err error) {
	if s.broker, err = broker.Start(broker.Config{Port: -1, StoreDir: filepath.Join(s.dir, "nats"), Lazy: true}); err != nil {
		return err
	}
	if s.nc, err = nats.Connect(s.broker.URL()); err != nil {
		return err
	}
	if s.js, err = jetstream.New(s.nc); err != nil {
		return err
	}
	if _, err = s.js.CreateStream(ctx, jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs.>"}, Retention: jetstream.WorkQueuePolicy}); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.url = "http://" + l.Addr().String()
	s.server = &http.Server{Handler: s.target, ReadHeaderTimeout: time.Minute}
	s.exited.Go(func() { _ = s.server.Serve(l) }) // ends when it is closed
	return nil
}

func (s *stage) close() {
	for _, r := range s.replicas {
		_ = r.cmd.Process.Kill() // gone already, if it fails
	}
	if s.server != nil {
		_ = s.server.Close()
	}
	s.exited.Wait()
	if s.nc != nil {
		s.nc.Close()
	}
	if s.broker != nil {
		s.broker.Shutdown()
	}
}

// start runs one workerd more, with the given targets and pools, and waits until
// it is ready.
func (s *stage) start(ctx context.Context, config string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r := replica{admin: l.Addr().String()}
	_ = l.Close() // the port is free now, and nobody else is likely to take it
	file := filepath.Join(s.dir, fmt.Sprintf("workerd-%d.yaml", len(s.replicas)))
	text := fmt.Sprintf("nats: {url: %q}\nadmin: {listen: %q}\nlog: {level: warn}\n%s", s.broker.URL(), r.admin, config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	r.cmd = exec.CommandContext(ctx, s.binary, "run", file)
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		return err
	}
	s.replicas = append(s.replicas, r)
	s.exited.Go(func() { _ = r.cmd.Wait() }) // how it ended is not the question
	return until(ctx, 20*time.Second, "workerd is ready", func() bool { st, err := r.status(ctx); return err == nil && st.Ready })
}

// status asks the first workerd.
func (s *stage) status(ctx context.Context) (admin.Status, error) { return s.replicas[0].status(ctx) }

// status asks a workerd.
func (r replica) status(ctx context.Context) (st admin.Status, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.admin+"/api/v1/status", http.NoBody)
	if err != nil {
		return st, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	return st, json.NewDecoder(resp.Body).Decode(&st)
}

// left counts the jobs in the stream.
func (s *stage) left(ctx context.Context) (int, error) {
	stream, err := s.js.Stream(ctx, "JOBS")
	if err != nil {
		return 0, err
	}
	return int(stream.CachedInfo().State.Msgs), nil
}

// dead counts the dead letters.
func (s *stage) dead(ctx context.Context) (int, error) {
	stream, err := s.js.Stream(ctx, "WORKERD_DLQ")
	if err != nil {
		return 0, err
	}
	return int(stream.CachedInfo().State.Msgs), nil
}

// drained waits until the stream is empty.
func (s *stage) drained(ctx context.Context, within time.Duration) error {
	return until(ctx, within, "the stream is empty", func() bool { n, err := s.left(ctx); return err == nil && n == 0 })
}

// cpu of the first workerd so far.
func (s *stage) cpu() time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.replicas[0].cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw)[strings.LastIndexByte(string(raw), ')')+1:])
	var user, system int64
	_, _ = fmt.Sscan(fields[11]+" "+fields[12], &user, &system) // utime and stime of proc(5)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// feed publishes at a steady rate until ctx ends, and returns when each job the
// stream has taken was published. Ids begin with the prefix.
func (s *stage) feed(ctx context.Context, subject, prefix string, perSecond int) map[string]time.Time {
	const ticks = 100 // per second
	sent := map[string]time.Time{}
	tick := time.NewTicker(time.Second / ticks)
	defer tick.Stop()
	var acks []jetstream.PubAckFuture
	for began, n := time.Now(), 0; ; {
		select {
		case <-ctx.Done():
			for _, a := range acks {
				select {
				case <-a.Ok():
				case err := <-a.Err():
					_ = err // the stream has not taken it
					delete(sent, a.Msg().Header.Get("Nats-Msg-Id"))
				}
			}
			return sent
		case <-tick.C:
		}
		for due := int(time.Since(began).Seconds() * float64(perSecond)); n < due; n++ {
			id := fmt.Sprintf("%s-%d", prefix, n)
			a, err := s.js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: []byte(id)}, jetstream.WithMsgID(id))
			if err == nil {
				sent[id] = time.Now()
				acks = append(acks, a)
			}
		}
	}
}

// until polls, as what happens in another process sends no event. Not too often:
// who is asked has to work for it.
func until(ctx context.Context, within time.Duration, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s", what, within)
		case <-poll.C:
		}
	}
	return nil
}

// pause waits, or ends with ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errBooks = errors.New("the books do not balance")

// reconcile compares what was published with what was done.
func (s *stage) reconcile(sent ...map[string]time.Time) error {
	s.target.mu.Lock()
	defer s.target.mu.Unlock()
	lost, twice := 0, 0
	for _, m := range sent {
		for id := range m {
			switch n := len(s.target.done[id]); {
			case n == 0:
				lost++
			case n > 1:
				twice++
			}
		}
	}
	if lost+twice > 0 {
		return fmt.Errorf("%w: %d jobs lost, %d done twice", errBooks, lost, twice)
	}
	return nil
}

// target is the downstream; what it does is set by the case.
type target struct {
	mu      sync.Mutex
	answer  func(r *http.Request) int // 0: no answer at all
	calls   int
	running int
	most    int
	done    map[string][]time.Time
}

func newTarget() *target { return &target{done: map[string][]time.Time{}} }

func (t *target) does(answer func(r *http.Request) int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answer = answer
}

func (t *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // only its end matters
	t.mu.Lock()
	t.calls++
	t.running++
	t.most = max(t.most, t.running)
	answer := t.answer
	t.mu.Unlock()
	status := answer(r)
	t.mu.Lock()
	t.running--
	if status == http.StatusOK {
		id := r.Header.Get("Workerd-Job-Id")
		t.done[id] = append(t.done[id], time.Now())
	}
	t.mu.Unlock()
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
}

func (t *target) counts() (calls, done int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls, len(t.done)
}

// takes answers 200 after a time.
func takes(d time.Duration) func(r *http.Request) int {
	return func(r *http.Request) int {
		if pause(r.Context(), d) != nil {
			return 0
		}
		return http.StatusOK
	}
}
