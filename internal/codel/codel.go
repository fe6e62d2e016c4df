// Package codel is a bounded queue for work that arrives uninvited and cannot
// be told to wait elsewhere. It keeps the delay of what is done short by giving
// up what has waited too long, and only while there is more than can be done.
//
//	Push ──► full? refused
//	   └──► waiting, by class ──Next──► the oldest of the highest class;
//	             │                      the newest while overloaded
//	             └─ overloaded and older than twice the target ──► expired
//
// It is overloaded when in a whole interval not once the oldest that waits was
// younger than the target: a queue that does not empty is no buffer any more.
// (CoDel, Nichols and Jacobson 2012, with the adaptive LIFO of Facebook's "Fail
// at Scale", 2015: under overload the newest is the one somebody still waits
// for.)
//
// Guarantees:
//  1. Never more than the capacity and its bytes wait.
//  2. Each item that was pushed comes out once: by Next, by expiry, or by Drain.
//  3. Nothing expires that waited for no more than twice the target, and nothing
//     at all while the queue empties now and then.
//  4. A higher class goes first.
//
// Time is a value, and the queue has no lock: it belongs to one goroutine.
package codel

import "time"

// Classes is the number of classes. Smaller is more important.
const Classes = 4

// Config of a queue. All fields are required.
type Config struct {
	// Capacity is how many items may wait, 1 or more.
	Capacity int
	// Bytes of the waiting items together. One that is larger than all of it
	// is refused.
	Bytes int64
	// Target is the wait that the queue should not stand above.
	Target time.Duration
	// Interval is how long it must stand above to be overloaded.
	Interval time.Duration
}

// Queue of items. Make it with New.
type Queue[T any] struct {
	cfg     Config
	classes [Classes]line[T]
	length  int
	bytes   int64

	overloaded bool
	ends       time.Time     // of the interval
	least      time.Duration // age of the oldest, at its least in this interval
}

type item[T any] struct {
	value T
	size  int64
	since time.Time
}

// New returns an empty queue.
func New[T any](cfg Config) *Queue[T] { return &Queue[T]{cfg: cfg} }

// Push adds an item of the given size in bytes, or refuses it if there is no room.
func (q *Queue[T]) Push(now time.Time, class int, size int64, value T) bool {
	if q.length >= q.cfg.Capacity || q.bytes+size > q.cfg.Bytes {
		return false
	}
	q.classes[class].push(item[T]{value, size, now})
	q.length++
	q.bytes += size
	return true
}

// Next returns the item whose turn it is, and those that have waited too long.
func (q *Queue[T]) Next(now time.Time) (value T, ok bool, expired []T) {
	expired = q.Expire(now)
	for class := range q.classes {
		if c := &q.classes[class]; c.length() > 0 {
			return q.out(c.pop(q.overloaded)), true, expired
		}
	}
	return value, false, expired
}

// Expire takes out what has waited too long, if the queue is overloaded. It is
// for times in which nobody asks for the next.
func (q *Queue[T]) Expire(now time.Time) (expired []T) {
	q.note(now)
	if !q.overloaded {
		return nil
	}
	for class := range q.classes {
		c := &q.classes[class]
		for c.length() > 0 && now.Sub(c.oldest().since) > 2*q.cfg.Target {
			expired = append(expired, q.out(c.pop(false)))
		}
	}
	return expired
}

// Drain takes everything out, the oldest of the highest class first.
func (q *Queue[T]) Drain() (all []T) {
	for class := range q.classes {
		for c := &q.classes[class]; c.length() > 0; {
			all = append(all, q.out(c.pop(false)))
		}
	}
	return all
}

// note measures how long the queue stands.
func (q *Queue[T]) note(now time.Time) {
	age := q.age(now)
	if now.Before(q.ends) {
		q.least = min(q.least, age)
		return
	}
	// The first look after an idle time says nothing of an interval that nobody
	// watched.
	watched := !q.ends.IsZero() && now.Sub(q.ends) < q.cfg.Interval
	q.overloaded = watched && min(q.least, age) > q.cfg.Target
	q.ends, q.least = now.Add(q.cfg.Interval), age
}

// age of the oldest item, 0 if there is none.
func (q *Queue[T]) age(now time.Time) (age time.Duration) {
	for class := range q.classes {
		if c := &q.classes[class]; c.length() > 0 {
			age = max(age, now.Sub(c.oldest().since))
		}
	}
	return age
}

func (q *Queue[T]) out(i item[T]) T {
	q.length--
	q.bytes -= i.size
	return i.value
}

// Stats is the state of a queue.
type Stats struct {
	// Waiting items, and Bytes of them together.
	Waiting int
	Bytes   int64
	// Overloaded: the newest goes first and the oldest expire.
	Overloaded bool
}

// Stats returns the state.
func (q *Queue[T]) Stats() Stats { return Stats{q.length, q.bytes, q.overloaded} }

// line is the items of one class, in order of arrival.
type line[T any] struct {
	items []item[T]
	head  int // those before have gone
}

func (l *line[T]) length() int     { return len(l.items) - l.head }
func (l *line[T]) oldest() item[T] { return l.items[l.head] }
func (l *line[T]) push(i item[T])  { l.items = append(l.items, i) }
func (l *line[T]) pop(newest bool) (i item[T]) {
	if newest {
		last := len(l.items) - 1
		i, l.items[last] = l.items[last], i
		l.items = l.items[:last]
	} else {
		i, l.items[l.head] = l.items[l.head], i
		l.head++
	}
	if l.head == len(l.items) || l.head > 64 && l.head > len(l.items)/2 {
		kept := copy(l.items, l.items[l.head:])
		clear(l.items[kept:])
		l.items, l.head = l.items[:kept], 0
	}
	return i
}
