package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/admin"
)

// world is a status with a pool that is well and one that need not be.
func world(change func(email *admin.Pool, mail *admin.Target)) admin.Status {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := admin.Status{
		Now: now,
		Pools: []admin.Pool{
			{Name: "email", Target: "mail", State: admin.PoolRunning, Concurrency: 8, InFlight: 4, Jobs: admin.Jobs{OK: 100}},
			{Name: "reports", Target: "pdf", State: admin.PoolRunning, Concurrency: 16, InFlight: 1, Jobs: admin.Jobs{OK: 7}},
		},
		Targets: []admin.Target{{Name: "mail"}, {Name: "pdf"}},
	}
	change(&s.Pools[0], &s.Targets[0])
	return s
}

func well(*admin.Pool, *admin.Target) {}

// broken is what the breaker of mail does to email.
func broken(why string) func(*admin.Pool, *admin.Target) {
	return func(p *admin.Pool, t *admin.Target) {
		p.State, p.HoldReason, p.Why, p.InFlight = admin.PoolHeld, "breaker", why, 0
		p.Until = time.Date(2026, 1, 2, 3, 4, 10, 200e6, time.UTC)
		p.Consumers = []admin.Consumer{{Pending: 3}, {Pending: 4}}
		p.Jobs.Retry, p.Jobs.Dead = 2, 1
		t.Breaker = admin.Breaker{State: admin.BreakerOpen, Reason: "failure_rate"}
	}
}

func viewOf(width int) *view {
	return &view{width: func() int { return width }, said: map[string]string{}, died: map[string]string{}}
}

func TestView_aLineIsWhatASecondBrought(t *testing.T) {
	v := viewOf(0)
	v.second(world(well))
	got := v.second(world(func(p *admin.Pool, _ *admin.Target) {
		p.Jobs = admin.Jobs{OK: 132, Retry: 2, Deferred: 1, Dead: 3}
		p.Consumers = []admin.Consumer{{Pending: 9}}
	}))
	want := "03:04:05  email ████░░░░ 4/8  +32 ok, +2 retry, +1 deferred, +3 dead, 9 left   reports █░░░░░░░  1/16  +0 ok "
	if got != want {
		t.Errorf("%q, want\n%q", got, want)
	}
}

func TestView_whatStandsStillIsExplainedOnce(t *testing.T) {
	v := viewOf(0)
	first := v.second(world(broken("held for 1s: probes in 5s")))
	if want := "email ░░░░░░░░ 0/8  held 6s, +2 retry, +1 dead, 7 left"; !strings.Contains(first, want) {
		t.Errorf("%q does not say %q", first, want)
	}
	if !strings.HasSuffix(first, "\n          email: held for 1s: probes in 5s") {
		t.Errorf("%q does not say why", first)
	}
	if again := v.second(world(broken("held for 2s: probes in 4s"))); strings.Contains(again, "\n") {
		t.Errorf("%q repeats why", again)
	}
	other := v.second(world(func(p *admin.Pool, target *admin.Target) {
		broken("held for 3s: probing")(p, target)
		target.Breaker.State = admin.BreakerHalfOpen
	}))
	if !strings.Contains(other, "email: held for 3s: probing") {
		t.Errorf("%q does not say the new reason", other)
	}
	v.second(world(well))
	if relapse := v.second(world(broken("held for 1s: probes in 5s"))); !strings.Contains(relapse, "email: held") {
		t.Errorf("%q does not say why it stands still again", relapse)
	}
}

func TestView_whyJobsDieIsSaidOnce(t *testing.T) {
	v := viewOf(0)
	s := world(well)
	s.Failures = []admin.Failure{
		{Pool: "email", Outcome: "retry", Error: "HTTP 500"},
		{Pool: "email", Outcome: "dead", Error: "HTTP 422"},
		{Pool: "email", Outcome: "dead", Error: "HTTP 404"},
	}
	if first := v.second(s); !strings.HasSuffix(first, "\n          email: dead letter: HTTP 422") {
		t.Errorf("%q does not say of what the last one died", first)
	}
	if again := v.second(s); strings.Contains(again, "\n") {
		t.Errorf("%q repeats it", again)
	}
}

func TestView_noLineIsLongerThanTheTerminal(t *testing.T) {
	why := "held for 1s: breaker of mail is open (17 of 20 calls failed); probes in 5s; nothing is lost, jobs stay in the stream"
	for _, width := range []int{60, 80, 200} {
		v := viewOf(width)
		text := v.second(world(broken(why))) + "\n" + v.drain(world(well))
		for line := range strings.SplitSeq(text, "\n") {
			if n := utf8.RuneCountInString(line); n > width {
				t.Errorf("%d columns on a terminal of %d: %q", n, width, line)
			}
		}
		if flat := strings.Join(strings.Fields(text), " "); !strings.Contains(flat, why) || !strings.Contains(flat, "reports") {
			t.Errorf("something is missing: %q", text)
		}
	}
}

func TestView_aDrainSaysHowFarItIs(t *testing.T) {
	v := viewOf(0)
	if got, want := v.drain(world(well)), "draining: 5 jobs may finish; Ctrl-C again hands them back"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s := world(well)
	s.Drain = &admin.Drain{Running: 1, HandedBack: 2}
	if got, want := v.second(s), "03:04:05  draining: 1 running, 2 handed back"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := v.last(s), "drained: 107 jobs done, 0 dead letters, 2 handed back"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.Drain.Interrupted = 1
	if got, want := v.last(s), "drained: 107 jobs done, 0 dead letters, 2 handed back (1 of them interrupted)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBar_isEmptyOnlyIfNothingRuns(t *testing.T) {
	got := map[string]string{"4/8": bar(4, 8), "1/1000": bar(1, 1000), "9/8": bar(9, 8), "0/0": bar(0, 0)}
	want := map[string]string{"4/8": "████░░░░", "1/1000": "█░░░░░░░", "9/8": "████████", "0/0": "░░░░░░░░"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
