package bulkhead

// waiter is one Acquire that found no free permit.
type waiter struct {
	granted    chan struct{} // closed under the bulkhead's lock, once w is out of its queue
	prev, next *waiter       // of the queue
}

// queue of waiters in order of arrival. A list, because anybody may leave it
// from the middle. Guarded by the bulkhead's lock.
type queue struct {
	first, last *waiter
	length      int
}

func (q *queue) push(w *waiter) {
	w.prev = q.last
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
	q.length++
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
	q.length--
}
