package codel

import "time"

// node is an item that waits. It stands in two lines.
type node[T any] struct {
	value T
	size  int64
	since time.Time
	rank  Rank
	by    [2]link[T]
}

// The lines a node stands in.
const (
	byAge = iota
	byRank
)

// link to the neighbours in one of the lines.
type link[T any] struct{ before, after *node[T] }

// line of items in order of arrival.
type line[T any] struct{ first, last *node[T] }

func (l *line[T]) push(n *node[T], by int) {
	n.by[by].before = l.last
	if l.last == nil {
		l.first = n
	} else {
		l.last.by[by].after = n
	}
	l.last = n
}

func (l *line[T]) remove(n *node[T], by int) {
	before, after := n.by[by].before, n.by[by].after
	if before == nil {
		l.first = after
	} else {
		before.by[by].after = after
	}
	if after == nil {
		l.last = before
	} else {
		after.by[by].before = before
	}
	n.by[by] = link[T]{}
}
