package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// The processes that the bench starts are itself in another role.
const (
	roleBroker     = "broker"
	roleDownstream = "downstream"
	roleLoop       = "loop"
)

// idHeader names a job to the downstream, from either side.
const idHeader = "Workerd-Job-Id"

// books are what the downstream has seen since it was reset.
type books struct {
	Done, Twice int
	// Took from the first call to the last answer.
	Took time.Duration
}

// downstream answers at once, after a time (/work?ms=50) or never (/hang).
type downstream struct {
	mu          sync.Mutex
	done        map[string]int
	first, last time.Time
	twice       int
	want        int
	enough      chan struct{} // closed when want jobs are done
}

func serveDownstream(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d := &downstream{}
	d.expect(0)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /work", d.work)
	mux.HandleFunc("POST /hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("POST /expect/{jobs}", func(_ http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.PathValue("jobs")) // ours alone
		d.expect(n)
	})
	mux.HandleFunc("GET /books", d.books)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		_ = server.Close() // whoever is still there is ended too
	})
	fmt.Println(l.Addr())
	err = server.Serve(l)
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (d *downstream) expect(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done, d.first, d.last, d.twice = make(map[string]int, n), time.Time{}, time.Time{}, 0
	d.want, d.enough = n, make(chan struct{})
}

func (d *downstream) work(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	_, _ = io.Copy(io.Discard, r.Body) // a broken request is not counted below
	if ms, _ := strconv.Atoi(r.URL.Query().Get("ms")); ms > 0 {
		timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.first.IsZero() {
		d.first = began
	}
	d.last = time.Now()
	id := r.Header.Get(idHeader)
	d.done[id]++
	if d.done[id] > 1 {
		d.twice++
	}
	if len(d.done) == d.want && d.done[id] == 1 {
		close(d.enough)
	}
	w.WriteHeader(http.StatusOK)
}

// books answers when all jobs are done, or with what there is after a while.
func (d *downstream) books(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	enough := d.enough
	d.mu.Unlock()
	select {
	case <-enough:
	case <-r.Context().Done():
		return
	case <-time.After(time.Minute):
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = json.NewEncoder(w).Encode(books{Done: len(d.done), Twice: d.twice, Took: d.last.Sub(d.first)}) // the bench notices
}
