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

// patience with a side, or a broker, that gets nowhere.
const patience = time.Minute

// books are what the downstream has seen since it was told what to expect.
type books struct {
	Done, Twice int
	// Wrong calls had no whole body.
	Wrong int
	// Hanging calls at this moment.
	Hanging int
	// First call received and Last answer given; between them when a tenth and
	// nine tenths of the jobs were done.
	First, Tenth, Ninetieth, Last time.Time
	// Pause is the longest time between two answers.
	Pause time.Duration
	// Busy is the sum of the times from call to answer.
	Busy time.Duration
}

// downstream answers at once, after a time (/work?ms=50) or never (/hang).
type downstream struct {
	mu     sync.Mutex
	books  books
	seen   map[string]struct{}
	want   int
	enough chan struct{} // closed when want jobs are done
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
	mux.HandleFunc("POST /hang", d.hang)
	mux.HandleFunc("POST /done", d.done)
	mux.HandleFunc("POST /books", func(w http.ResponseWriter, _ *http.Request) { d.show(w) })
	mux.HandleFunc("POST /expect/{jobs}", func(_ http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.PathValue("jobs")) // ours alone
		d.expect(n)
	})
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

// expect begins new books. Calls that hang are not forgotten.
func (d *downstream) expect(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.books = books{Hanging: d.books.Hanging}
	d.seen, d.want, d.enough = make(map[string]struct{}, n), n, make(chan struct{})
}

func (d *downstream) work(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	size, _ := io.Copy(io.Discard, r.Body) // the size tells
	if ms, _ := strconv.Atoi(r.URL.Query().Get("ms")); ms > 0 {
		timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	d.enter(r.Header.Get(idHeader), size, began)
	w.WriteHeader(http.StatusOK)
}

// enter writes an answered call into the books.
func (d *downstream) enter(id string, size int64, began time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, now := &d.books, time.Now()
	if size != payload {
		b.Wrong++
	}
	if _, ok := d.seen[id]; ok {
		b.Twice++
		return
	}
	d.seen[id] = struct{}{}
	b.Done++
	b.Busy += now.Sub(began)
	if b.Done > 1 {
		b.Pause = max(b.Pause, now.Sub(b.Last))
	}
	b.Last = now
	if b.First.IsZero() || began.Before(b.First) {
		b.First = began
	}
	if b.Done == d.want/10 {
		b.Tenth = now
	}
	if b.Done == d.want*9/10 {
		b.Ninetieth = now
	}
	if b.Done == d.want {
		close(d.enough)
	}
}

func (d *downstream) hang(_ http.ResponseWriter, r *http.Request) {
	d.countHanging(+1)
	defer d.countHanging(-1)
	// Only once the body was read does the server notice a caller that leaves.
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func (d *downstream) countHanging(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.books.Hanging += n
}

// done shows the books when all jobs are done, or what there is after a while.
func (d *downstream) done(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	enough := d.enough
	d.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-enough:
	case <-r.Context().Done():
		return
	case <-timer.C:
	}
	d.show(w)
}

func (d *downstream) show(w http.ResponseWriter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = json.NewEncoder(w).Encode(d.books) // the bench notices
}
