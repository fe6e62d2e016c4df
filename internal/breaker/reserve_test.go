package breaker_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/breaker"
)

// reserved returns a breaker that has just opened, with a prober.
func reserved(t *testing.T, cfg breaker.Config, pace time.Duration) (*breaker.Breaker, time.Time) {
	t.Helper()
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	cfg.ConsecutiveFailures, cfg.OpenJitter, cfg.OpenMultiplier = 1, -1, 2
	b := breaker.New(cfg, nil)
	b.Reserve(now, pace)
	p, err := b.Acquire(now)
	if err != nil {
		t.Fatal(err)
	}
	p.Done(now, breaker.Bad, 0)
	return b, now
}

func credit(b *breaker.Breaker, now time.Time) int {
	n, _ := b.Credit(now)
	return n
}

func TestReserve_theFirstProbeIsNoJobs(t *testing.T) {
	b, now := reserved(t, breaker.Config{}, 0)
	if due, wanted := b.ProbeDue(now); !wanted || due != now.Add(5*time.Second) {
		t.Fatalf("due at %v (%v), want the end of the wait", due, wanted)
	}
	if _, ok := b.Probe(now); ok {
		t.Fatal("probed while open")
	}
	now = now.Add(5 * time.Second)
	if _, err := b.Acquire(now); err == nil || credit(b, now) != 0 {
		t.Fatal("a job probes")
	}
	p, ok := b.Probe(now)
	if _, again := b.Probe(now); !ok || again || credit(b, now) != 0 {
		t.Fatalf("probe %v, second %v, credit %d", ok, again, credit(b, now))
	}
	p.Done(now, breaker.Good, 0)
	if s := b.Stats(now); s.State != breaker.HalfOpen || s.Proven != 1 || s.Reserved || credit(b, now) != 1 {
		t.Fatalf("after a good probe: %+v with credit %d", s, credit(b, now))
	}
	if _, wanted := b.ProbeDue(now); wanted {
		t.Error("another is wanted")
	}
	for range 2 { // of three
		p, err := b.Acquire(now)
		if err != nil {
			t.Fatal(err)
		}
		p.Done(now, breaker.Good, 0)
	}
	if s := b.Stats(now); s.State != breaker.Closed {
		t.Errorf("after three good ones: %v", s.State)
	}
}

func TestReserve_oneGoodProbeClosesIfOneIsEnough(t *testing.T) {
	b, now := reserved(t, breaker.Config{HalfOpenCalls: 1}, 0)
	now = now.Add(5 * time.Second)
	p, _ := b.Probe(now)
	p.Done(now, breaker.Good, 0)
	if s := b.Stats(now); s.State != breaker.Closed || s.Reason != breaker.Recovered {
		t.Errorf("%v (%v)", s.State, s.Reason)
	}
}

// TestReserve_waits: failed probes lengthen the wait unless they have a pace;
// failed jobs always do, and Retry-After is kept.
func TestReserve_waits(t *testing.T) {
	waits := func(pace, retryAfter time.Duration) (all []time.Duration) {
		b, now := reserved(t, breaker.Config{HalfOpenCalls: 2}, pace)
		for i := range 5 {
			until := b.Stats(now).Until
			all = append(all, until.Sub(now))
			now = until
			p, ok := b.Probe(now)
			if !ok {
				t.Fatal("no probe")
			}
			if i < 3 {
				p.Done(now, breaker.Bad, retryAfter)
				continue
			}
			p.Done(now, breaker.Good, 0)
			job, err := b.Acquire(now)
			if err != nil {
				t.Fatal(err)
			}
			job.Done(now, breaker.Bad, 0)
		}
		return all
	}
	const s = time.Second
	for _, c := range []struct {
		pace, retryAfter time.Duration
		want             [5]time.Duration
	}{
		{0, 0, [5]time.Duration{5 * s, 10 * s, 20 * s, 40 * s, 80 * s}},
		{2 * s, 0, [5]time.Duration{5 * s, 2 * s, 2 * s, 2 * s, 10 * s}},
		{2 * s, 30 * s, [5]time.Duration{5 * s, 30 * s, 30 * s, 30 * s, 10 * s}},
		{time.Hour, 0, [5]time.Duration{5 * s, 120 * s, 120 * s, 120 * s, 10 * s}},
	} {
		if got := [5]time.Duration(waits(c.pace, c.retryAfter)); got != c.want {
			t.Errorf("pace %v, Retry-After %v: waits %v, want %v", c.pace, c.retryAfter, got, c.want)
		}
	}
}

// TestReserve_withoutAProberJobsProbe: one that never comes, and one that hangs.
func TestReserve_withoutAProberJobsProbe(t *testing.T) {
	b, now := reserved(t, breaker.Config{}, 0)
	now = now.Add(5 * time.Second)
	n, until := b.Credit(now)
	if want := now.Add(15 * time.Second); n != 0 || until != want {
		t.Fatalf("credit %d until %v, want none until %v", n, until, want)
	}
	if credit(b, until) != 1 {
		t.Fatal("no job may probe in place of a prober that does not come")
	}
	if _, ok := b.Probe(until); ok {
		t.Error("it came too late, and probes")
	}

	b, now = reserved(t, breaker.Config{}, time.Second)
	now = now.Add(5 * time.Second)
	hung, _ := b.Probe(now)
	now = now.Add(15 * time.Second)
	if s := b.Stats(now); s.State != breaker.Open || s.Reason != breaker.ProbeTimeout || s.Until != now.Add(time.Second) {
		t.Fatalf("with a probe that hangs: %+v", s)
	}
	now = now.Add(16 * time.Second)
	b.Credit(now)
	now = now.Add(16 * time.Second)
	if credit(b, now) != 1 {
		t.Error("no job may probe in place of a prober that hangs")
	}
	if hung.Done(now, breaker.Good, 0); b.Stats(now).Proven != 0 {
		t.Error("its late result counts")
	}
}

func TestReserve_anIgnoredProbeIsGivenBack(t *testing.T) {
	b, now := reserved(t, breaker.Config{}, 0)
	now = now.Add(5 * time.Second)
	p, _ := b.Probe(now)
	p.Done(now, breaker.Ignored, 0)
	if due, wanted := b.ProbeDue(now); !wanted || due.After(now) || credit(b, now) != 0 {
		t.Errorf("due at %v (%v), credit %d", due, wanted, credit(b, now))
	}
}

// TestInvariant15 lets jobs and a prober do what they like.
func TestInvariant15_oneReservedProbeAndNoWedge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := roll(t)
		cfg := randomConfig(d).WithDefaults()
		b, now := breaker.New(cfg, nil), time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
		b.Reserve(now, pick(d, 0, time.Second, time.Hour))
		var jobs []breaker.Permit
		var asking breaker.Permit
		var running uint64 // generation in which a probe runs, 0 if none
		for range 150 {
			before := b.Stats(now)
			switch d(7) {
			case 0, 1:
				if p, err := b.Acquire(now); err == nil {
					if before.Reserved {
						t.Fatalf("a job was let through while the probe is reserved: %+v", before)
					}
					jobs = append(jobs, p)
				}
			case 2:
				due, wanted := b.ProbeDue(now)
				p, ok := b.Probe(now)
				if ok != (wanted && !now.Before(due)) || ok && running == before.Generation {
					t.Fatalf("probe %v, due %v (%v), one is running: %v", ok, due, wanted, running == before.Generation)
				}
				if ok {
					asking, running = p, b.Stats(now).Generation
				}
			case 3:
				asking.Done(now, breaker.Verdict(d(4)), pick(d, 0, time.Minute))
				running = 0
			case 4:
				if n := len(jobs); n > 0 {
					jobs[n-1].Done(now, breaker.Verdict(d(4)), 0)
					jobs = jobs[:n-1]
				}
			default:
				now = now.Add(pick(d, time.Millisecond, time.Second, 5*time.Second, 20*time.Second))
			}
			s := b.Stats(now)
			if s.Probes > cfg.HalfOpenConcurrent || s.Probes+s.Proven > cfg.HalfOpenCalls || s.Reserved && credit(b, now) != 0 {
				t.Fatalf("%+v with credit %d", s, credit(b, now))
			}
			if s.State == breaker.Open && s.Until.Sub(now) > cfg.MaxOpenFor {
				t.Fatalf("waits %v", s.Until.Sub(now))
			}
		}
		for range 3 { // nobody comes any more: a lease, a wait, the reservation
			b.Credit(now)
			now = now.Add(max(cfg.MaxOpenFor, cfg.ProbeTimeout))
		}
		if n := credit(b, now); n == 0 {
			t.Fatalf("wedged: %+v", b.Stats(now))
		}
	})
}

// TestReserve_changesNothingElse: closed and overridden breakers know no prober.
func TestReserve_changesNothingElse(t *testing.T) {
	b, now := reserved(t, breaker.Config{}, 0)
	b.Reset(now)
	if _, wanted := b.ProbeDue(now); wanted || credit(b, now) != math.MaxInt {
		t.Error("a closed breaker wants a probe")
	}
	for _, s := range []breaker.State{breaker.ForcedOpen, breaker.Disabled, breaker.MetricsOnly} {
		if err := b.Override(s, 0, "", now); err != nil {
			t.Fatal(err)
		}
		if _, wanted := b.ProbeDue(now); wanted || b.Stats(now).Reserved {
			t.Errorf("%v wants a probe", s)
		}
	}
}

// TestReserve_thePaceIsJittered, or replicas would fall into step.
func TestReserve_thePaceIsJittered(t *testing.T) {
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	b := breaker.New(breaker.Config{ConsecutiveFailures: 1, OpenJitter: 0.2}, nil)
	b.Reserve(now, 10*time.Second)
	p, _ := b.Acquire(now)
	p.Done(now, breaker.Bad, 0)
	seen := map[time.Duration]bool{}
	for i := range 20 {
		wait := b.Stats(now).Until.Sub(now)
		if i > 0 && (wait < 8*time.Second || wait > 10*time.Second) {
			t.Errorf("a wait of %v, want 8 s to 10 s", wait)
		}
		seen[wait] = true
		now = now.Add(wait)
		p, _ := b.Probe(now)
		p.Done(now, breaker.Bad, 0)
	}
	if len(seen) < 15 {
		t.Errorf("only %d waits of 20 differ", len(seen))
	}
}
