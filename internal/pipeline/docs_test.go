package pipeline

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/breaker"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/limiter"
	"github.com/workerd/workerd/internal/retry"
)

// TestDocs_whoPaysIsWhatTheTableSays reads the table of docs/resilience.md and
// compares it with the code, row by row.
func TestDocs_whoPaysIsWhatTheTableSays(t *testing.T) {
	page := classRows(t)
	classes := []job.Class{job.Success, job.Failure, job.Timeout, job.Throttled, job.Permanent, job.Neutral, job.Ignored, job.Rejected, job.Panicked}
	if len(page) != len(classes) {
		t.Errorf("the page has %d classes, want %d", len(page), len(classes))
	}
	for _, c := range classes {
		says, ok := page[c.String()]
		if !ok {
			t.Errorf("the page has no %s", c)
			continue
		}
		is := row(c)
		verdict := map[breaker.Verdict]string{breaker.Good: "good", breaker.Bad: "bad", breaker.Throttled: "throttled", breaker.Ignored: "nothing"}[is.breaker]
		load := map[limiter.Load]string{limiter.Answered: "answered", limiter.Failed: "failed", limiter.TimedOut: "timed out", limiter.Throttled: "throttled", limiter.Ignored: "nothing", limiter.Replied: "replied"}[is.load]
		again := map[bool]string{true: "yes", false: "no"}[is.again]
		for i, want := range []string{verdict, load, again, payment(is.charged, c)} {
			if got := says[i]; got != want && !(i == 3 && strings.Contains(got, want)) {
				t.Errorf("%s: the page says %q, the code %q", c, got, want)
			}
		}
	}
}

// payment is what the page has to say of the job, by what becomes of it at its
// first attempt.
func payment(charged bool, c job.Class) string {
	out := rules().Judge(Attempt{Last: job.Result{Class: c}, Stop: stopOf(c)}, time.Time{}, 0)
	switch {
	case out.Action == job.Done:
		return "is done"
	case out.Action == job.DeadLetter:
		return "becomes a dead letter"
	case charged && out.Charged:
		return "pays one attempt"
	case !charged && !out.Charged:
		return "pays nothing"
	}
	return "is charged by one table and not by the other"
}

func stopOf(c job.Class) (none retry.Stop) {
	if c == job.Ignored {
		return retry.Cancelled
	}
	return none
}

// classRows are the cells after the class, by class.
func classRows(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/resilience.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| class | breaker | limit | again at once | the job |\n|---|---|---|---|---|\n")
	if !ok {
		t.Fatal("the page has no table of classes")
	}
	rows := map[string][]string{}
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|\n"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		if len(cells) != 5 {
			t.Fatalf("%d cells: %s", len(cells), line)
		}
		rows[cells[0]] = cells[1:]
	}
	return rows
}
