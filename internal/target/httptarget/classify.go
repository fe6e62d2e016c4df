package httptarget

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/workerd/workerd/internal/job"
)

// Statuses a response can end with; others are malformed (RFC 9110 section 15).
const (
	minStatus = 200
	maxStatus = 599
)

// classifier maps statuses to classes. It is a table so that rules cost
// nothing per call.
type classifier struct {
	classes [maxStatus - minStatus + 1]job.Class
	// ruled statuses mean what a rule says, with Retry-After or without.
	ruled [maxStatus - minStatus + 1]bool
}

// compile makes the table of the defaults and the rules over them. The rules
// must be valid; the first that matches wins.
func compile(rules []Rule) (*classifier, error) {
	c := new(classifier)
	for status := minStatus; status <= maxStatus; status++ {
		c.classes[status-minStatus] = defaultClass(status)
	}
	for i, r := range rules {
		class, ok := r.Class.class()
		if !ok {
			return nil, fmt.Errorf("classify[%d].class: %s", i, r.Class.problem())
		}
		low, high, err := parseStatuses(r.Status)
		if err != nil {
			return nil, fmt.Errorf("classify[%d].status: %w", i, err)
		}
		for status := low; status <= high; status++ {
			if !c.ruled[status-minStatus] {
				c.classes[status-minStatus], c.ruled[status-minStatus] = class, true
			}
		}
	}
	return c, nil
}

// status says what a response means. throttling: it carries a Retry-After
// that can be understood.
func (c *classifier) status(status int, throttling bool) (job.Class, job.Reason) {
	if status < minStatus || status > maxStatus {
		return job.Failure, job.Protocol
	}
	class := c.classes[status-minStatus]
	if status == 503 && throttling && !c.ruled[status-minStatus] {
		class = job.Throttled
	}
	return class, reasonOf(class, status)
}

func reasonOf(class job.Class, status int) job.Reason {
	switch {
	case class == job.Success:
		return job.OK
	case class == job.Throttled:
		return job.StatusThrottled
	case status < 300:
		return job.Status2xx
	case status < 400:
		return job.Status3xx
	case status < 500:
		return job.Status4xx
	default:
		return job.Status5xx
	}
}

// defaultClass is the design's table (section 3.1).
func defaultClass(status int) job.Class {
	switch status {
	case 408, 425, 401, 407: // 401 and 407: our configuration is wrong, not the job
		return job.Failure
	case 409:
		return job.Neutral
	case 429, 529:
		return job.Throttled
	case 501, 505:
		return job.Permanent
	}
	switch {
	case status < 300:
		return job.Success
	case status < 500:
		return job.Permanent
	default:
		return job.Failure
	}
}

// disposition reads the response header Workerd-Disposition. ok is false if
// there is none or its value is unknown; then the status decides.
func disposition(value string) (class job.Class, reason job.Reason, ok bool) {
	if value == "" {
		return 0, "", false
	}
	switch strings.ToLower(strings.TrimSpace(value)) {
	case "ack":
		return job.Success, job.Disposition, true
	case "retry":
		return job.Neutral, job.Disposition, true
	case "dead":
		return job.Permanent, job.Disposition, true
	case "drop":
		return job.Permanent, job.Dropped, true
	}
	return 0, "", false
}

func (r Rule) validate(problem func(field, message string)) {
	if _, _, err := parseStatuses(r.Status); err != nil {
		problem("status", err.Error())
	}
	if _, ok := r.Class.class(); !ok {
		problem("class", r.Class.problem())
	}
}

func (c RuleClass) class() (job.Class, bool) {
	switch c {
	case "success":
		return job.Success, true
	case "failure":
		return job.Failure, true
	case "throttled":
		return job.Throttled, true
	case "permanent":
		return job.Permanent, true
	case "neutral":
		return job.Neutral, true
	}
	return 0, false
}

func (c RuleClass) problem() string {
	return fmt.Sprintf("%q is not allowed, use success, failure, throttled, permanent or neutral", string(c))
}

// parseStatuses reads "409", "4xx" or "500-504".
func parseStatuses(s string) (low, high int, err error) {
	from, to, isRange := strings.Cut(s, "-")
	switch {
	case len(s) == 3 && s[0] >= '2' && s[0] <= '5' && s[1:] == "xx":
		low = int(s[0]-'0') * 100
		return low, low + 99, nil
	case isRange:
		low, high = parseStatus(from), parseStatus(to)
	default:
		low = parseStatus(s)
		high = low
	}
	if low == 0 || high == 0 || low > high {
		return 0, 0, fmt.Errorf("%q is not allowed, use a status (409), a hundred (4xx) or a range (500-504) within 200-599", s)
	}
	return low, high, nil
}

// parseStatus returns 0 for what is no status.
func parseStatus(s string) int {
	status, err := strconv.ParseUint(s, 10, 16)
	if err != nil || len(s) != 3 || status < minStatus || status > maxStatus {
		return 0
	}
	return int(status)
}
