package sim

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
)

// usual is how many jobs are simulated if SIM_JOBS does not say.
const usual = 6_000

// many jobs are enough for everything to happen that happens sometimes.
const many = 100_000

func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	v := os.Getenv(variable)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s=%q is no number", variable, v)
	}
	return n
}

// TestSim_nothingIsLostAndWhatIsDoneTwiceIsExplained runs one scenario after
// the other, from seed SIM_FIRST on. Two at once need two processes.
func TestSim_nothingIsLostAndWhatIsDoneTwiceIsExplained(t *testing.T) {
	// The only thing in the broker that would keep time in a bubble from
	// moving: a channel of its own package. Outside it is out of the way.
	ats.Register()
	t.Cleanup(ats.Unregister)
	if only := number(t, "SIM_SEED", 0); only > 0 {
		report(t, scenario(t, seed(only)))
		return
	}
	var total tally
	for s := seed(number(t, "SIM_FIRST", 1)); total.jobs < number(t, "SIM_JOBS", usual) && !t.Failed(); s++ {
		total.add(scenario(t, s))
		// The client library keeps timers for reuse, which must not get from one
		// bubble into another. Pools are empty after two collections.
		runtime.GC()
		runtime.GC()
	}
	report(t, total)
	if total.jobs >= many {
		total.mustHaveSeen(t)
	}
}

// mustHaveSeen fails if something did not happen even once: a fault that is
// never met is not survived.
func (t tally) mustHaveSeen(test *testing.T) {
	for _, what := range []string{
		"fault: broker restart", "fault: consumer deleted", "fault: crash", "fault: cut", "fault: drain", "fault: hang", "fault: outage",
		"fault: silence", "fault: incomplete drain", "fault: dead letters full", "outcome: dead_letter_unavailable", "outcome: ok", "outcome: panic", "outcome: released", "outcome: interrupted", "outcome: lease_lost", "outcome: max_attempts",
		"outcome: status_4xx", "outcome: status_5xx", "outcome: throttled", "outcome: timeout", "done twice, explained", "redelivered",
		"redelivery of what is in hand or finished", "settlement sent again", "settlement given up", "pull requests given up",
	} {
		if t.sometimes[what] == 0 {
			test.Errorf("%q did not happen in %d jobs", what, t.jobs)
		}
	}
}

func report(t *testing.T, seen tally) {
	t.Helper()
	t.Logf("%d jobs, %d calls, %d faults, %d dead letters, %d done twice and explained", seen.jobs, seen.calls, seen.faults, seen.dead, seen.twice)
	var names []string
	for what := range seen.sometimes {
		names = append(names, what)
	}
	slices.Sort(names)
	for _, what := range names {
		t.Logf("%8d %s", seen.sometimes[what], what)
	}
}

// scenario runs a world in a bubble of its own.
func scenario(t *testing.T, s seed) (seen tally) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, s, dir)
		defer func() {
			if t.Failed() {
				t.Logf("SIM_SEED=%d %+v\n%s", s, w.shape, w.history.String())
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		for range w.shape.replicas {
			w.startReplica()
		}
		var publishing sync.WaitGroup
		publishing.Go(func() { w.publish(ctx) })
		w.disturb(ctx)
		publishing.Wait()
		w.heal(ctx)
		for _, r := range w.alive() {
			r.drain(30 * time.Second)
		}
		seen = w.check(ctx)
		w.broker.stop()
	})
	return seen
}
