package dlq

import (
	"regexp"
	"slices"
	"time"
)

// Filter chooses letters. Its zero value chooses all of them; what is set must
// hold at once.
type Filter struct {
	// Pool, Reason and Fingerprint are compared as a whole.
	Pool, Reason, Fingerprint string
	// Since and Before bound the time at which letters were stored: from Since
	// on, and earlier than Before.
	Since, Before time.Time
	// Match is looked for in the error, the ids, the job's subject and every
	// line "key: value" of the header.
	Match *regexp.Regexp
	// Limit is the most letters chosen, the oldest ones. 0: no limit.
	Limit int
}

// IsZero tells whether all letters are chosen.
func (f Filter) IsZero() bool { return f == Filter{} }

// onlyPool tells whether nothing but the pool is asked for.
func (f Filter) onlyPool() bool { return f == Filter{Pool: f.Pool} }

// has tells whether a letter is chosen, all but its number. Pool is looked at
// only where the subject has not done it already.
func (f Filter) has(l *Letter, poolKnown bool) bool {
	switch {
	case f.Pool != "" && !poolKnown && l.Pool != f.Pool,
		f.Reason != "" && l.Reason != f.Reason,
		f.Fingerprint != "" && l.Fingerprint != f.Fingerprint,
		l.Stored.Before(f.Since),
		!f.Before.IsZero() && !l.Stored.Before(f.Before):
		return false
	}
	return f.Match == nil || matches(f.Match, l)
}

func matches(pattern *regexp.Regexp, l *Letter) bool {
	if slices.ContainsFunc([]string{l.Error, l.ID, l.Key(), l.JobSubject}, pattern.MatchString) {
		return true
	}
	for key, values := range l.Header {
		for _, value := range values {
			if pattern.MatchString(key + ": " + value) {
				return true
			}
		}
	}
	return false
}
