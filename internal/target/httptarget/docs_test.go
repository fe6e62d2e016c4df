package httptarget

import (
	"os"
	"strings"
	"testing"

	"github.com/workerd/workerd/internal/job"
)

// TestDocs_classesAreWhatTheTableSays reads the table of docs/resilience.md and
// compares it with the code, for every status.
func TestDocs_classesAreWhatTheTableSays(t *testing.T) {
	text, err := os.ReadFile("../../../docs/resilience.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| status | class |\n|---|---|\n")
	if !ok {
		t.Fatal("the page has no table of statuses")
	}
	page, single := map[int]string{}, map[int]bool{}
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		statuses, class, _ := strings.Cut(strings.Trim(line, "| \n"), " | ")
		for s := range strings.SplitSeq(statuses, ", ") {
			low, high, err := parseStatuses(s)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			for status := low; status <= high; status++ { // one of its own beats its hundred
				if !single[status] || low == high {
					page[status], single[status] = class, low == high
				}
			}
		}
	}
	defaults, err := compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	for status := minStatus; status <= maxStatus; status++ {
		if class, _ := defaults.status(status, false); page[status] != class.String() {
			t.Errorf("%d: the page says %q, the code %q", status, page[status], class)
		}
		want, _ := defaults.status(status, false)
		if status == 503 {
			want = job.Throttled
		}
		if class, _ := defaults.status(status, true); class != want {
			t.Errorf("%d with Retry-After is %s, and the page speaks of 503 only", status, class)
		}
	}
}
