package queue

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// recentDone is how many finished jobs a source remembers, about 1 MiB.
const recentDone = 1 << 14

// identity of a job for good: a stream that was deleted and made again starts
// its sequences anew, but not at the same nanosecond.
type identity struct {
	sequence  uint64
	published int64
}

func identify(d *delivery) identity {
	return identity{d.job.Sequence, d.job.Enqueued.UnixNano()}
}

// recent knows the jobs in hand and the last ones that were finished. A broker
// that lost its notes in a crash delivers both again; neither must run twice.
// All methods may be called from any goroutine.
type recent struct {
	mu   sync.Mutex
	held map[identity]*delivery
	done map[identity]struct{}
	ring []identity // the keys of done in the order they came
	next int
}

func newRecent() *recent {
	return &recent{held: make(map[identity]*delivery), done: make(map[identity]struct{})}
}

// verdict on a delivery that has just arrived.
type verdict uint8

const (
	fresh    verdict = iota // not known here: work on it
	inHand                  // being worked on here: the first delivery goes on
	finished                // finished here: tell the broker again
)

// arrive notes a delivery. For inHand it returns the delivery that is held.
func (r *recent) arrive(d *delivery) (verdict, *delivery) {
	id := identify(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	if first, ok := r.held[id]; ok {
		// A lost lease means that somebody else may be running the job: the
		// first delivery has been given up, but not the job.
		if time.Now().Before(first.LeaseUntil()) {
			return inHand, first
		}
	}
	if _, ok := r.done[id]; ok {
		return finished, nil
	}
	r.held[id] = d
	return fresh, nil
}

// extendAll gives a sign of life for every job in hand: after a time without
// connection the leases may be short.
func (r *recent) extendAll() {
	r.mu.Lock()
	held := slices.Collect(maps.Values(r.held))
	r.mu.Unlock()
	for _, d := range held {
		d.Extend()
	}
}

// disown notes that what came before a time is of a consumer that is gone. What
// of it the new one brings here is ours again. It returns how many jobs that were.
func (r *recent) disown(before time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.held {
		if d.received.Before(before) {
			d.orphan.Store(true)
			n++
		}
	}
	return n
}

// finish notes that a delivery is over and, if forGood, that the job is too.
func (r *recent) finish(d *delivery, forGood bool) {
	id := identify(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[id] == d {
		delete(r.held, id)
	}
	if !forGood {
		return
	}
	if len(r.ring) < recentDone {
		r.ring = append(r.ring, id)
	} else {
		delete(r.done, r.ring[r.next])
		r.ring[r.next] = id
		r.next = (r.next + 1) % recentDone
	}
	r.done[id] = struct{}{}
}
