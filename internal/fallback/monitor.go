package fallback

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// Monitor turns the switch of a target on and off by what its health checks say
// and by how many of its jobs need the fallback. It ends by itself what it has
// begun: the one after some good checks, the other after a time. Any goroutine
// may use it.
type Monitor struct {
	cfg      When
	needs    func(job.Result) bool
	switched *Switch

	mu        sync.Mutex // guards all below
	bad, good int        // checks in a row
	share     share
}

// NewMonitor returns one for a target with a fallback of these steps. The config
// must be valid, with its defaults.
func NewMonitor(cfg When, steps []Step, s *Switch) *Monitor {
	needs := func(r job.Result) bool {
		cause, ok := CauseOf(r)
		return ok && anyTakes(steps, cause)
	}
	return &Monitor{cfg: cfg, needs: needs, switched: s, share: share{window: cfg.Window}}
}

// CanStandIn tells whether a step is taken for a target that is not called.
func CanStandIn(steps []Step) bool { return anyTakes(steps, Open) }

func anyTakes(steps []Step, c Cause) bool {
	for _, s := range steps {
		if s.Takes(c) {
			return true
		}
	}
	return false
}

// Checked notes how a health check ended at now. One that we gave up ourselves
// says nothing.
func (m *Monitor) Checked(now time.Time, r job.Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.cfg.Unhealthy == 0 || r.Class == job.Ignored:
	case r.Class == job.Success:
		m.good, m.bad = min(m.good+1, m.cfg.Healthy), 0
		if m.good == m.cfg.Healthy {
			m.switched.Resume(ByHealth)
		}
	default:
		m.good, m.bad = 0, min(m.bad+1, math.MaxInt-1)
		if m.bad >= m.cfg.Unhealthy {
			m.switched.Degrade(ByHealth, now, time.Time{}, fmt.Sprintf("%d health checks in a row were not good, the last: %s", m.bad, r.Reason))
		}
	}
}

// Job notes what the target said last of a job that it was called for. What
// comes in while it is not to be called is from before, and says nothing new.
func (m *Monitor) Job(now time.Time, r job.Result) {
	if m.cfg.FallbackRate == 0 || r.Class == job.Ignored || m.switched.State(now).On {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.share.note(now, m.needs(r))
	n, all := m.share.of(now)
	if all < m.cfg.MinJobs || float64(n) < m.cfg.FallbackRate*float64(all) {
		return
	}
	m.share.reset()
	m.switched.Degrade(ByRate, now, now.Add(m.cfg.For), fmt.Sprintf("%d of %d jobs within %s needed the fallback", n, all, spoken(m.cfg.Window)))
}

// spoken is 1m for 1m0s.
func spoken(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		return strings.TrimSuffix(text, "0s")
	}
	return text
}

// Reset ends what it has begun. It begins again only for what it sees from now on.
func (m *Monitor) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.good, m.bad = 0, 0
	m.share.reset()
	m.switched.Resume(ByHealth)
	m.switched.Resume(ByRate)
}

// slots is how many parts a window has. It counts the one that is under way
// and those before it.
const slots = 10

// share counts which part of what was noted within a window was bad.
type share struct {
	window time.Duration
	began  time.Time // all slots are counted from here, as clocks that are set must not matter
	slot   [slots]slot
}

type slot struct {
	number   int64
	bad, all int
}

func (s *share) note(now time.Time, bad bool) {
	if s.began.IsZero() {
		s.began = now
	}
	number := s.number(now)
	current := &s.slot[number%slots]
	if current.number != number {
		*current = slot{number: number}
	}
	current.all++
	if bad {
		current.bad++
	}
}

func (s *share) of(now time.Time) (bad, all int) {
	for _, c := range s.slot {
		if c.number > s.number(now)-slots {
			bad, all = bad+c.bad, all+c.all
		}
	}
	return bad, all
}

func (s *share) number(now time.Time) int64 {
	return int64(max(0, now.Sub(s.began)) / (s.window / slots))
}

func (s *share) reset() { *s = share{window: s.window} }
