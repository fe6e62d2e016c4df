package limiter

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func limiterOf(cfg Config, r Rate, most int) *Limiter {
	return New(cfg.WithDefaults(), r.WithDefaults(), most)
}

func at(d time.Duration) time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(d) }

func refused(t *testing.T, l *Limiter, now time.Time) *RefusedError {
	t.Helper()
	_, err := l.Acquire(now)
	e, ok := errors.AsType[*RefusedError](err)
	if !ok {
		t.Fatalf("got %v, want a refusal", err)
	}
	if e.Error() == "" {
		t.Error("a refusal that says nothing")
	}
	return e
}

func TestAcquire_aLimitAsHighAsThePoolsBindsNobody(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 10)
	if n, reason, _ := l.Credit(at(0)); n != Unlimited || reason != "" {
		t.Errorf("credit %d %s, want unlimited", n, reason)
	}
}

func TestAcquire_fixedLimitIsKept(t *testing.T) {
	l := limiterOf(Config{Limit: Fixed, Max: 2}, Rate{}, 10)
	first, err := l.Acquire(at(0))
	if err != nil {
		t.Fatal(err)
	}
	if n, _, _ := l.Credit(at(0)); n != 1 {
		t.Errorf("credit %d, want 1", n)
	}
	if _, err := l.Acquire(at(0)); err != nil {
		t.Fatal(err)
	}
	if e := refused(t, l, at(0)); e.Reason != Full || e.RetryAfter != 0 {
		t.Errorf("refused by %+v", e)
	}
	changed := l.Changed()
	if n, reason, _ := l.Credit(at(0)); n != 0 || reason != Full {
		t.Errorf("credit %d %s", n, reason)
	}
	first.Done(at(time.Second), Answered)
	first.Done(at(time.Second), Answered)
	select {
	case <-changed:
	default:
		t.Error("nobody was told of the seat that has become free")
	}
	if s := l.Stats(at(time.Second)); s.InFlight != 1 {
		t.Errorf("in flight %d after a second Done, want 1", s.InFlight)
	}
}

func TestRate_refusesUntilTheNextToken(t *testing.T) {
	l := limiterOf(Config{}, Rate{Rate: 10, Burst: 2}, 10)
	for range 2 {
		if _, err := l.Acquire(at(0)); err != nil {
			t.Fatal(err)
		}
	}
	e := refused(t, l, at(0))
	if e.Reason != TooMany || e.RetryAfter < 99*time.Millisecond || e.RetryAfter > 101*time.Millisecond {
		t.Errorf("refused by %+v, want for 100 ms", e)
	}
	if _, err := l.Acquire(at(e.RetryAfter)); err != nil {
		t.Errorf("and then again: %v", err)
	}
}

func TestHold_nothingBeginsBeforeTheLongestWaitIsOver(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 10)
	changed := l.Changed()
	l.Hold(at(0), at(5*time.Second))
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	l.Hold(at(0), at(time.Second))
	if e := refused(t, l, at(4*time.Second)); e.Reason != NotBefore || e.RetryAfter != time.Second {
		t.Errorf("refused by %+v", e)
	}
	if _, err := l.Acquire(at(5 * time.Second)); err != nil {
		t.Error(err)
	}
}

// TestRamp_afterAnOutageCallsDouble: 1, 2, 4, … at once, each step at least an
// interval long and full of calls, until the limit.
func TestRamp_afterAnOutageCallsDouble(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 16)
	now := at(0)
	l.Outage(now)
	var steps []int
	for range 8 {
		var seats []Seat
		for {
			s, err := l.Acquire(now)
			if err != nil || len(seats) == 16 {
				break
			}
			seats = append(seats, s)
		}
		steps = append(steps, len(seats))
		now = now.Add(100 * time.Millisecond)
		for i := range seats {
			seats[i].Done(now, Answered)
		}
	}
	want := []int{1, 2, 4, 8, 16, 16, 16, 16}
	for i, n := range want {
		if steps[i] != n {
			t.Fatalf("calls at once were %v, want %v", steps, want)
		}
	}
}

func TestRamp_failuresStepBackAndIgnoredOnesDoNothing(t *testing.T) {
	r := ramp{interval: time.Second}
	r.start(at(0))
	r.ended(at(2*time.Second), Answered, 100)
	r.ended(at(3*time.Second), Answered, 100)
	r.ended(at(4*time.Second), Answered, 100)
	if r.step != 4 {
		t.Fatalf("step %d after good ones, want 4", r.step)
	}
	r.ended(at(9*time.Second), Ignored, 100)
	for range 4 {
		r.ended(at(9*time.Second), Failed, 100)
	}
	if r.step != 2 {
		t.Errorf("step %d after a bad one, want 2", r.step)
	}
}

// target is a model of a service: it works on capacity calls at once, each of
// which takes base; more of them wait, or are refused.
type target struct {
	capacity int
	base     time.Duration
	refuses  bool
	patience time.Duration
}

// serve runs a second of load against it in steps of its base time, with as
// many calls at once as there are seats.
func (m target) serve(l *Limiter, now time.Time, demand int) (end time.Time, done int) {
	for until := now.Add(time.Second); now.Before(until); {
		var seats []Seat
		for len(seats) < demand {
			s, err := l.Acquire(now)
			if err != nil {
				break
			}
			seats = append(seats, s)
		}
		takes := m.base * time.Duration(max(1, math.Ceil(float64(len(seats))/float64(m.capacity))))
		if m.refuses {
			takes = m.base
		}
		now = now.Add(takes)
		for i := range seats {
			switch {
			case m.refuses && i >= m.capacity:
				seats[i].Done(now, Throttled)
			case m.patience > 0 && takes > m.patience:
				seats[i].Done(now, TimedOut)
			default:
				seats[i].Done(now, Answered)
				done++
			}
		}
	}
	return now, done
}

// TestLimit_followsTheCapacity from 100 to 20 and back, without collapse: the
// goodput stays near what the target can do, and the limit near its capacity.
func TestLimit_followsTheCapacity(t *testing.T) {
	for _, c := range []struct {
		name  string
		mode  Mode
		model target
		least int // goodput, per cent of the capacity
	}{
		{"aimd, refusals", AIMD, target{base: 50 * time.Millisecond, refuses: true}, 80},
		{"aimd, timeouts", AIMD, target{base: 50 * time.Millisecond, patience: 120 * time.Millisecond}, 60},
		{"gradient, waiting", Gradient, target{base: 50 * time.Millisecond}, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := limiterOf(Config{Limit: c.mode}, Rate{}, 200)
			now := at(0)
			for _, phase := range []struct{ capacity, seconds int }{{100, 60}, {20, 60}, {100, 90}} {
				c.model.capacity = phase.capacity
				good, low, high := 0, math.MaxInt, 0
				for second := range phase.seconds {
					var done int
					now, done = c.model.serve(l, now, 200)
					if second >= phase.seconds-15 { // settled
						good += done
						low, high = min(low, l.Stats(now).Limit), max(high, l.Stats(now).Limit)
					}
				}
				can := 15 * phase.capacity * int(time.Second/c.model.base)
				t.Logf("capacity %d: limit %d to %d, goodput %d %%", phase.capacity, low, high, 100*good/can)
				if low < phase.capacity/3 || high > 5*phase.capacity {
					t.Errorf("capacity %d: the limit was %d to %d", phase.capacity, low, high)
				}
				if good*100 < c.least*can {
					t.Errorf("capacity %d: goodput is %d %% of it", phase.capacity, 100*good/can)
				}
			}
		})
	}
}

// TestLimit_spendsItsTimeNearTheCapacity: after it was too much the way back is
// fast at first and then slow.
func TestLimit_spendsItsTimeNearTheCapacity(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 200)
	model, now, sum, cuts := target{base: 50 * time.Millisecond, refuses: true, capacity: 90}, at(0), 0, 0
	const seconds = 200
	for range seconds {
		before := l.Stats(now).Limit
		now, _ = model.serve(l, now, 200)
		limit := l.Stats(now).Limit
		sum += min(limit, model.capacity)
		if limit < before {
			cuts++
		}
	}
	if mean := sum / seconds; mean < 80 || cuts > seconds/10 {
		t.Errorf("of 90 there were %d calls at once, and the limit sank %d times in %d s", mean, cuts, seconds)
	}
}

func TestLimit_doesNotRiseWhileItIsNotUsed(t *testing.T) {
	a := newAdaptive(Config{}.WithDefaults(), 100)
	a.set(50)
	for n := range 100 {
		now := at(time.Duration(n) * 100 * time.Millisecond)
		a.started(now, 3)
		a.ended(now, Answered, 10*time.Millisecond)
	}
	if a.now() != 50 {
		t.Errorf("the limit is %d, want 50", a.now())
	}
}

func TestLimit_sinksOnceInAWindow(t *testing.T) {
	a := newAdaptive(Config{}.WithDefaults(), 100)
	for n := range 9 {
		now := at(time.Duration(n) * 100 * time.Millisecond)
		a.started(now, 100)
		a.ended(now, Throttled, time.Millisecond)
	}
	if a.now() != 70 {
		t.Errorf("the limit is %d after nine refusals within a second, want 70", a.now())
	}
}

// hang lets everything that begins time out, for two windows, and says then
// that it is an outage, as the breaker does.
func hang(l *Limiter, now time.Time) time.Time {
	for range 2 {
		var seats []Seat
		for range 64 {
			if s, err := l.Acquire(now); err == nil {
				seats = append(seats, s)
			}
		}
		now = now.Add(2 * time.Second)
		for i := range seats {
			seats[i].Done(now, TimedOut)
		}
	}
	l.Outage(now)
	return now
}

// TestLimit_anOutageIsNoOverload: once it is over the ramp leads to the limit
// there was, and not to what is left of it after so many timeouts.
func TestLimit_anOutageIsNoOverload(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 64)
	now := hang(l, at(0))
	if n := l.adaptive.now(); n > 40 {
		t.Fatalf("the limit is %d after so many timeouts, so this test shows nothing", n)
	}
	back := target{base: 5 * time.Millisecond, capacity: 100}
	for range 3 {
		now, _ = back.serve(l, now, 64)
	}
	if s := l.Stats(now); s.Limit != 64 {
		t.Errorf("three seconds after an outage: %+v, want the limit of before, 64", s)
	}
}

// TestLimit_breakingDownAgainIsOverload: a target that cannot take its limit
// does not get it back each time.
func TestLimit_breakingDownAgainIsOverload(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 64)
	now := hang(l, at(0))
	s, err := l.Acquire(now)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	s.Done(now, Answered) // it seems to be back
	if n := l.adaptive.now(); n != 64 {
		t.Fatalf("the limit is %d, want 64", n)
	}
	l.ramp.step = 0 // and now it gets all at once
	now = hang(l, now)
	if s, err = l.Acquire(now); err != nil {
		t.Fatal(err)
	}
	s.Done(now.Add(time.Second), Answered)
	if n := l.adaptive.now(); n > 40 {
		t.Errorf("the limit is %d after it broke down twice", n)
	}
}

func TestRamp_passesWhenNobodyCalls(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 8)
	l.Outage(at(0))
	if s := l.Stats(at(time.Second)); !s.Ramping || s.Limit != 1 {
		t.Errorf("after a second: %+v", s)
	}
	seat, err := l.Acquire(at(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(at(time.Minute)); s.Limit != 1 {
		t.Errorf("a call that takes a minute: %+v", s)
	}
	seat.Done(at(time.Minute), Ignored)
	if s := l.Stats(at(2 * time.Minute)); s.Ramping || s.Limit != 8 {
		t.Errorf("after a long time: %+v", s)
	}
}

// TestLimit_fewRefusalsAreNoOverload: a target that refuses less than one call
// in a hundred, now this one and now that, keeps its limit; one that refuses
// more does not.
func TestLimit_fewRefusalsAreNoOverload(t *testing.T) {
	for _, c := range []struct {
		share     float64 // of the calls, refused by chance
		perSecond int
		low, high int // the limit on average
	}{
		{0.001, 1000, 99, 100},
		{0.005, 1000, 95, 100},
		{0.003, 100, 90, 100},
		{0.003, 20, 90, 100},
		{0.05, 1000, 1, 10},
		{0.05, 100, 1, 30},
	} {
		random := rand.New(rand.NewPCG(1, 2))
		a, sum := newAdaptive(Config{}.WithDefaults(), 100), 0
		const calls = 60_000
		for n := range calls {
			now := at(time.Duration(n) * time.Second / time.Duration(c.perSecond))
			load := Answered
			if random.Float64() < c.share {
				load = Throttled
			}
			a.started(now, 100)
			a.ended(now, load, 10*time.Millisecond)
			sum += a.now()
		}
		if mean := sum / calls; mean < c.low || mean > c.high {
			t.Errorf("%v of %d calls per second refused: the limit was %d, want %d to %d", c.share, c.perSecond, mean, c.low, c.high)
		}
	}
}

// TestLimiter_invariants: seats never exceed the limit they were taken under,
// the limit stays in its range, and a seat is given exactly when there is credit.
func TestLimiter_invariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			Limit: rapid.SampledFrom([]Mode{Fixed, AIMD, Gradient}).Draw(t, "mode"), Min: rapid.IntRange(1, 5).Draw(t, "min"),
			Max: rapid.IntRange(5, 40).Draw(t, "max"),
		}
		var r Rate
		if rapid.Bool().Draw(t, "rate limited") {
			r = Rate{Rate: rapid.Float64Range(0.5, 200).Draw(t, "rate")}
		}
		l := limiterOf(cfg, r, rapid.IntRange(1, 60).Draw(t, "most"))
		var seats []Seat
		now := at(0)
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(-int64(time.Second), int64(2*time.Second)).Draw(t, "step")))
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				l.Outage(now)
			case 1:
				l.Hold(now, now.Add(time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "hold"))))
			case 2, 3, 4, 5:
				credit, _, until := l.Credit(now)
				s, err := l.Acquire(now)
				if (err == nil) != (credit > 0) || credit < 0 || !until.IsZero() && until.Before(now) {
					t.Fatalf("credit %d until %v, and then %v", credit, until, err)
				}
				if err == nil {
					seats = append(seats, s)
					if after := l.Stats(now); after.InFlight > after.Limit && after.Limit < l.most {
						t.Fatalf("a seat beyond the limit: %+v", after)
					}
				}
			default:
				if len(seats) > 0 {
					i := rapid.IntRange(0, len(seats)-1).Draw(t, "seat")
					seats[i].Done(now, Load(rapid.IntRange(0, int(Replied)).Draw(t, "load")))
					seats = append(seats[:i], seats[i+1:]...)
				}
			}
			s := l.Stats(now)
			if s.InFlight != len(seats) || s.Limit < 1 || s.Limit > s.Max {
				t.Fatalf("%+v with %d seats", s, len(seats))
			}
		}
	})
}

// warm gives a limiter a history of calls of 2 ms.
func warm(l *Limiter, calls int) (now time.Time) {
	now = at(0)
	for range calls {
		s, err := l.Acquire(now)
		if err != nil {
			panic(err)
		}
		now = now.Add(2 * time.Millisecond)
		s.Done(now, Answered)
	}
	return now
}

// TestStall_aTargetThatStopsAnsweringGetsAHandfulOfCalls: 500 calls per second
// want to begin, none is answered for two seconds.
func TestStall_aTargetThatStopsAnsweringGetsAHandfulOfCalls(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 200)
	now := warm(l, 100)
	var hanging []Seat
	for range 1000 {
		now = now.Add(2 * time.Millisecond)
		if s, err := l.Acquire(now); err == nil {
			hanging = append(hanging, s)
		}
	}
	if n := len(hanging); n < silentCalls || n > 25 {
		t.Fatalf("%d calls in two seconds of silence", n)
	}
	e := refused(t, l, now)
	if e.Reason != Silent || e.RetryAfter <= 0 || !l.Stats(now).Silent {
		t.Errorf("refused by %+v", e)
	}
	hanging[0].Done(now, TimedOut)
	if !l.Stats(now).Silent {
		t.Error("a timeout passes for an answer")
	}
	changed := l.Changed()
	l.Credit(now)
	hanging[1].Done(now, Answered)
	select {
	case <-changed:
	default:
		t.Error("nobody was told of the answer")
	}
	if n, _, _ := l.Credit(now); n != Unlimited {
		t.Errorf("credit %d after an answer", n)
	}
}

// TestStall_conflictsAreAnswers: a target that answers nothing but that for a while
// was taken for one that hangs, and its jobs were put off for days.
func TestStall_conflictsAreAnswers(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 20)
	now := warm(l, 100)
	var seats []Seat
	for i := range 1000 {
		if len(seats) > silentCalls {
			now = now.Add(2 * time.Millisecond)
			seats[0].Done(now, Replied)
			seats = seats[1:]
		}
		s, err := l.Acquire(now)
		if err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		seats = append(seats, s)
	}
}

// TestStall_theWaitForTheNextCallHasAnEnd: it grows with each call that begins in
// vain, however many are given up meanwhile.
func TestStall_theWaitForTheNextCallHasAnEnd(t *testing.T) {
	for _, load := range []Load{Ignored, TimedOut} {
		l := limiterOf(Config{Limit: Fixed}, Rate{}, 20)
		now := warm(l, 100)
		began, longest := now, time.Duration(0)
		var seats []Seat
		for range 60_000 { // a minute
			now = now.Add(time.Millisecond)
			if len(seats) >= silentCalls {
				seats[0].Done(now, load)
				seats = seats[1:]
			}
			for range 2 { // the first makes the many of some
				s, err := l.Acquire(now)
				if err == nil {
					seats = append(seats, s)
					continue
				}
				var e *RefusedError
				if !errors.As(err, &e) || e.Reason != Silent || e.RetryAfter > longestWait {
					t.Fatalf("after %s: %v", now.Sub(began), err)
				}
				longest = max(longest, e.RetryAfter)
			}
		}
		if longest < longestWait-2*time.Millisecond {
			t.Errorf("the longest wait was %s, want %s", longest, longestWait)
		}
	}
}

// TestStall_longJobsDoNotStopShortOnes: eight jobs of a minute are under way,
// and short ones come now and then.
func TestStall_longJobsDoNotStopShortOnes(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 20)
	now := warm(l, 100)
	for range silentCalls {
		if _, err := l.Acquire(now); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 100 {
		now = now.Add(time.Second)
		s, err := l.Acquire(now)
		if err != nil {
			t.Fatalf("short job %d: %v", n, err)
		}
		s.Done(now.Add(2*time.Millisecond), Answered)
	}
}

func TestStall_aBurstAfterAPauseIsNoSilence(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 100)
	now := warm(l, 100).Add(time.Hour)
	for range 100 {
		if _, err := l.Acquire(now); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHistogram_quantiles(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 {
		t.Error("nothing has a median")
	}
	for ms := range 1000 {
		h.add(time.Duration(ms+1) * time.Millisecond)
	}
	h.add(1 << 62)
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.9: 900 * time.Millisecond} {
		if got := h.quantile(q); math.Abs(float64(got-want)) > 0.08*float64(want) {
			t.Errorf("quantile %v is %s, want about %s", q, got, want)
		}
	}
}

func TestConfig_saysEveryProblem(t *testing.T) {
	var problems []string
	note := func(field, message string) { problems = append(problems, field+": "+message) }
	Config{Limit: "vegas", Min: -1, Max: -1, RampInterval: time.Hour}.Validate(note)
	Rate{Rate: math.NaN(), Per: -1, Burst: -1}.Validate(note)
	if len(problems) != 7 {
		t.Errorf("got %q", problems)
	}
	problems = nil
	Config{}.WithDefaults().Validate(note)
	Rate{}.WithDefaults().Validate(note)
	Rate{Rate: 50}.WithDefaults().Validate(note)
	if len(problems) > 0 {
		t.Errorf("defaults: %q", problems)
	}
}

func BenchmarkLimiter(b *testing.B) {
	l := limiterOf(Config{}, Rate{}, 1000)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		s, err := l.Acquire(now)
		if err != nil {
			b.Fatal(err)
		}
		s.Done(now, Answered)
	}
}
