package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// userHz is the unit of CPU times in /proc, the same on every Linux that Go
// runs on (proc(5), sysconf(_SC_CLK_TCK)).
const userHz = 100

// peakOf is the largest resident size a running process has had, in bytes. 0:
// not known, as on systems without /proc.
func peakOf(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	return highWater(string(text))
}

// highWater finds the line `VmHWM:	   27648 kB`.
func highWater(status string) int64 {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// cpuOf is the CPU time a running process has used. 0: not known.
func cpuOf(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	return cpuTime(string(text))
}

// cpuTime adds fields 14 and 15, user and system time. The second field is a
// name in parentheses that may hold anything.
func cpuTime(stat string) time.Duration {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	const user, system = 14 - 3, 15 - 3 // field 3 comes first
	if end < 0 || len(fields) <= system {
		return 0
	}
	u, _ := strconv.ParseInt(fields[user], 10, 64)
	s, _ := strconv.ParseInt(fields[system], 10, 64)
	return time.Duration(u+s) * (time.Second / userHz)
}
