package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// All times are since the scenario began, by the monotonic clock of the
// harness, in which downstream, publisher and fault driver live.

// call is one request as the downstream saw it.
type call struct {
	ID      string        `json:"id"`
	Replica string        `json:"replica"` // one start of one process, as w2.7
	Began   time.Duration `json:"began"`
	Ended   time.Duration `json:"ended"`  // 0: never
	Status  int           `json:"status"` // answered; 0: the caller was gone, or the answer was broken off on purpose
	Done    bool          `json:"done"`   // the whole of a 2xx was written
	Altered bool          `json:"altered,omitempty"`
	Attempt string        `json:"attempt,omitempty"`
}

// letter is a dead letter.
type letter struct {
	ID      string `json:"id"`
	Reason  string `json:"reason"`
	Altered bool   `json:"altered,omitempty"`
}

// fault is something that was really done to a process or a connection.
type fault struct {
	Kind  string        `json:"kind"`
	Whom  string        `json:"whom"` // a replica, a broker or a link
	Began time.Duration `json:"began"`
	Ended time.Duration `json:"ended"` // healed; the same as Began for what takes no time
	// Excuses names the replicas whose jobs may be repeated because of it: "*"
	// is all of them, none is that it excuses nothing.
	Excuses []string `json:"excuses,omitempty"`
	// Before is how long before Began a job may have been answered and still
	// not be settled at the broker for good.
	Before time.Duration `json:"before,omitempty"`
	// Wakes is set if a replica may come out of the fault with jobs in hand that
	// others have done since, and cannot know: because it slept, or because the
	// broker forgot whom it had given them to.
	Wakes bool `json:"wakes,omitempty"`
	// Holds is set if a call may arrive at the downstream as late as Ended,
	// although its replica has given it up since.
	Holds bool `json:"holds,omitempty"`
}

// books of one scenario: what all parties say, none of them workerd.
type books struct {
	Scenario string   `json:"scenario"`
	Seed     uint64   `json:"seed"`
	Strict   bool     `json:"strict"` // not even a call that failed may be repeated without need
	Limit    int      `json:"limit"`  // calls in flight allowed per replica
	Acked    []string `json:"acked"`  // the stream has them
	Unknown  []string `json:"unknown"`
	// Published says when jobs were sent to the stream.
	Published map[string]time.Duration `json:"published,omitempty"`
	// Sequences that the broker has acknowledged the jobs with.
	Sequences map[string]uint64 `json:"sequences,omitempty"`
	Calls     []call            `json:"calls"`
	// Settled is what the tap has heard said about each sequence, if there was one.
	Tapped  bool                    `json:"tapped,omitempty"`
	Settled map[uint64][]settlement `json:"settled,omitempty"`
	Letters []letter                `json:"letters"`
	Left    []string                `json:"left"` // still in the stream
	Faults  []fault                 `json:"faults"`
}

// verdict is what the books come to.
type verdict struct {
	Jobs       int      `json:"jobs"`
	Done       int      `json:"done"`
	Dead       int      `json:"dead"`
	Left       int      `json:"left"`     // in the stream at the end, most of them done and not removed by a broker that was killed
	Stranded   int      `json:"stranded"` // of these, neither done nor dead: nothing is over while they are there
	Lost       int      `json:"lost"`
	Forgotten  int      `json:"forgotten"`  // by the broker: it has given their sequence to another job, or removed it though nobody had acked or terminated it
	Duplicates int      `json:"duplicates"` // calls answered 2xx beyond the first of a job
	Explained  int      `json:"explained"`
	Allowed    int      `json:"allowed"` // runs that were answered 2xx and that a fault hit: so many may be followed by another
	Problems   []string `json:"problems,omitempty"`
	Notes      []string `json:"notes,omitempty"` // what nobody but the broker did
}

const maxProblems = 20 // in a report; more say nothing new

func (v *verdict) problem(format string, args ...any) {
	if len(v.Problems) < maxProblems {
		v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
	}
}

// check does the sums.
func (b *books) check() verdict {
	v := verdict{Jobs: len(b.Acked), Left: len(b.Left)}
	calls := map[string][]call{}
	for _, c := range b.Calls {
		calls[c.ID] = append(calls[c.ID], c)
	}
	letters := map[string][]letter{}
	for _, l := range b.Letters {
		letters[l.ID] = append(letters[l.ID], l)
	}
	b.accounted(&v, calls, letters)
	b.onlyPublished(&v, calls, letters)
	for id, of := range calls {
		slices.SortFunc(of, func(x, y call) int { return int(x.Began - y.Began) })
		b.repeated(&v, id, of)
	}
	for id, of := range letters {
		b.letters(&v, of, calls[id])
	}
	b.crowds(&v)
	return v
}

// unnoticed is how long the downstream may take to notice that the caller of
// a call is gone, who may have begun another one by then.
const unnoticed = 500 * time.Millisecond

// crowds: never more calls of a replica in flight than its concurrency.
func (b *books) crowds(v *verdict) {
	type step struct {
		at   time.Duration
		diff int
	}
	steps := map[string][]step{}
	for _, c := range b.Calls {
		end := c.Ended
		if c.Status == 0 {
			end -= unnoticed
		}
		if end > c.Began {
			steps[c.Replica] = append(steps[c.Replica], step{c.Began, 1}, step{end, -1})
		}
	}
	for replica, of := range steps {
		slices.SortFunc(of, func(x, y step) int {
			return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.diff, y.diff)) // ends first
		})
		now := 0
		for _, s := range of {
			if now += s.diff; now > b.Limit {
				v.problem("%d calls of %s in flight at %s, allowed are %d", now, replica, round(s.at), b.Limit)
				break
			}
		}
	}
}

// accounted: acked ⊆ done ∪ dead ∪ left.
func (b *books) accounted(v *verdict, calls map[string][]call, letters map[string][]letter) {
	left := set(b.Left)
	given := map[uint64]int{}
	for _, sequence := range b.Sequences {
		given[sequence]++
	}
	for _, id := range b.Acked {
		done := slices.ContainsFunc(calls[id], func(c call) bool { return c.Done })
		switch {
		case done:
			v.Done++
		case len(letters[id]) > 0:
			v.Dead++
		case left[id]:
			v.Stranded++
			v.problem("job %s is still in the stream, called %d times, although its consumers have no more: %s", id, len(calls[id]), history(calls[id]))
		case given[b.Sequences[id]] > 1, b.Tapped && !ended(b.Settled[b.Sequences[id]]):
			// The promise begins with a broker that keeps what it has acknowledged.
			v.Forgotten++
			v.Notes = append(v.Notes, fmt.Sprintf("the broker forgot job %s, which it had acknowledged as %d; of that sequence was said %v: %s",
				id, b.Sequences[id], b.Settled[b.Sequences[id]], history(calls[id])))
		default:
			v.Lost++
			v.problem("job %s is lost: acknowledged, called %d times, neither done nor dead nor in the stream; of its sequence %d was said %v", id, len(calls[id]), b.Sequences[id], b.Settled[b.Sequences[id]])
		}
	}
}

// onlyPublished: done ∪ dead ⊆ acked ∪ unknown, and byte for byte.
func (b *books) onlyPublished(v *verdict, calls map[string][]call, letters map[string][]letter) {
	published := set(b.Acked)
	for _, id := range b.Unknown {
		published[id] = true
	}
	for id, of := range calls {
		if !published[id] {
			v.problem("job %s was called and never published", id)
		}
		if modeOf(b.Seed, id) == modeInvalid {
			v.problem("job %s was called although it cannot be read or must not run: %s", id, history(of))
		}
		if slices.ContainsFunc(of, func(c call) bool { return c.Altered }) {
			v.problem("job %s reached the downstream altered", id)
		}
	}
	for id, of := range letters {
		if !published[id] {
			v.problem("job %s is a dead letter and was never published", id)
		}
		if slices.ContainsFunc(of, func(l letter) bool { return l.Altered }) {
			v.problem("job %s is altered in its dead letter", id)
		}
	}
}

// letters: one dead letter per job, and none of what is done, unless a fault
// hit the replica that had it.
func (b *books) letters(v *verdict, letters []letter, calls []call) {
	id := letters[0].ID
	excused := slices.ContainsFunc(calls, func(c call) bool { return b.excused(c, never) })
	if len(letters) > 1 {
		v.problem("job %s has %d dead letters", id, len(letters))
	}
	if i := slices.IndexFunc(calls, func(c call) bool { return c.Done }); i >= 0 && !excused {
		v.problem("job %s is done and a dead letter (%s): %s", id, letters[0].Reason, history(calls))
	}
	mode, reason := modeOf(b.Seed, id), letters[0].Reason
	if mode != modeRefused && reason != "poison" && (mode != modeInvalid || reason != "decode") {
		v.problem("job %s is a dead letter (%s) although its mode is %s: %s", id, letters[0].Reason, mode, history(calls))
	}
}

func history(calls []call) string {
	var s strings.Builder
	for _, c := range calls {
		fmt.Fprintf(&s, "[%s %s-%s %d]", c.Replica, round(c.Began), round(c.Ended), c.Status)
	}
	return s.String()
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func set(ids []string) map[string]bool {
	m := make(map[string]bool, len(ids))
	for _, id := range ids {
		m[id] = true
	}
	return m
}
