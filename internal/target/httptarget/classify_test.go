package httptarget

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/workerd/workerd/internal/job"
)

func TestClassifier_defaults(t *testing.T) {
	c, err := compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	special := map[int]job.Class{
		401: job.Failure, 407: job.Failure, 408: job.Failure, 409: job.Neutral, 425: job.Failure, 429: job.Throttled,
		501: job.Permanent, 505: job.Permanent, 529: job.Throttled,
	}
	byHundred := map[int]job.Class{2: job.Success, 3: job.Permanent, 4: job.Permanent, 5: job.Failure}
	for status := 200; status < 600; status++ {
		want, ok := special[status]
		if !ok {
			want = byHundred[status/100]
		}
		if got, _ := c.status(status, false); got != want {
			t.Errorf("%d is %s, want %s", status, got, want)
		}
		if status == 503 {
			want = job.Throttled
		}
		if got, _ := c.status(status, true); got != want {
			t.Errorf("%d with Retry-After is %s, want %s", status, got, want)
		}
	}
	for _, status := range []int{-1, 0, 99, 199, 600, 999} {
		if class, reason := c.status(status, true); class != job.Failure || reason != job.Protocol {
			t.Errorf("%d is %s, %s", status, class, reason)
		}
	}
}

func TestClassifier_firstRuleWinsOverDefaults(t *testing.T) {
	c, err := compile([]Rule{
		{"409", "success"}, {"4xx", "neutral"}, {"400-499", "failure"}, {"503", "failure"}, {"204", "permanent"}, {"302", "throttled"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct {
		status int
		class  job.Class
		reason job.Reason
	}{
		{409, job.Success, job.OK},
		{410, job.Neutral, job.Status4xx},
		{429, job.Neutral, job.Status4xx},
		{503, job.Failure, job.Status5xx}, // also with Retry-After
		{204, job.Permanent, job.Status2xx},
		{302, job.Throttled, job.StatusThrottled},
		{500, job.Failure, job.Status5xx},
	} {
		if class, reason := c.status(w.status, true); class != w.class || reason != w.reason {
			t.Errorf("%d is %s, %s, want %s, %s", w.status, class, reason, w.class, w.reason)
		}
	}
}

func TestParseStatuses(t *testing.T) {
	for s, want := range map[string][2]int{
		"409": {409, 409}, "4xx": {400, 499}, "2xx": {200, 299}, "500-504": {500, 504}, "200-599": {200, 599}, "500-500": {500, 500},
	} {
		if low, high, err := parseStatuses(s); err != nil || low != want[0] || high != want[1] {
			t.Errorf("%s is %d to %d, %v", s, low, high, err)
		}
	}
	for _, s := range []string{
		"", "x", "4x", "4xxx", "xxx", "1xx", "6xx", "0xx", "4XX", "40", "4090", "199", "600", "+40", "-", "409-", "-409", "504-500", "400-600",
		"400-450-499", "4xx-5xx", " 409", "0409", "4_0", "４０９",
	} {
		if low, high, err := parseStatuses(s); err == nil {
			t.Errorf("%q is accepted as %d to %d", s, low, high)
		}
	}
}

// FuzzClassifyRules compares the table with the rules read one by one.
func FuzzClassifyRules(f *testing.F) {
	f.Add("409 success,4xx neutral,500-504 throttled", 409)
	f.Add("2xx permanent", 200)
	f.Add(",", 600)
	f.Fuzz(func(t *testing.T, text string, status int) {
		var rules []Rule
		for line := range strings.SplitSeq(text, ",") {
			statuses, class, _ := strings.Cut(line, " ")
			rules = append(rules, Rule{statuses, RuleClass(class)})
		}
		var wrong []string
		Config{Classify: rules}.Validate(func(field, message string) { wrong = append(wrong, field+message) })
		isBad := slices.ContainsFunc(wrong, func(s string) bool { return strings.HasPrefix(s, "classify[") })
		c, err := compile(rules)
		if isBad != (err != nil) {
			t.Fatalf("Validate says %q, compile says %v", wrong, err)
		}
		if err != nil {
			return
		}
		class, reason := c.status(status, false)
		if want := naiveClass(rules, status); class != want || !slices.Contains(job.Reasons(), reason) {
			t.Errorf("%d is %s, %s, want %s", status, class, reason, want)
		}
	})
}

func naiveClass(rules []Rule, status int) job.Class {
	if status < 200 || status > 599 {
		return job.Failure
	}
	for _, r := range rules {
		s := fmt.Sprint(status)
		from, to, isRange := strings.Cut(r.Status, "-")
		if r.Status == s || r.Status == s[:1]+"xx" || isRange && from <= s && s <= to {
			return map[RuleClass]job.Class{
				"success": job.Success, "failure": job.Failure, "throttled": job.Throttled, "permanent": job.Permanent, "neutral": job.Neutral,
			}[r.Class]
		}
	}
	return defaultClass(status)
}
