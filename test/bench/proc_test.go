package main

import (
	"os"
	"testing"
	"time"
)

func TestHighWater_isTheLineOfThatName(t *testing.T) {
	for status, want := range map[string]int64{
		"Name:\tx\nVmPeak:\t 99 kB\nVmHWM:\t   27648 kB\nVmRSS:\t 5 kB\n": 27648 << 10,
		"Name:\tx\n":     0,
		"VmHWM:\tmany\n": 0,
	} {
		if got := highWater(status); got != want {
			t.Errorf("%q: got %d, want %d", status, got, want)
		}
	}
}

func TestCPUTime_isUserAndSystemWhateverTheName(t *testing.T) {
	for stat, want := range map[string]time.Duration{
		"7 (a) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 9 9 20 0":       1750 * time.Millisecond,
		"7 (a b) 1 (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 9 9 20": 1750 * time.Millisecond,
		"7 (a) S 1":    0,
		"no such line": 0,
	} {
		if got := cpuTime(stat); got != want {
			t.Errorf("%q: got %s, want %s", stat, got, want)
		}
	}
}

func TestPeakOf_aProcessThatIsGoneIsUnknown(t *testing.T) {
	if got := peakOf(-1); got != 0 {
		t.Errorf("got %d", got)
	}
	if _, err := os.Stat("/proc/self/status"); err == nil && peakOf(os.Getpid()) == 0 {
		t.Error("this process has a size")
	}
}
