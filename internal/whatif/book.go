package whatif

import (
	"fmt"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
)

// maxEvents bounds a timeline.
const maxEvents = 2000

// Event is something worth telling of a run.
type Event struct {
	// At is the virtual time since the first job could be published.
	At time.Duration `json:"at_ns"`
	// Text is a sentence without its stop.
	Text string `json:"text"`
}

// book notes what happens. Any goroutine may use it.
type book struct {
	mu      sync.Mutex
	began   time.Time       // zero until jobs may be published
	wanted  int             // ends that are to come, of those published so far
	ended   map[string]bool // jobs by pool and key: one that is repeated ends once
	last    time.Time       // the last end
	changed chan struct{}
	numbers map[string]float64
	events  []Event
	told    map[string]bool   // kinds of events
	held    map[string]string // what holds a pool, by its name
}

func newBook() *book {
	return &book{changed: make(chan struct{}, 1), numbers: map[string]float64{}, told: map[string]bool{}, held: map[string]string{}, ended: map[string]bool{}}
}

func (b *book) begin(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.began, b.last = now, now
}

// note adds to the timeline.
func (b *book) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell(fmt.Sprintf(format, args...))
}

// tell is called with mu held.
func (b *book) tell(text string) {
	at := time.Duration(0)
	if !b.began.IsZero() {
		at = time.Since(b.began)
	}
	switch {
	case len(b.events) < maxEvents:
		b.events = append(b.events, Event{at, text})
	case len(b.events) == maxEvents:
		b.events = append(b.events, Event{at, "and more, which is not kept"})
	}
}

// published notes jobs that the stream has taken, by the ends they will come to.
func (b *book) published(ends int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wanted += ends
}

// report is what became of a delivery.
func (b *book) report(r pool.Report) {
	b.mu.Lock()
	defer b.mu.Unlock()
	action, reason := r.Outcome.Action.String(), string(r.Outcome.Reason)
	for _, name := range []string{action, "pool." + r.Pool + "." + action, action + ".reason." + reason} {
		b.numbers[name]++
	}
	if r.Outcome.Reason == job.Expired {
		b.numbers["expired"]++
	}
	b.tellReport(r)
	switch r.Outcome.Action {
	case job.Done, job.DeadLetter, job.Drop:
		b.ended[r.Pool+" "+r.Job.Key()] = true
		b.last = time.Now()
		select {
		case b.changed <- struct{}{}:
		default:
		}
	case job.Retry, job.Defer, job.Release, job.Park:
	}
}

// tellReport tells the first of a kind.
func (b *book) tellReport(r pool.Report) {
	action := r.Outcome.Action
	if action == job.Done || action == job.Release || action == job.Park {
		return
	}
	kind := fmt.Sprint(r.Pool, action, r.Outcome.Reason)
	if b.told[kind] {
		return
	}
	b.told[kind] = true
	text := fmt.Sprintf("pool %s: first %s (%s), job %s", r.Pool, outcomeText(action), r.Outcome.Reason, r.Job.ID)
	if r.Outcome.After > 0 {
		text += ", again after " + short(r.Outcome.After)
	}
	if r.Outcome.Err != nil {
		text += ": " + r.Outcome.Err.Error()
	}
	b.tell(text)
}

func outcomeText(a job.Action) string {
	switch a {
	case job.Retry:
		return "attempt that failed"
	case job.Defer:
		return "job given back uncharged"
	case job.DeadLetter:
		return "dead letter"
	case job.Drop:
		return "dropped job"
	case job.Done, job.Release, job.Park:
	}
	return a.String()
}

// breaker is a change of one.
func (b *book) breaker(target string, c breaker.Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch c.To {
	case breaker.Open:
		b.numbers["breaker."+target+".opened"]++
		b.tell(fmt.Sprintf("breaker %s opens for %s (%s)", target, short(c.Wait), c.Reason))
	case breaker.Closed:
		b.numbers["breaker."+target+".closed"]++
		b.tell(fmt.Sprintf("breaker %s closes (%s)", target, c.Reason))
	case breaker.HalfOpen, breaker.ForcedOpen, breaker.Disabled, breaker.MetricsOnly:
	}
}

// look compares the state of the pools with how it was the last time, some
// interval ago.
func (b *book) look(s admin.Status, interval time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range s.Pools {
		now := ""
		if p.State != admin.PoolRunning {
			now = string(p.State)
		}
		if p.State == admin.PoolHeld {
			now = p.HoldReason
			b.numbers["pool."+p.Name+".held"] += interval.Seconds()
		}
		was := b.held[p.Name]
		b.held[p.Name] = now
		switch {
		case now == was:
		case now == "":
			b.tell(fmt.Sprintf("pool %s runs", p.Name))
		case p.State == admin.PoolHeld:
			b.tell(fmt.Sprintf("pool %s is held: %s", p.Name, now))
		default:
			b.tell(fmt.Sprintf("pool %s is %s", p.Name, now))
		}
	}
}

// open is how many ends are still to come.
func (b *book) open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wanted - len(b.ended)
}

// short writes a duration as one would say it.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Minute:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(100 * time.Millisecond)
	default:
		d = d.Round(time.Millisecond)
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if len(s) > len(zero) && s[len(s)-len(zero):] == zero {
			s = s[:len(s)-2]
		}
	}
	return s
}
