package app

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/shutdown"
)

// TestPhases_timeoutIsThatOfTheWholeDrain: a supervisor counts from the signal,
// so what stopping takes (a broker that does not answer) draining has not.
func TestPhases_timeoutIsThatOfTheWholeDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &App{cfg: &config.File{Drain: config.DrainConfig{Timeout: 25 * time.Second, FlushTimeout: 3 * time.Second, PreStopDelay: 5 * time.Second}}}
		a.phase.Store(&phase{})
		began := time.Now()
		phases := a.phases(run{pools: make(chan struct{}), stopFetching: func() {}})
		time.Sleep(5*time.Second + stopTimeout)
		err := shutdown.Run(t.Context(), phases[2:3], func(shutdown.Report) {})
		if took := time.Since(began); err != nil || took != 27*time.Second {
			t.Errorf("drain has ended with %v after %s, want 5s before, and 3s before the end of 25s", err, took)
		}
	})
}

// TestPhases_areTheNamesOfTheMetrics, in their order.
func TestPhases_areTheNamesOfTheMetrics(t *testing.T) {
	a := &App{cfg: &config.File{}}
	var names []string
	for _, p := range a.phases(run{}) {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, phaseNames()) {
		t.Errorf("phases %v, names %v", names, phaseNames())
	}
}

func TestPhases_hurryCutsShortOnlyWhatWaits(t *testing.T) {
	a := &App{cfg: &config.File{}}
	for _, p := range a.phases(run{}) {
		if want := p.Name == "announce" || p.Name == "drain"; p.Waits != want {
			t.Errorf("%s: waits is %v; a hurry must not leave jobs unsettled", p.Name, p.Waits)
		}
	}
}
