package breaker

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestInvariant05_waitsStayWithinTheirBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := time.Duration(rapid.Int64Range(int64(100*time.Millisecond), int64(time.Hour)).Draw(t, "open_for"))
		jitter := rapid.Float64Range(0.001, 1).Draw(t, "jitter")
		m := machine{rules: newRules(Config{
			OpenFor:        base,
			MaxOpenFor:     time.Duration(rapid.Int64Range(int64(base), int64(24*time.Hour)).Draw(t, "max_open_for")),
			OpenMultiplier: rapid.Float64Range(1, 100).Draw(t, "multiplier"),
			OpenJitter:     jitter,
		})}
		before := time.Duration(0)
		for _, n := range []int{0, 1, 2, 3, 10, 100, 100_000, math.MaxInt} {
			m.u = 0
			plain := m.backoff(n)
			if plain < before || plain > m.MaxOpenFor || plain < base {
				t.Fatalf("wait %d is %v after %v, want between %v and %v and not shorter", n, plain, before, base, m.MaxOpenFor)
			}
			before = plain
			m.u = rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "u")
			low := time.Duration(float64(plain)*(1-jitter)) - 2
			if got := m.backoff(n); got > plain || got < low {
				t.Fatalf("wait %d with jitter %v is %v, want between %v and %v", n, m.u, got, low, plain)
			}
		}
	})
}

func TestInvariant05_waitHonoursRetryAfterUpToTheCap(t *testing.T) {
	tests := []struct {
		retryAfter, want time.Duration
	}{
		{-time.Hour, 5 * time.Second},
		{0, 5 * time.Second},
		{5*time.Second + 1, 5*time.Second + 1},
		{time.Minute, time.Minute},
		{2 * time.Minute, 2 * time.Minute},
		{2*time.Minute + 1, 2 * time.Minute},
		{math.MaxInt64, 2 * time.Minute},
		{math.MinInt64, 5 * time.Second},
	}
	for _, tt := range tests {
		now := time.Unix(0, 0)
		m := machine{rules: newRules(Config{OpenJitter: off})}
		m.advance(now)
		m.open(now, FailureRate, tt.retryAfter)
		if got := m.cur.until.Sub(now); got != tt.want {
			t.Errorf("Retry-After %v: wait %v, want %v", tt.retryAfter, got, tt.want)
		}
	}
}

// The threshold at which a part of total reaches a rate is found here by
// counting up, not by the formula under test.
func TestInvariant13_ratesAreComparedExactly(t *testing.T) {
	for _, tt := range []struct {
		rate float64
		max  int
	}{{0.5, 10_000}, {0.57, 10_000}, {0.001, 1000}, {0.333, 1000}, {0.29, 1000}, {0.999, 1000}, {1, 1000}} {
		mille := perMille(tt.rate)
		need, num := 0, 0 // need = ceil(mille*total/1000), kept by adding
		for total := range tt.max + 1 {
			for need*1000 < num {
				need++
			}
			for part := range total + 1 {
				if reached(part, total, mille) != (part >= need) {
					t.Fatalf("%d of %d against %v: got %v, want it from %d on", part, total, tt.rate, part < need, need)
				}
			}
			num += mille
		}
	}
}

func TestRates_areRoundedToThePerMilleThatWasWritten(t *testing.T) {
	for mille := 1; mille <= 1000; mille++ {
		if got := perMille(float64(mille) / 1000); got != mille {
			t.Errorf("%v is %d per mille", float64(mille)/1000, got)
		}
	}
	for rate, want := range map[float64]int{0.0000001: 1, 0.5774: 577, 0.5776: 578, 0.9996: 1000} {
		if got := perMille(rate); got != want {
			t.Errorf("%v is %d per mille, want %d", rate, got, want)
		}
	}
}

// calls closes in on a threshold: it makes n calls a millisecond apart.
func (m *machine) calls(n int, v Verdict, took time.Duration) {
	for range n {
		now := m.advance(m.now.Add(time.Millisecond))
		g, ok := m.acquire(now)
		if !ok {
			return
		}
		now = m.advance(now.Add(took))
		m.done(now, &g, result{verdict: v})
	}
}

func TestTrip_boundaries(t *testing.T) {
	type batch struct {
		n    int
		v    Verdict
		took time.Duration
	}
	slow := 2 * time.Second
	rate := Config{ConsecutiveFailures: off}
	tests := []struct {
		name string
		cfg  Config
		in   []batch
		want Reason
	}{
		{"four failures in a row", Config{}, []batch{{4, Bad, 0}}, ""},
		{"five failures in a row", Config{}, []batch{{5, Bad, 0}}, ConsecutiveFailures},
		{"a success between", Config{}, []batch{{4, Bad, 0}, {1, Good, 0}, {4, Bad, 0}}, ""},
		{"an ignored call between", Config{}, []batch{{4, Bad, 0}, {1, Ignored, 0}, {1, Bad, 0}}, ConsecutiveFailures},
		{"a throttled call between", Config{}, []batch{{4, Bad, 0}, {1, Throttled, 0}, {1, Bad, 0}}, ConsecutiveFailures},
		{"throttled calls are no row", Config{}, []batch{{19, Throttled, 0}}, ""},
		{"throttled calls make a rate", Config{}, []batch{{20, Throttled, 0}}, FailureRate},
		{"throttled as failure", Config{Throttled: ThrottledFailure}, []batch{{5, Throttled, 0}}, ConsecutiveFailures},
		{"throttled ignored", Config{Throttled: ThrottledIgnore}, []batch{{100, Throttled, 0}}, ""},
		{"one call short of min_calls", rate, []batch{{19, Bad, 0}}, ""},
		{"min_calls", rate, []batch{{20, Bad, 0}}, FailureRate},
		{"just below the rate", rate, []batch{{11, Good, 0}, {9, Bad, 0}}, ""},
		{"at the rate", rate, []batch{{10, Good, 0}, {10, Bad, 0}}, FailureRate},
		{"a success completes min_calls", rate, []batch{{10, Bad, 0}, {10, Good, 0}}, FailureRate},
		{"rate 1, one success", Config{FailureRate: 1, ConsecutiveFailures: off}, []batch{{1, Good, 0}, {99, Bad, 0}}, ""},
		{"count window smaller than min_calls, not full", Config{WindowCalls: 4, ConsecutiveFailures: off}, []batch{{3, Bad, 0}}, ""},
		{"count window smaller than min_calls, full", Config{WindowCalls: 4, ConsecutiveFailures: off}, []batch{{4, Bad, 0}}, FailureRate},
		{"count window forgets", Config{WindowCalls: 4, MinCalls: 4, FailureRate: 0.75, ConsecutiveFailures: off}, []batch{{2, Bad, 0}, {2, Good, 0}, {2, Bad, 0}}, ""},
		{"nothing but slow", Config{SlowCall: time.Second, Window: time.Hour}, []batch{{20, Good, slow}}, SlowCallRate},
		{"exactly as long as allowed", Config{SlowCall: slow, Window: time.Hour}, []batch{{20, Good, slow}}, ""},
		{"one fast call", Config{SlowCall: time.Second, Window: time.Hour}, []batch{{1, Good, 0}, {30, Good, slow}}, ""},
		{"slow at the rate", Config{SlowCall: time.Second, SlowCallRate: 0.5, Window: time.Hour}, []batch{{10, Good, 0}, {10, Good, slow}}, SlowCallRate},
		{"slow off", Config{SlowCall: time.Second, SlowCallRate: off, Window: time.Hour}, []batch{{100, Good, slow}}, ""},
		{"no slow_call", Config{Window: time.Hour}, []batch{{100, Good, slow}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := machine{rules: newRules(tt.cfg)}
			m.advance(time.Unix(0, 0))
			got := Reason("")
			for _, b := range tt.in {
				if m.calls(b.n, b.v, b.took); m.cur.state == Open {
					got = m.cur.reason
				}
			}
			if got != tt.want {
				t.Errorf("opened for %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWait_growsFromOpeningToOpeningAndFallsBackAfterCalm(t *testing.T) {
	m := machine{rules: newRules(Config{OpenJitter: off, OpenMultiplier: 2})}
	m.advance(time.Unix(0, 0))
	trip := func(want time.Duration) {
		t.Helper()
		m.calls(5, Bad, 0)
		if m.wait != want || m.cur.state != Open {
			t.Fatalf("opening %d: %v for %v, want open for %v", m.opens, m.cur.state, m.wait, want)
		}
	}
	heal := func() {
		m.advance(m.cur.until)
		m.calls(3, Good, 0)
	}
	for _, want := range []int{5, 10, 20, 40, 80, 120, 120} {
		trip(time.Duration(want) * time.Second)
		heal()
	}
	m.advance(m.cur.since.Add(110 * time.Second))
	trip(120 * time.Second) // closed for less than the last wait
	heal()
	m.advance(m.cur.since.Add(120 * time.Second))
	trip(5 * time.Second)
	heal()
	m.advance(m.cur.since.Add(20 * time.Second)) // the window, 30s, is longer than the last wait
	trip(10 * time.Second)
}

func TestCall_countsForMoreThanNineTenthsOfTheWindowAndAtMostAllOfIt(t *testing.T) {
	start := time.Unix(0, 0)
	r := newRules(Config{Window: 10 * time.Second})
	for at := time.Duration(0); at < 3*time.Second; at += 250 * time.Millisecond {
		for age := time.Duration(0); age < 12*time.Second; age += 250 * time.Millisecond {
			w := newWindow(start, r)
			w.add(start.Add(at), tally{total: 1, bad: 1})
			got := w.sum(start.Add(at+age)).total == 1
			if age <= 9*time.Second && !got {
				t.Errorf("a call at %v is forgotten after %v", at, age)
			}
			if age >= 10*time.Second && got {
				t.Errorf("a call at %v still counts after %v", at, age)
			}
		}
	}
}

func TestNonsenseConfig_neitherPanicsNorWedges(t *testing.T) {
	bad := Config{
		FailureRate: math.NaN(), MinCalls: -5, ConsecutiveFailures: -7, Window: -1, WindowCalls: -1, SlowCall: -1,
		SlowCallRate: -3, OpenFor: -1, OpenMultiplier: -2, MaxOpenFor: -1, OpenJitter: 7, HalfOpenCalls: -1,
		HalfOpenConcurrent: -1, ProbeTimeout: -1, Throttled: "what",
	}
	m := machine{rules: newRules(bad), u: 0.999}
	m.advance(time.Unix(0, 0))
	m.open(m.now, FailureRate, 0)
	for range 1000 {
		m.calls(1, Good, 0)
		if m.cur.state == Closed {
			return
		}
	}
	t.Errorf("still %v", m.cur.state)
}
