package job_test

import (
	"regexp"
	"testing"

	"github.com/workerd/workerd/internal/job"
)

func TestPriority_readsBack(t *testing.T) {
	for p := range job.Priority(job.Priorities) {
		if got, err := job.ParsePriority(p.String()); err != nil || got != p {
			t.Errorf("%s reads back as %v, %v", p, got, err)
		}
	}
	if _, err := job.ParsePriority("urgent"); err == nil {
		t.Error("urgent is taken for a priority")
	}
}

// TestWords_areLabels: metrics, pages and queries by users depend on them.
func TestWords_areLabels(t *testing.T) {
	label := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	check := func(kind string, words []string) {
		seen := map[string]bool{}
		for _, w := range words {
			if !label.MatchString(w) || seen[w] {
				t.Errorf("%s %q is no label, or not the only one", kind, w)
			}
			seen[w] = true
		}
	}
	var reasons, actions, classes, verbs []string
	for _, r := range job.Reasons() {
		reasons = append(reasons, string(r))
	}
	for _, a := range append(job.Actions(), job.Park) {
		actions = append(actions, a.String())
	}
	for c := job.Success; c <= job.Panicked; c++ {
		classes = append(classes, c.String())
	}
	for v := job.Ack; v <= job.Term; v++ {
		verbs = append(verbs, v.String())
	}
	check("reason", reasons)
	check("action", actions)
	check("class", classes)
	check("verb", verbs)
}

func TestHeader_isReadInAnyCase(t *testing.T) {
	h := job.Header{"workerd-ttl": {"1s", "2s"}, "Empty": {}, "Exact": {"a"}, "exact": {"b"}}
	for key, want := range map[string]string{"Workerd-TTL": "1s", "WORKERD-TTL": "1s", "Exact": "a", "exact": "b", "Empty": "", "None": ""} {
		if got := h.Get(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if got := job.Header(nil).Get("x"); got != "" {
		t.Errorf("a job without header has %q", got)
	}
}

func TestRecord_onlyRunsThatLeftAMarkAreCrashes(t *testing.T) {
	for _, c := range []struct {
		deliveries int
		record     job.Record
		want       int
	}{
		{1, job.Record{}, 0},
		{5, job.Record{Attempts: 2, Deferrals: 2}, 0},             // all accounted for
		{9, job.Record{}, 0},                                      // never reached anybody, as far as is known
		{2, job.Record{Started: 1}, 1},                            // the suspect is run: if it was one, it is one
		{4, job.Record{Started: 3}, 3},                            // died three times
		{3, job.Record{Started: 3}, 2},                            // never more than there were deliveries
		{6, job.Record{Attempts: 2, Deferrals: 1, Started: 9}, 2}, // with others between them
	} {
		if got := c.record.Crashes(c.deliveries); got != c.want {
			t.Errorf("%d deliveries, %+v: %d crashes, want %d", c.deliveries, c.record, got, c.want)
		}
	}
}

func TestKey_isTheIdentityInTheBroker(t *testing.T) {
	j := job.Job{Stream: "JOBS", Sequence: 42}
	if j.Key() != "JOBS:42" {
		t.Errorf("got %s", j.Key())
	}
}
