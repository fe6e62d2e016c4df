package bulkhead

// waiter is one Acquire that found no free permit.
type waiter struct {
	claim      Claim
	arrived    uint64        // in a fair bulkhead: how many came before
	granted    chan struct{} // closed under the bulkhead's lock, once w is out of its queue
	prev, next *waiter       // of the queue
}

// line is all who wait with one priority. Guarded by the bulkhead's lock.
type line struct {
	length int
	queue  queue  // unless the bulkhead is fair
	keyed  *keyed // nil, unless it is
}

func (l *line) push(w *waiter) {
	l.length++
	if l.keyed != nil {
		l.keyed.push(w)
		return
	}
	l.queue.push(w)
}

// pop takes out whose turn it is. Somebody must wait.
func (l *line) pop(limit int) *waiter {
	w := l.queue.first
	if l.keyed != nil {
		w = l.keyed.serve(limit)
	}
	l.remove(w)
	return w
}

// remove takes out somebody who waits.
func (l *line) remove(w *waiter) {
	l.length--
	if l.keyed != nil {
		l.keyed.remove(w)
		return
	}
	l.queue.remove(w)
}

// queue of waiters in order of arrival. A list, because anybody may leave it
// from the middle.
type queue struct{ first, last *waiter }

func (q *queue) push(w *waiter) {
	w.prev = q.last
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
}

// remove takes out a waiter that is in the queue.
func (q *queue) remove(w *waiter) {
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
}
