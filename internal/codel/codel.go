// Package codel is a bounded queue for work that arrives uninvited and cannot
// be told to wait elsewhere. It keeps the delay of what is done short by giving
// up what has waited too long, and only while there is more than can be done.
//
//	Push ──► full? refused, or what is of lower rank is given up
//	   └──► waiting, by rank ──Next──► the oldest of the highest class;
//	             │                     while overloaded: of that class the highest
//	             │                     rank, and of that the newest
//	             └─ overloaded and older than twice the target ──► expired
//
// It is overloaded when in a whole interval not once the oldest that waits was
// younger than the target: a queue that does not empty is no buffer any more.
// (CoDel, Nichols and Jacobson 2012, with the adaptive LIFO of Facebook's "Fail
// at Scale", 2015: under overload the newest is the one somebody still waits
// for. Ranks within a class are DAGOR's, Zhou et al. 2018: when not everybody can
// be served, some are served well and not all badly.)
//
// Guarantees:
//  1. Never more than the capacity and its bytes wait.
//  2. Each item that was pushed comes out once: by Next, by expiry, for want of
//     room, or by Drain.
//  3. Nothing expires that waited for no more than twice the target, and nothing
//     at all while the queue empties now and then.
//  4. A higher class goes first.
//  5. For want of room nothing is turned away while something of lower rank
//     waits that would make room for it.
//
// Time is a value, and the queue has no lock: it belongs to one goroutine.
package codel

import (
	"math/bits"
	"time"
)

// Classes is the number of classes, and Levels that of the levels in each.
// Smaller is more important.
const (
	Classes = 4
	Levels  = 128
)

// Rank of an item: its class, then its level in the class. The zero Rank is the
// highest.
type Rank int

// RankOf a class, 0 to Classes-1, and a level, 0 to Levels-1.
func RankOf(class, level int) Rank { return Rank(class*Levels + level) }

func (r Rank) class() int { return int(r) / Levels }

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
	cfg    Config
	ages   [Classes]line[T]          // items of a class, in order of arrival
	ranks  [Classes * Levels]line[T] // of a rank, the same
	used   [Classes * Levels / 64]uint64
	length int
	bytes  int64

	overloaded bool
	ends       time.Time     // of the interval
	least      time.Duration // age of the oldest, at its least in this interval
}

// New returns an empty queue.
func New[T any](cfg Config) *Queue[T] { return &Queue[T]{cfg: cfg} }

// Push adds an item of the given size in bytes. Where there is no room for it,
// what waits with the lowest rank is given up, the oldest first; or, if that does
// not make enough or is of no lower rank, the item is refused and nothing given up.
func (q *Queue[T]) Push(now time.Time, rank Rank, size int64, value T) (givenUp []T, ok bool) {
	victims, ok := q.roomFor(rank, size)
	if !ok {
		return nil, false
	}
	for _, v := range victims {
		givenUp = append(givenUp, q.out(v))
	}
	n := &node[T]{value: value, size: size, since: now, rank: rank}
	q.ages[rank.class()].push(n, byAge)
	q.ranks[rank].push(n, byRank)
	q.used[rank/64] |= 1 << (rank % 64)
	q.length++
	q.bytes += size
	return givenUp, true
}

// roomFor returns what has to go to make room.
func (q *Queue[T]) roomFor(rank Rank, size int64) (victims []*node[T], ok bool) {
	length, bytes := q.length, q.bytes
	fits := func() bool { return length < q.cfg.Capacity && bytes+size <= q.cfg.Bytes }
	if size > q.cfg.Bytes {
		return nil, false
	}
	for worst := q.before(Classes * Levels); !fits() && worst > rank; worst = q.before(worst) {
		for n := q.ranks[worst].first; n != nil && !fits(); n = n.by[byRank].after {
			victims = append(victims, n)
			length, bytes = length-1, bytes-n.size
		}
	}
	return victims, fits()
}

// Next returns the item whose turn it is, and those that have waited too long.
func (q *Queue[T]) Next(now time.Time) (value T, ok bool, expired []T) {
	expired = q.Expire(now)
	for class := range q.ages {
		if n := q.ages[class].first; n != nil {
			if q.overloaded {
				n = q.ranks[q.from(RankOf(class, 0))].last
			}
			return q.out(n), true, expired
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
	for class := range q.ages {
		for n := q.ages[class].first; n != nil && now.Sub(n.since) > 2*q.cfg.Target; n = q.ages[class].first {
			expired = append(expired, q.out(n))
		}
	}
	return expired
}

// Drain takes everything out, the oldest of the highest class first.
func (q *Queue[T]) Drain() (all []T) {
	for class := range q.ages {
		for q.ages[class].first != nil {
			all = append(all, q.out(q.ages[class].first))
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
	for class := range q.ages {
		if n := q.ages[class].first; n != nil {
			age = max(age, now.Sub(n.since))
		}
	}
	return age
}

// out takes an item out.
func (q *Queue[T]) out(n *node[T]) T {
	q.ages[n.rank.class()].remove(n, byAge)
	q.ranks[n.rank].remove(n, byRank)
	if q.ranks[n.rank].first == nil {
		q.used[n.rank/64] &^= 1 << (n.rank % 64)
	}
	q.length--
	q.bytes -= n.size
	return n.value
}

// from is the first rank at or after r that has items. There must be one.
func (q *Queue[T]) from(r Rank) Rank {
	word := int(r / 64)
	here := q.used[word] >> (r % 64) << (r % 64)
	for ; here == 0; here = q.used[word] {
		word++
	}
	return Rank(word*64 + bits.TrailingZeros64(here))
}

// before is the last rank before r that has items, -1 if there is none.
func (q *Queue[T]) before(r Rank) Rank {
	for word := int(r-1) / 64; word >= 0 && r > 0; word-- {
		here := q.used[word]
		if over := int(r) - word*64; over < 64 {
			here &= 1<<over - 1
		}
		if here != 0 {
			return Rank(word*64 + bits.Len64(here) - 1)
		}
	}
	return -1
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
