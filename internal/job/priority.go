package job

import (
	"fmt"
	"strings"
)

// Priority of a job. Smaller is more important.
type Priority uint8

// The priorities, most important first.
const (
	Critical Priority = iota
	High
	Normal
	Low
)

// Priorities is the number of priorities; a Priority indexes an array of it.
const Priorities = 4

func priorityNames() [Priorities]string {
	return [Priorities]string{"critical", "high", "normal", "low"}
}

// String returns the name used in configuration, metrics and headers.
func (p Priority) String() string {
	if int(p) >= Priorities {
		return fmt.Sprintf("priority(%d)", uint8(p))
	}
	return priorityNames()[p]
}

// ParsePriority reads a priority's name. The error says what is allowed.
func ParsePriority(s string) (Priority, error) {
	for i, name := range priorityNames() {
		if s == name {
			return Priority(i), nil
		}
	}
	names := priorityNames()
	return Normal, fmt.Errorf("unknown priority %q: use %s", s, strings.Join(names[:], ", "))
}
