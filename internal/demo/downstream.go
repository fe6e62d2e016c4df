// Package demo is what `workerd dev` works on when it is given nothing: a
// downstream that can be told how to behave, and a modest load of jobs.
//
// The downstream is a real HTTP server. Each first path element is a service
// of its own with its own behaviour, so one can fail while another is well:
//
//	curl -X POST 'http://127.0.0.1:8423/script/mail?mode=down&for=20s'
//	curl -X POST 'http://127.0.0.1:8423/script/pdf?mode=hang&for=20s'
//	curl -X POST 'http://127.0.0.1:8423/script/mail?mode=slow&latency=2s'
//	curl -X POST 'http://127.0.0.1:8423/script/mail?mode=ok&fail=0.1'
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Mode is how a service answers.
type Mode string

// The modes.
const (
	OK        Mode = "ok"        // 200 after the latency; a share of fail answers 500
	Down      Mode = "down"      // 503 at once
	Hang      Mode = "hang"      // no answer until the caller gives up
	Slow      Mode = "slow"      // 200 after the latency
	Throttled Mode = "throttled" // 429 with Retry-After
	Reject    Mode = "reject"    // 422, the job's fault
)

// Behaviour of one service.
type Behaviour struct {
	Mode    Mode
	Latency time.Duration
	Fail    float64   // share of calls that answer 500 in mode ok, 0 to 1
	Until   time.Time // when it is back to normal; zero: never by itself
}

// Downstream is the scriptable HTTP server.
type Downstream struct {
	mu       sync.Mutex
	services map[string]Behaviour
	calls    map[string]*Calls
}

// Calls a service has seen.
type Calls struct {
	Total, Failed     int64
	InFlight, MaxSeen int64
}

// normal is how a service behaves that nobody scripted.
func normal() Behaviour { return Behaviour{Mode: OK, Latency: 150 * time.Millisecond} }

// NewDownstream returns a downstream whose services are all well.
func NewDownstream() *Downstream {
	return &Downstream{services: make(map[string]Behaviour), calls: make(map[string]*Calls)}
}

// Script sets the behaviour of a service.
func (d *Downstream) Script(service string, b Behaviour) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.services[service] = b
}

// Calls returns a copy of what a service has seen.
func (d *Downstream) Calls(service string) Calls {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.calls[service]; c != nil {
		return *c
	}
	return Calls{}
}

// Serve answers on l until ctx ends. The error is that of a listener that broke.
func (d *Downstream) Serve(ctx context.Context, l net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /script/{service}", d.script)
	mux.HandleFunc("POST /{service}", d.work)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		_ = server.Close() // its listener is all there is to lose
	})
	err := server.Serve(l)
	stop()
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("demo downstream: %w", err)
}

func (d *Downstream) behaviour(service string, now time.Time) Behaviour {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.services[service]
	if !ok || !b.Until.IsZero() && now.After(b.Until) {
		return normal()
	}
	return b
}

func (d *Downstream) enter(service string) *Calls {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.calls[service]
	if c == nil {
		c = &Calls{}
		d.calls[service] = c
	}
	c.Total++
	c.InFlight++
	c.MaxSeen = max(c.MaxSeen, c.InFlight)
	return c
}

func (d *Downstream) leave(c *Calls, status int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.InFlight--
	if status >= 400 {
		c.Failed++
	}
}

func (d *Downstream) work(w http.ResponseWriter, r *http.Request) {
	service := r.PathValue("service")
	c := d.enter(service)
	status := http.StatusOK
	defer func() { d.leave(c, status) }()
	_, _ = io.Copy(io.Discard, r.Body)
	b := d.behaviour(service, time.Now())
	status = answer(r.Context(), w, b)
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "%s: %s\n", service, http.StatusText(status))
}

// answer waits as the behaviour says and returns the status.
func answer(ctx context.Context, w http.ResponseWriter, b Behaviour) int {
	switch b.Mode {
	case Down:
		return http.StatusServiceUnavailable
	case Reject:
		return http.StatusUnprocessableEntity
	case Throttled:
		w.Header().Set("Retry-After", "2")
		return http.StatusTooManyRequests
	case Hang:
		<-ctx.Done()
		return http.StatusServiceUnavailable
	case OK, Slow:
	}
	timer := time.NewTimer(b.Latency)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return http.StatusServiceUnavailable
	case <-timer.C:
	}
	if rand.Float64() < b.Fail {
		return http.StatusInternalServerError
	}
	return http.StatusOK
}

func (d *Downstream) script(w http.ResponseWriter, r *http.Request) {
	b, err := parse(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	service := r.PathValue("service")
	d.Script(service, b)
	until := "until told otherwise"
	if !b.Until.IsZero() {
		until = "until " + b.Until.Format(time.TimeOnly)
	}
	_, _ = fmt.Fprintf(w, "%s is %s %s\n", service, b.Mode, until)
}

func parse(r *http.Request) (Behaviour, error) {
	b, q := normal(), r.URL.Query()
	switch m := Mode(q.Get("mode")); m {
	case OK, Down, Hang, Slow, Throttled, Reject:
		b.Mode = m
	default:
		return b, fmt.Errorf("mode %q is not known: use ok, down, hang, slow, throttled or reject", m)
	}
	if b.Mode == Slow {
		b.Latency = time.Second
	}
	var err error
	if v := q.Get("latency"); v != "" {
		if b.Latency, err = time.ParseDuration(v); err != nil || b.Latency < 0 {
			return b, fmt.Errorf("latency %q is not a duration like 200ms", v)
		}
	}
	if v := q.Get("fail"); v != "" {
		if b.Fail, err = strconv.ParseFloat(v, 64); err != nil || !(b.Fail >= 0 && b.Fail <= 1) { // NaN is neither
			return b, fmt.Errorf("fail %q is not a share from 0 to 1", v)
		}
	}
	if v := q.Get("for"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			return b, fmt.Errorf("for %q is not a duration like 20s", v)
		}
		b.Until = time.Now().Add(d)
	}
	return b, nil
}
