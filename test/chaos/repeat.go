package main

import (
	"slices"
	"time"
)

// wakeful is how long after it woke up a replica may begin what had been
// delivered to it before: max_park, and a second.
const wakeful = 3 * time.Second

// backlogged is how long after it woke up a replica takes to begin with what
// lies in its sockets.
const backlogged = 500 * time.Millisecond

// never is the end of a call that has none.
const never time.Duration = 1 << 62

// cause of a repetition. Each is good for one run of the job that is answered
// 2xx, and for the attempts before it.
type cause struct {
	run     time.Duration // Began of a run that a fault hit, or of the fault that a replica came out of
	replica string        // that had it, or has it still
	late    bool
}

// repeated: a call after one that was answered 2xx needs a cause of its own.
//
// A fault hit the replica of a run that was answered before the broker can have
// settled it. Then the job is given away once more, however many faults there
// were: what comes of that has to be hit itself to be repeated. A call that was
// not answered is no such run, as nothing was done twice because of it.
//
// Or a replica came out of a fault with the job still in hand, done by others
// meanwhile.
func (b *books) repeated(v *verdict, id string, calls []call) {
	used := map[cause]bool{}
	var done []call
	for _, c := range calls {
		if len(done) > 0 {
			why, explained := b.cause(c, done, used)
			if c.Done {
				v.Duplicates++
			}
			switch {
			case explained && c.Done:
				v.Explained++
				used[why] = true
			case !explained:
				v.problem("job %s was called again at %s by %s without a fault of its own that explains it: %s", id, round(c.Began), c.Replica, history(calls))
			}
		}
		if b.Strict && len(calls) > 1 && !c.Done && c.Status == 0 && gentle(b.Seed, id) {
			v.problem("job %s was broken off at %s by %s: %s", id, round(c.Ended), c.Replica, history(calls))
		}
		if c.Done {
			done = append(done, c)
			if b.excused(c, never) {
				v.Allowed++
			}
		}
	}
}

// cause finds one for a call that is not used up. The narrower kind is first.
func (b *books) cause(c call, done []call, used map[cause]bool) (why cause, found bool) {
	for _, f := range b.Faults {
		why = cause{f.Began, c.Replica, true}
		if f.stale(c, done) && !used[why] {
			return why, true
		}
	}
	for _, d := range done {
		why = cause{d.Began, d.Replica, false}
		if b.excused(d, c.Began) && !used[why] {
			return why, true
		}
	}
	return why, false
}

// excused tells whether a fault that began before a time hit the replica of a
// call while the job was in its hands, or so shortly after that its ack may not
// have counted.
func (b *books) excused(c call, before time.Duration) bool {
	end := c.Ended
	if end == 0 {
		end = never
	}
	return slices.ContainsFunc(b.Faults, func(f fault) bool {
		until := f.Ended
		if f.Wakes { // what it had been given before, its lease may be over
			until += backlogged
		}
		hit := slices.Contains(f.Excuses, "*") || slices.Contains(f.Excuses, c.Replica)
		return hit && f.Began <= before && c.Began <= until && end >= f.Began-f.Before
	})
}

// stale tells whether a call was begun by a replica that had just come out of
// the fault, or was held back by it, for a job that was done meanwhile.
func (f *fault) stale(c call, done []call) bool {
	if hit := f.Whom == c.Replica || slices.Contains(f.Excuses, "*"); !hit || !f.Wakes && !f.Holds {
		return false
	}
	until := f.Ended
	if f.Wakes {
		until += wakeful
	}
	return c.Began >= f.Began && c.Began <= until &&
		slices.ContainsFunc(done, func(d call) bool { return d.Ended >= f.Began })
}
