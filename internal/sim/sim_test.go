package sim

import (
	"context"
	"fmt"
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

// usual is how many jobs are simulated in a layer if SIM_JOBS does not say.
func (l layer) usual() int { return map[layer]int{fakeLayer: 4_000, realLayer: 1_500}[l] }

// costs says to how many jobs with the model one is like.
func (l layer) costs() int { return map[layer]int{fakeLayer: 1, realLayer: 20}[l] }

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
	for _, l := range layers() {
		if only := os.Getenv("SIM_LAYER"); only == "" || only == string(l) {
			t.Run(string(l), func(t *testing.T) { simulate(t, l) })
		}
	}
}

func simulate(t *testing.T, l layer) {
	if only := number(t, "SIM_SEED", 0); only > 0 {
		report(t, scenario(t, l, seed(only)))
		return
	}
	forgetTimers()
	var total tally
	want := number(t, "SIM_JOBS", 0) / l.costs()
	if want == 0 {
		want = l.usual()
	}
	for s := seed(number(t, "SIM_FIRST", 1)); total.jobs < want && !t.Failed(); s++ {
		total.add(scenario(t, l, s))
		forgetTimers()
	}
	report(t, total)
	if l == fakeLayer && total.jobs >= many {
		total.mustHaveSeen(t)
	}
}

func report(t *testing.T, seen tally) {
	t.Helper()
	t.Logf("TALLY jobs=%d calls=%d faults=%d dead=%d twice=%d", seen.jobs, seen.calls, seen.faults, seen.dead, seen.twice)
	var names []string
	for what := range seen.sometimes {
		names = append(names, what)
	}
	slices.Sort(names)
	for _, what := range names {
		t.Logf("%8d %s", seen.sometimes[what], what)
	}
}

// patience with a bubble ends after some real time, unless it is stopped before.
func patience(t *testing.T, what string) (stop func() bool) {
	t.Helper()
	lasts := time.Duration(number(t, "SIM_PATIENCE", 300)) * time.Second
	return time.AfterFunc(lasts, func() {
		panic(fmt.Sprintf("%s: no end after %s; virtual time goes on and nothing comes of it, or stands still while somebody is busy or waits for a lock", what, lasts))
	}).Stop
}

// scenario runs a world in a bubble of its own.
func scenario(t *testing.T, l layer, s seed) (seen tally) {
	dir := t.TempDir()
	defer patience(t, fmt.Sprintf("SIM_SEED=%d SIM_LAYER=%s", s, l))()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l, s, dir)
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
		watching, stop := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() { w.watch(watching) })
		defer watch.Wait()
		defer stop()
		var publishing sync.WaitGroup
		publishing.Go(func() { w.publish(ctx) })
		w.disturb(ctx)
		publishing.Wait()
		w.heal(ctx)
		w.end()
		for _, r := range w.alive() {
			r.drain(30 * time.Second)
		}
		if !t.Failed() { // what is wrong afterwards may be because it was cut short
			seen = w.check(ctx)
		}
		w.broker.stop()
	})
	return seen
}

// forgetTimers empties the pools of the client library, which keeps timers for
// reuse: they must not get from one bubble into another. Pools are empty after
// two collections.
func forgetTimers() {
	runtime.GC()
	runtime.GC()
}
