package fallback

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// MaxSteps of a chain.
const MaxSteps = 8

// Step is one item of a target's fallback: what is done with a job that the
// target did not do. Exactly one of target, reply, cache, publish and
// dead_letter says what; a plain name is a target.
type Step struct {
	// Target that is called instead, once, under its own breaker, limit and
	// rate. Its own fallback is not followed.
	Target string `yaml:"target" short:"true"`
	// Reply settles the job with a fixed answer, without calling anybody.
	Reply *Reply `yaml:"reply"`
	// Cache settles the job with the last reply the target gave to the same
	// job, if it is not older than this. 1s to 30d.
	Cache time.Duration `yaml:"cache"`
	// Key names the header whose value says which jobs are the same to the
	// cache. Jobs without it are not cached. Default: the subject and the whole
	// payload.
	Key string `yaml:"key"`
	// Publish parks the job: it is published to this subject, which a stream
	// must take up, and is done once the stream has it.
	Publish string `yaml:"publish"`
	// DeadLetter makes a dead letter of the job at once instead of trying it
	// again later.
	DeadLetter bool `yaml:"dead_letter"`
	// On says after what the step is taken: open (the target was not called:
	// breaker open, degraded, silent, warming up after an outage), timeout, failure,
	// throttled, permanent (the target says the job can never succeed).
	// Default: all but permanent.
	On []Cause `yaml:"on"`
	// Timeout of the step, 1ms to 1h. Default: that of the target called, or
	// 5s.
	Timeout time.Duration `yaml:"timeout"`
}

// Reply is a fixed answer.
type Reply struct {
	// Status of the answer, 200 to 599. Default: 200.
	Status int `yaml:"status"`
	// Body of the answer, at most 64KiB. Default: empty.
	Body string `yaml:"body"`
	// ContentType of the body. Default: text/plain, or application/json for a
	// body that begins with { or [.
	ContentType string `yaml:"content_type"`
}

const (
	longestBody    = 64 << 10
	longestAge     = 30 * 24 * time.Hour
	longestTimeout = time.Hour
	longestName    = 128
)

// WithDefaults fills in what was not said, but for the timeout: that of a
// target is not known here.
func (s Step) WithDefaults() Step {
	if s.Reply != nil {
		r := *s.Reply
		r.Status = cmp.Or(r.Status, 200)
		r.ContentType = cmp.Or(r.ContentType, contentType(r.Body))
		s.Reply = &r
	}
	if len(s.On) == 0 {
		s.On = []Cause{Open, Timeout, Failure, Throttled}
	}
	return s
}

func contentType(body string) string {
	if strings.HasPrefix(body, "{") || strings.HasPrefix(body, "[") {
		return "application/json"
	}
	return "text/plain"
}

// Validate reports every problem but those of names and subjects.
func (s Step) Validate(problem func(field, message string)) {
	if n := s.kinds(); n != 1 {
		problem("", fmt.Sprintf("%d of target, reply, cache, publish and dead_letter are given, use exactly one", n))
	}
	if r := s.Reply; r != nil {
		r.validate(func(field, message string) { problem("reply."+field, message) })
	}
	if s.Cache != 0 && (s.Cache < time.Second || s.Cache > longestAge) {
		problem("cache", fmt.Sprintf("%s is not allowed, use 1s to 30d", s.Cache))
	}
	switch {
	case s.Key != "" && s.Cache == 0:
		problem("key", "is the cache's, and there is none")
	case !isHeaderName(s.Key):
		problem("key", fmt.Sprintf("%q is not a header name, use letters, digits and -", s.Key))
	}
	if s.Timeout != 0 && (s.Timeout < time.Millisecond || s.Timeout > longestTimeout) {
		problem("timeout", fmt.Sprintf("%s is not allowed, use 1ms to 1h", s.Timeout))
	}
	for i, c := range s.On {
		if !slices.Contains(Causes(), c) {
			problem(fmt.Sprintf("on[%d]", i), fmt.Sprintf("%q is not allowed, use open, timeout, failure, throttled or permanent", string(c)))
		}
	}
}

func (r Reply) validate(problem func(field, message string)) {
	if r.Status < 200 || r.Status > 599 {
		problem("status", fmt.Sprintf("%d is not allowed, use 200 to 599", r.Status))
	}
	if len(r.Body) > longestBody {
		problem("body", fmt.Sprintf("%d bytes are not allowed, use at most 64KiB", len(r.Body)))
	}
	if len(r.ContentType) > longestName || strings.ContainsFunc(r.ContentType, func(c rune) bool { return c < ' ' || c > '~' }) {
		problem("content_type", fmt.Sprintf("%q is not allowed, use a media type such as application/json", r.ContentType))
	}
}

// isHeaderName is also true of "".
func isHeaderName(s string) bool {
	return len(s) <= longestName && !strings.ContainsFunc(s, func(c rune) bool {
		return !(c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z')
	})
}

// kinds counts what is given; it should be one.
func (s Step) kinds() (n int) {
	for _, given := range []bool{s.Target != "", s.Reply != nil, s.Cache != 0, s.Publish != "", s.DeadLetter} {
		if given {
			n++
		}
	}
	return n
}

// Kind of a step, a label value of workerd_fallbacks_total.
type Kind string

// The kinds.
const (
	Alternate  Kind = "alternate"
	Cached     Kind = "cache"
	Static     Kind = "static"
	Parked     Kind = "publish"
	DeadLetter Kind = "dead_letter"
)

// Kind of a step that is valid.
func (s Step) Kind() Kind {
	switch {
	case s.Target != "":
		return Alternate
	case s.Reply != nil:
		return Static
	case s.Cache != 0:
		return Cached
	case s.Publish != "":
		return Parked
	}
	return DeadLetter
}

// TimeoutOr returns the timeout of the step, or what it is by default.
func (s Step) TimeoutOr(byDefault time.Duration) time.Duration { return cmp.Or(s.Timeout, byDefault) }

// Takes tells whether the step is taken after the cause.
func (s Step) Takes(c Cause) bool { return slices.Contains(s.On, c) }

// Answer is the reply of a static step as data.
func (r Reply) Answer() *job.Reply {
	return &job.Reply{Status: r.Status, ContentType: r.ContentType, Body: []byte(r.Body)}
}
