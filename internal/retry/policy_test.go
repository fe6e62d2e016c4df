package retry_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/retry"
)

func TestPolicy_delaysGrowToTheCap(t *testing.T) {
	p := retry.Policy{Initial: 5 * time.Second, Max: 10 * time.Minute, Multiplier: 3}
	want := []int{5, 15, 45, 135, 405, 600, 600}
	for n, seconds := range want {
		if got, want := p.Delay(n, 0.5), time.Duration(seconds)*time.Second; got != want {
			t.Errorf("retry %d waits %s, want %s", n, got, want)
		}
	}
}

func TestPolicy_strangeValuesGiveSaneDelays(t *testing.T) {
	const s = time.Second
	for name, c := range map[string]struct {
		policy retry.Policy
		n      int
		u      float64
		want   time.Duration
	}{
		"zero policy":                 {retry.Policy{}, 3, 0.5, 0},
		"negative initial":            {retry.Policy{Initial: -s, Max: s, Multiplier: 2}, 3, 0, 0},
		"no cap is no hot loop":       {retry.Policy{Initial: s, Multiplier: 2}, 9, 0, s},
		"cap below initial":           {retry.Policy{Initial: 3 * s, Max: s, Multiplier: 2}, 0, 0, s},
		"multiplier 0":                {retry.Policy{Initial: s, Max: 9 * s}, 9, 0, s},
		"multiplier negative":         {retry.Policy{Initial: s, Max: 9 * s, Multiplier: -2}, 3, 0, s},
		"multiplier NaN":              {retry.Policy{Initial: s, Max: 9 * s, Multiplier: math.NaN()}, 1, 0, 9 * s},
		"multiplier infinite":         {retry.Policy{Initial: s, Max: 9 * s, Multiplier: math.Inf(1)}, 1, 0, 9 * s},
		"n negative is the first":     {retry.Policy{Initial: s, Max: 9 * s, Multiplier: 2}, -7, 0, s},
		"n where shifts overflow":     {retry.Policy{Initial: 100 * time.Millisecond, Max: 9 * s, Multiplier: 2}, 37, 0, 9 * s},
		"n huge":                      {retry.Policy{Initial: 1, Max: math.MaxInt64, Multiplier: 2}, math.MaxInt, 0, math.MaxInt64},
		"cap that float64 rounds up":  {retry.Policy{Initial: math.MaxInt64, Max: math.MaxInt64, Multiplier: 1}, 0, 0, math.MaxInt64},
		"all of it, by full jitter":   {retry.Policy{Initial: math.MaxInt64, Max: math.MaxInt64, Jitter: 1}, 0, 1, 0},
		"jitter NaN is none":          {retry.Policy{Initial: s, Max: s, Jitter: math.NaN()}, 0, 0.5, s},
		"jitter above 1 is full":      {retry.Policy{Initial: s, Max: s, Jitter: 7}, 0, 0.5, s / 2},
		"u NaN is 0":                  {retry.Policy{Initial: s, Max: s, Jitter: 1}, 0, math.NaN(), s},
		"u out of range is its end":   {retry.Policy{Initial: s, Max: s, Jitter: 0.5}, 0, 7, s / 2},
		"equal jitter takes half":     {retry.Policy{Initial: s, Max: s, Jitter: 0.5}, 0, 0.5, s * 3 / 4},
		"what is cut is rounded down": {retry.Policy{Initial: 3, Max: 3, Jitter: 0.5}, 0, 0.9, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.policy.Delay(c.n, c.u); got != c.want {
				t.Errorf("%+v delays retry %d by %s, want %s", c.policy, c.n, got, c.want)
			}
		})
	}
}

// policies draws any policy that a config can hold, and larger ones.
func policies(t *rapid.T) retry.Policy {
	return retry.Policy{
		Initial:    time.Duration(rapid.Int64Min(0).Draw(t, "initial")),
		Max:        time.Duration(rapid.Int64Min(1).Draw(t, "max")),
		Multiplier: rapid.Float64Range(0, 1e6).Draw(t, "multiplier"),
		Jitter:     rapid.Float64Range(0, 1).Draw(t, "jitter"),
	}
}

func TestInvariant17_delayLiesWithin0AndTheCap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := policies(t)
		n := rapid.IntRange(0, 1<<62).Draw(t, "n")
		u := rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "u")
		if d := p.Delay(n, u); d < 0 || d > p.Max {
			t.Fatalf("delay %d outside of 0 to %d", d, p.Max)
		}
	})
}

func TestInvariant17_delaysDoNotMeetAtTheCap(t *testing.T) {
	const draws = 100_000
	for _, jitter := range []float64{0.2, 0.5, 1} {
		p := retry.Policy{Initial: 100 * time.Millisecond, Max: 2 * time.Second, Multiplier: 2, Jitter: jitter}
		random, atCap := rand.New(rand.NewPCG(1, 2)), 0
		for range draws {
			if p.Delay(50, random.Float64()) == p.Max {
				atCap++
			}
		}
		if atCap >= draws/100 {
			t.Errorf("jitter %v: %d of %d delays are exactly the cap, want less than 1 %%", jitter, atCap, draws)
		}
	}
}

func TestPolicy_delayFallsWithUAndGrowsWithN(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := policies(t)
		n := rapid.IntRange(0, 100).Draw(t, "n")
		low, high := rapid.Float64Range(0, 0.999).Draw(t, "u"), rapid.Float64Range(0, 0.999).Draw(t, "u")
		if low > high {
			low, high = high, low
		}
		if p.Delay(n, low) < p.Delay(n, high) {
			t.Fatalf("u %v waits %s, u %v %s", low, p.Delay(n, low), high, p.Delay(n, high))
		}
		if p.Delay(n, 0) > p.Delay(n+1, 0) {
			t.Fatalf("retry %d waits up to %s, the next %s", n, p.Delay(n, 0), p.Delay(n+1, 0))
		}
	})
}

func FuzzDelay(f *testing.F) {
	f.Add(int64(100*time.Millisecond), int64(2*time.Second), 2.0, 1.0, 3, 0.5)
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), 1.0, 1.0, math.MaxInt, 0.999)
	f.Add(int64(1), int64(-1), math.Inf(1), math.NaN(), math.MinInt, math.Inf(-1))
	f.Add(int64(1<<53+3), int64(0), 0.0, 1e-300, 0, math.Nextafter(1, 0))
	f.Fuzz(func(t *testing.T, initial, limit int64, multiplier, jitter float64, n int, u float64) {
		p := retry.Policy{Initial: time.Duration(initial), Max: time.Duration(limit), Multiplier: multiplier, Jitter: jitter}
		most := max(0, p.Initial)
		if p.Max > 0 {
			most = p.Max
		}
		d, full := p.Delay(n, u), p.Delay(n, 0)
		if d < 0 || d > full || full > most {
			t.Fatalf("%+v: retry %d, u %v: want 0 <= %d <= %d <= %d", p, n, u, d, full, most)
		}
		if p.Initial > 0 && full == 0 {
			t.Fatalf("%+v: retry %d never waits", p, n)
		}
		if rounding := full >> 52; jitter <= 0.5 && d < full/2-rounding { // that of a float64
			t.Fatalf("%+v: retry %d, u %v: %d is less than half of %d", p, n, u, d, full)
		}
	})
}
