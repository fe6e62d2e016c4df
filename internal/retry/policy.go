package retry

import (
	"math"
	"time"
)

// Policy of delays that grow: exponential, then capped, then jittered
// downwards. It is plain data; the zero Policy never waits.
type Policy struct {
	// Initial is the delay before the first retry. 0 or less: no delay ever.
	Initial time.Duration
	// Max caps every delay. 0 or less: Initial, so that a forgotten cap makes
	// the delays constant and not zero.
	Max time.Duration
	// Multiplier from one delay to the next. Below 1: 1.
	Multiplier float64
	// Jitter is the share of a delay that chance may take away, 0 to 1: 1 is
	// full jitter, 0.5 equal jitter. Outside of that: the nearer end.
	Jitter float64
}

// Delay is the wait before retry n, where n = 0 is the first one (below: the
// same), for a random number u in [0, 1). It is pure, and stays within 0 and
// the cap for any n:
//
//	D(n) = min(Max, Initial · Multiplierⁿ)
//	delay = D(n) − ⌊D(n) · Jitter · u⌋
//
// Capping comes before jitter. The other way round most late delays are
// exactly the cap, and clients that failed together come back together.
func (p Policy) Delay(n int, u float64) time.Duration {
	d := p.ceiling(n)
	cut := float64(d) * unit(p.Jitter) * unit(u)
	// Also keeps the conversion below from overflowing: the float64 nearest to
	// a duration may be larger than it.
	if cut >= float64(d) {
		return 0
	}
	return d - min(d, time.Duration(cut))
}

// ceiling is D(n), the longest delay before retry n.
func (p Policy) ceiling(n int) time.Duration {
	if p.Initial <= 0 {
		return 0
	}
	limit := p.limit()
	d := float64(p.Initial) * math.Pow(max(1, p.Multiplier), float64(max(0, n)))
	// The cap stays an integer, as float64(math.MaxInt64) is more than that;
	// and the comparison is written so that Inf and NaN are the cap.
	if !(d < float64(limit)) {
		return limit
	}
	return min(limit, time.Duration(d))
}

// limit is the cap in effect.
func (p Policy) limit() time.Duration {
	if p.Max <= 0 {
		return max(0, p.Initial)
	}
	return p.Max
}

// hinted is the shortest wait that a Retry-After allows. Up to a tenth is
// added, as everybody who was refused together was told the same time.
func hinted(hint time.Duration, u float64) time.Duration {
	if hint <= 0 {
		return 0
	}
	return hint + min(time.Duration(float64(hint)*0.1*unit(u)), math.MaxInt64-hint)
}

// unit is x brought into [0, 1]; NaN is 0.
func unit(x float64) float64 {
	if !(x > 0) {
		return 0
	}
	return min(1, x)
}
