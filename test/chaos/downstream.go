package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// downstream is a real HTTP server that keeps the books of what it was asked.
type downstream struct {
	seed  uint64
	size  int // of all payloads; 0: by job
	clock func() time.Duration
	addr  string
	srv   *http.Server
	wg    sync.WaitGroup

	mu       sync.Mutex
	calls    []call
	times    map[string]int // calls by id
	inFlight map[string]int // by replica
}

func startDownstream(seed uint64, size int, clock func() time.Duration) (*downstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &downstream{
		seed: seed, size: size, clock: clock, addr: l.Addr().String(),
		times: map[string]int{}, inFlight: map[string]int{},
	}
	d.srv = &http.Server{Handler: d, ReadHeaderTimeout: time.Minute}
	d.wg.Go(func() { _ = d.srv.Serve(l) })
	return d, nil
}

func (d *downstream) close() {
	_ = d.srv.Close()
	d.wg.Wait()
}

func (d *downstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, replica := r.Header.Get("Workerd-Job-Id"), r.Header.Get("X-Replica")
	n, times := d.begin(call{ID: id, Replica: replica, Began: d.clock(), Attempt: r.Header.Get("Workerd-Attempt")})
	body, err := io.ReadAll(r.Body)
	altered := err == nil && !bytes.Equal(body, payload(d.seed, id, d.size)) || forged(r)
	status := 0
	if err == nil {
		status = d.work(r, id, times)
	}
	if status == 0 { // half an answer, or none: the connection ends
		d.end(n, 0, altered)
		if modeOf(d.seed, id) == modeReset {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "half an answer")
			_ = http.NewResponseController(w).Flush()
		}
		panic(http.ErrAbortHandler)
	}
	d.end(n, status, altered) // before the answer: whoever has it may go on
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, strings.Repeat(".", 100))
}

// work returns the status to answer, 0 to break off.
func (d *downstream) work(r *http.Request, id string, times int) int {
	m := modeOf(d.seed, id)
	if m == modeHangs && times == 1 {
		return wait(r, time.Minute, 0)
	}
	status := wait(r, takes(d.seed, id), http.StatusOK)
	switch {
	case status == 0:
		return 0
	case m == modeRefused:
		return http.StatusUnprocessableEntity
	case times > 1:
		return status
	case m == modeFails:
		return http.StatusInternalServerError
	case m == modeThrottled:
		return http.StatusTooManyRequests
	case m == modeReset:
		return 0
	}
	return status
}

// wait returns status after d, 0 if the caller gives up before.
func wait(r *http.Request, d time.Duration, status int) int {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		if r.Context().Err() != nil {
			return 0
		}
		return status
	case <-r.Context().Done():
		return 0
	}
}

func (d *downstream) begin(c call) (n, times int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, c)
	d.times[c.ID]++
	d.inFlight[c.Replica]++
	return len(d.calls) - 1, d.times[c.ID]
}

func (d *downstream) end(n, status int, altered bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &d.calls[n]
	c.Ended, c.Status, c.Done, c.Altered = d.clock(), status, status >= 200 && status < 300, altered
	d.inFlight[c.Replica]--
}

// busy is how many calls of a replica are in flight.
func (d *downstream) busy(replica string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inFlight[replica]
}

func (d *downstream) book() []call {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}
