package breaker_test

import (
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"time"

	"github.com/workerd/workerd/internal/breaker"
)

// model is the breaker as one would write it without a thought for cost: time
// is an int64, the window a list of calls, a rate a fraction. It has no
// jitter, and its time only runs forward.
type model struct {
	cfg         breaker.Config
	state       breaker.State
	reason      breaker.Reason
	epoch       int
	since       time.Duration
	until       time.Duration
	windowStart time.Duration
	calls       []modelCall
	consecutive int
	leases      map[int]time.Duration
	proven      int
	nextProbe   int

	opens           int
	wait            time.Duration
	stale, rejected uint64

	shadow                 *model
	wouldOpen, wouldReject uint64
	lifetimeOpens          uint64
}

type modelCall struct {
	at        time.Duration
	bad, slow bool
}

type modelPermit struct {
	model *model
	epoch int
	probe int
	start time.Duration
	ended bool
}

func newModel(cfg breaker.Config) *model {
	m := &model{cfg: cfg.WithDefaults()}
	m.start(0, breaker.Closed, breaker.Started)
	return m
}

func (m *model) clone() *model {
	c := *m
	c.calls = slices.Clone(m.calls)
	c.leases = maps.Clone(m.leases)
	return &c
}

func (m *model) start(now time.Duration, s breaker.State, why breaker.Reason) {
	m.epoch++
	m.state, m.reason, m.since, m.windowStart, m.until = s, why, now, now, 0
	m.calls, m.consecutive, m.leases, m.proven = nil, 0, map[int]time.Duration{}, 0
	if m.shadow != nil {
		m.wouldOpen += m.shadow.lifetimeOpens
		m.shadow = nil
	}
}

func (m *model) tick(now time.Duration) {
	switch m.state {
	case breaker.Open:
		if now >= m.until {
			m.start(now, breaker.HalfOpen, breaker.WaitOver)
		}
	case breaker.HalfOpen:
		if m.proven >= m.cfg.HalfOpenCalls {
			m.start(now, breaker.Closed, breaker.Recovered)
			return
		}
		for _, lease := range m.leases {
			if now >= lease {
				m.trip(now, breaker.ProbeTimeout, 0)
				return
			}
		}
	case breaker.ForcedOpen, breaker.Disabled, breaker.MetricsOnly:
		if now >= m.until {
			m.reset(now, breaker.OverrideExpired)
		} else if m.shadow != nil {
			m.shadow.tick(now)
		}
	}
}

func (m *model) reset(now time.Duration, why breaker.Reason) {
	m.opens, m.wait = 0, 0
	m.start(now, breaker.Closed, why)
}

func (m *model) override(now time.Duration, s breaker.State, ttl time.Duration) {
	m.start(now, s, breaker.Overridden)
	m.until = now + ttl
	if s == breaker.MetricsOnly {
		m.shadow = newModel(m.cfg)
		m.shadow.start(now, breaker.Closed, breaker.Started)
	}
}

func (m *model) configure(now time.Duration, cfg breaker.Config) {
	cfg = cfg.WithDefaults()
	moved := cfg.Window != m.cfg.Window || cfg.WindowCalls != m.cfg.WindowCalls
	m.cfg = cfg
	if m.state == breaker.Closed && moved {
		since, reason := m.since, m.reason
		m.start(now, breaker.Closed, reason)
		m.since = since
	}
	if m.state == breaker.Open {
		m.until = min(m.until, m.since+cfg.MaxOpenFor)
	}
	if m.shadow != nil {
		m.shadow.configure(now, cfg)
	}
	m.tick(now)
}

func (m *model) trip(now time.Duration, why breaker.Reason, retryAfter time.Duration) {
	if m.state == breaker.Closed && now-m.since >= m.cfg.Window && now-m.since >= m.wait {
		m.opens = 0
	}
	wait := m.cfg.OpenFor
	for range m.opens {
		wait = time.Duration(float64(wait) * m.cfg.OpenMultiplier)
		if wait >= m.cfg.MaxOpenFor {
			break
		}
	}
	wait = min(wait, m.cfg.MaxOpenFor)
	if retryAfter > wait {
		wait = min(retryAfter, m.cfg.MaxOpenFor)
	}
	m.opens++
	m.lifetimeOpens++
	m.wait = wait
	m.start(now, breaker.Open, why)
	m.until = now + wait
}

func (m *model) credit() int {
	switch m.state {
	case breaker.Open, breaker.ForcedOpen:
		return 0
	case breaker.HalfOpen:
		a := m.cfg.HalfOpenConcurrent - len(m.leases)
		b := m.cfg.HalfOpenCalls - m.proven - len(m.leases)
		return max(0, min(a, b))
	}
	return math.MaxInt
}

func (m *model) acquire(now time.Duration) *modelPermit {
	if m.credit() == 0 {
		m.rejected++
		return nil
	}
	p := &modelPermit{model: m, epoch: m.epoch, start: now}
	switch m.state {
	case breaker.HalfOpen:
		m.nextProbe++
		p.probe = m.nextProbe
		m.leases[p.probe] = now + m.cfg.ProbeTimeout
	case breaker.MetricsOnly:
		if inner := m.shadow.acquire(now); inner != nil {
			return inner
		}
		m.wouldReject++
	}
	return p
}

func (m *model) done(now time.Duration, p *modelPermit, v breaker.Verdict, retryAfter time.Duration) {
	if p.ended {
		return
	}
	p.ended = true
	if p.model != m && p.model == m.shadow {
		m.shadow.done(now, &modelPermit{model: m.shadow, epoch: p.epoch, probe: p.probe, start: p.start}, v, retryAfter)
		return
	}
	if p.model != m || p.epoch != m.epoch {
		m.stale++
		return
	}
	if v == breaker.Throttled && m.cfg.Throttled == breaker.ThrottledFailure {
		v = breaker.Bad
	}
	if v == breaker.Throttled && m.cfg.Throttled == breaker.ThrottledIgnore {
		v = breaker.Ignored
	}
	slow := m.cfg.SlowCall > 0 && m.cfg.SlowCallRate > 0 && now-p.start > m.cfg.SlowCall
	switch m.state {
	case breaker.HalfOpen:
		delete(m.leases, p.probe)
		m.probed(now, v, slow, retryAfter)
	case breaker.Closed:
		m.counted(now, v, slow, retryAfter)
	}
}

func (m *model) probed(now time.Duration, v breaker.Verdict, slow bool, retryAfter time.Duration) {
	switch {
	case v == breaker.Ignored:
	case v == breaker.Bad:
		m.trip(now, breaker.ProbeFailed, retryAfter)
	case v == breaker.Throttled:
		m.trip(now, breaker.ProbeThrottled, retryAfter)
	case slow:
		m.trip(now, breaker.ProbeSlow, retryAfter)
	default:
		m.proven++
		m.tick(now)
	}
}

func (m *model) counted(now time.Duration, v breaker.Verdict, slow bool, retryAfter time.Duration) {
	if v == breaker.Ignored {
		return
	}
	m.calls = append(m.calls, modelCall{now, v != breaker.Good, slow})
	switch v {
	case breaker.Good:
		m.consecutive = 0
	case breaker.Bad:
		m.consecutive++
	case breaker.Throttled, breaker.Ignored:
	}
	total, bad, slows := m.sum(now)
	enough := m.cfg.MinCalls
	if m.cfg.WindowCalls > 0 {
		enough = min(enough, m.cfg.WindowCalls)
	}
	slowOn := m.cfg.SlowCall > 0 && m.cfg.SlowCallRate > 0
	switch {
	case m.cfg.ConsecutiveFailures > 0 && m.consecutive >= m.cfg.ConsecutiveFailures && bad+slows > 0:
		m.trip(now, breaker.ConsecutiveFailures, retryAfter)
	case total >= enough && isRate(bad, total, m.cfg.FailureRate):
		m.trip(now, breaker.FailureRate, retryAfter)
	case total >= enough && slowOn && isRate(slows, total, m.cfg.SlowCallRate):
		m.trip(now, breaker.SlowCallRate, retryAfter)
	}
}

// isRate compares with the decimal fraction that was written in the config.
func isRate(part, total int, rate float64) bool {
	want, ok := new(big.Rat).SetString(strconv.FormatFloat(rate, 'f', -1, 64))
	if !ok {
		panic(fmt.Sprintf("rate %v is no number", rate))
	}
	return part > 0 && big.NewRat(int64(part), int64(total)).Cmp(want) >= 0
}

// sum filters the list of calls.
func (m *model) sum(now time.Duration) (total, bad, slow int) {
	if m.shadow != nil {
		return m.shadow.sum(now)
	}
	width := m.cfg.Window / 10
	for i, c := range m.calls {
		in := (now-m.windowStart)/width-(c.at-m.windowStart)/width < 10
		if m.cfg.WindowCalls > 0 {
			in = i >= len(m.calls)-m.cfg.WindowCalls
		}
		if !in {
			continue
		}
		total++
		if c.bad {
			bad++
		}
		if c.slow {
			slow++
		}
	}
	return total, bad, slow
}

// facts are the part of Stats that the model knows.
type facts struct {
	State                       breaker.State
	Reason                      breaker.Reason
	Since, Until                time.Duration
	Opens                       int
	Total, Bad, Slow            int
	Consecutive, Probes, Proven int
	Stale, Rejected             uint64
	WouldOpen, WouldReject      uint64
	Credit                      int
	CreditUntil                 time.Duration
}

func (m *model) facts(now time.Duration) facts {
	f := facts{
		State: m.state, Reason: m.reason, Since: m.since, Until: m.until, Opens: m.opens,
		Consecutive: m.consecutive, Probes: len(m.leases), Proven: m.proven, Stale: m.stale, Rejected: m.rejected,
		WouldOpen: m.wouldOpen, WouldReject: m.wouldReject, Credit: m.credit(),
	}
	f.Total, f.Bad, f.Slow = m.sum(now)
	if m.shadow != nil {
		f.WouldOpen += m.shadow.lifetimeOpens
		f.Consecutive = m.shadow.consecutive
	}
	if m.state == breaker.Open || m.state == breaker.ForcedOpen {
		f.CreditUntil = m.until
	}
	for _, lease := range m.leases {
		if f.CreditUntil == 0 || lease < f.CreditUntil {
			f.CreditUntil = lease
		}
	}
	return f
}
