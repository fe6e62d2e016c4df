package limiter

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// crowd is whoever calls a target: callers that never make more than most calls
// at once, as the pools of a target together do.
type crowd struct {
	l     *Limiter
	most  int
	seats []Seat
	now   time.Time
}

func (c *crowd) begin() bool {
	if len(c.seats) >= c.most {
		return false
	}
	s, err := c.l.Acquire(c.now)
	if err == nil {
		c.seats = append(c.seats, s)
	}
	return err == nil
}

func (c *crowd) end(t *rapid.T, loads ...Load) bool {
	if len(c.seats) == 0 {
		return false
	}
	i := rapid.IntRange(0, len(c.seats)-1).Draw(t, "seat")
	c.seats[i].Done(c.now, rapid.SampledFrom(loads).Draw(t, "load"))
	c.seats = append(c.seats[:i], c.seats[i+1:]...)
	return true
}

func (c *crowd) pass(t *rapid.T, most time.Duration) {
	c.now = c.now.Add(time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, "time")))
}

func drawCrowd(t *rapid.T) *crowd {
	cfg := Config{
		Limit: rapid.SampledFrom([]Mode{Fixed, AIMD, Gradient}).Draw(t, "mode"), Min: rapid.IntRange(1, 5).Draw(t, "min"),
		Max: rapid.SampledFrom([]int{0, 5, 17, 64}).Draw(t, "max"),
	}
	c := &crowd{most: rapid.IntRange(1, 60).Draw(t, "most"), now: at(0)}
	c.l = limiterOf(cfg, Rate{}, c.most)
	return c
}

// TestInvariant28_whatStartsStaysWithinTheLimitAndTheCredit: at the time a call
// starts, spare ones included, no more are under way than the limit of that
// time; and at one time no more start than there was credit for.
func TestInvariant28_whatStartsStaysWithinTheLimitAndTheCredit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCrowd(t)
		within := func() {
			if s := c.l.Stats(c.now); s.InFlight > s.Limit || s.InFlight != len(c.seats) {
				t.Fatalf("%d calls, and a call has just begun: %+v", len(c.seats), s)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"start": func(*rapid.T) {
				credit, _, _ := c.l.Credit(c.now)
				for started := 0; c.begin(); started++ {
					if within(); started >= credit {
						t.Fatalf("more have started than the credit of %d", credit)
					}
				}
			},
			"spare": func(*rapid.T) {
				if s, ok := c.l.AcquireSpare(c.now); ok {
					c.seats = append(c.seats, s)
					within()
				}
			},
			"end":    func(t *rapid.T) { c.end(t, Ignored, Answered, Answered, TimedOut, Throttled, Failed) },
			"pass":   func(t *rapid.T) { c.pass(t, 2*time.Second) },
			"outage": func(*rapid.T) { c.l.Outage(c.now) },
			"hold":   func(*rapid.T) { c.l.Hold(c.now, c.now.Add(time.Second)) },
		})
	})
}

// TestInvariant29_limitStaysInItsRangeSinksOnceAWindowAndRisesOnlyInUse.
func TestInvariant29_limitStaysInItsRangeSinksOnceAWindowAndRisesOnlyInUse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Limit: rapid.SampledFrom([]Mode{AIMD, Gradient}).Draw(t, "mode"), Min: rapid.IntRange(1, 50).Draw(t, "min")}
		most := rapid.IntRange(cfg.Min, 200).Draw(t, "most")
		a := newAdaptive(cfg.WithDefaults(), most)
		now, sunk, used := at(0), 0, 0
		sinking := rapid.IntRange(0, 60).Draw(t, "per cent that go wrong")
		for range rapid.IntRange(1, 100).Draw(t, "bursts") {
			inFlight := rapid.IntRange(1, most).Draw(t, "calls at once")
			took := time.Duration(rapid.Int64Range(1, int64(300*time.Millisecond)).Draw(t, "took"))
			for range inFlight {
				a.started(now, inFlight)
			}
			used = max(used, inFlight)
			now = now.Add(took)
			for range inFlight {
				load := Answered
				if rapid.IntRange(0, 99).Draw(t, "fate") < sinking {
					load = rapid.SampledFrom([]Load{TimedOut, Throttled, Failed, Ignored}).Draw(t, "load")
				}
				before, began := a.limit, a.window.began
				a.ended(now, load, took)
				if a.limit < before {
					sunk++
				}
				if sunk > 1 {
					t.Fatalf("the limit sank a second time in a window, to %v", a.limit)
				}
				if a.limit > before && 2*used < int(before) {
					t.Fatalf("the limit rose from %v to %v, with at most %d calls at once", before, a.limit, used)
				}
				if a.limit < float64(cfg.Min) || a.limit > float64(most) {
					t.Fatalf("the limit is %v, not %d to %d", a.limit, cfg.Min, most)
				}
				if !a.window.began.Equal(began) {
					sunk, used = 0, 0
				}
			}
		}
	})
}

// TestInvariant38_afterAnOutageCallsAtOnceStayWithinTheRamp, whoever calls as
// much as he is let, and whatever becomes of the calls: they double at most once
// in an interval, and only after as many were answered; without calls once in
// ten intervals. The bound knows nothing of the ramp's steps.
func TestInvariant38_afterAnOutageCallsAtOnceStayWithinTheRamp(t *testing.T) {
	const interval = 100 * time.Millisecond
	rapid.Check(t, func(t *rapid.T) {
		c := drawCrowd(t)
		fates := []Load{Answered, Answered, Answered, TimedOut}
		for range rapid.IntRange(0, 50).Draw(t, "calls before") { // with what they say of the limit
			c.begin()
			c.pass(t, time.Second)
			c.end(t, Answered, TimedOut, Throttled)
		}
		for range rapid.IntRange(0, 30).Draw(t, "probes that hang") {
			c.l.Outage(c.now)
			c.begin()
			c.now = c.now.Add(10 * time.Second)
			c.end(t, TimedOut)
		}
		var began time.Time
		ended := 0
		outage := func(*rapid.T) {
			c.l.Outage(c.now)
			began, ended = c.now, 0
		}
		outage(t)
		t.Repeat(map[string]func(*rapid.T){
			"start": func(t *rapid.T) {
				passed := c.now.Sub(began)
				byTime, idle := 1<<min(30, passed/interval), 1<<min(30, passed/(patience*interval))
				for c.begin() {
					if n := len(c.seats); n > min(byTime, (1+ended)*idle) {
						t.Fatalf("%d calls at once %s after an outage, %d of them answered", n, passed, ended)
					}
				}
			},
			"end": func(t *rapid.T) {
				if c.end(t, fates...) {
					ended++
				}
			},
			"end all": func(t *rapid.T) {
				for c.end(t, Answered) {
					ended++
				}
			},
			"pass":   func(t *rapid.T) { c.pass(t, 3*interval) },
			"outage": outage,
		})
	})
}

// TestInvariant38_aLongHangEndsInARampToo: each probe of it times out, and each
// takes something off the limit. That must not cut the ramp short: it leads to
// the limit of before.
func TestInvariant38_aLongHangEndsInARampToo(t *testing.T) {
	c := &crowd{l: limiterOf(Config{}, Rate{}, 64), most: 64, now: at(0)}
	for range 30 {
		c.l.Outage(c.now)
		if !c.begin() {
			t.Fatal("no probe")
		}
		c.now = c.now.Add(10 * time.Second)
		c.seats[0].Done(c.now, TimedOut)
		c.seats = nil
	}
	if n := c.l.adaptive.now(); n > 1 {
		t.Fatalf("the limit is %d after so many timeouts, so this test shows nothing", n)
	}
	c.l.Outage(c.now)
	var atOnce []int
	for range 7 {
		for c.begin() {
			continue
		}
		atOnce = append(atOnce, len(c.seats))
		c.now = c.now.Add(100 * time.Millisecond)
		for i := range c.seats {
			c.seats[i].Done(c.now, Answered)
		}
		c.seats = nil
	}
	for i, want := range []int{1, 2, 4, 8, 16, 32, 64} {
		if atOnce[i] != want {
			t.Fatalf("calls at once were %v, want 1, 2, 4, … 64", atOnce)
		}
	}
}
