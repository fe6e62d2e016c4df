package httptarget

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Defaults and bounds of [Config].
const (
	defaultMaxResponse   = 1 << 20
	largestMaxResponse   = 1 << 30
	defaultMaxRetryAfter = 5 * time.Minute
	largestMaxRetryAfter = 24 * time.Hour
	defaultMaxIdleConns  = 64
)

// Config of an HTTP target.
type Config struct {
	// URL that is called for every job: absolute, http or https. It is used
	// as written, so nothing a job says can change where it goes. A user name
	// or password is refused here; send it in headers. Required.
	URL string `yaml:"url"`
	// Method of the request. CONNECT and TRACE are not allowed. Default POST.
	Method string `yaml:"method"`
	// Headers sent with every request. They win over whatever a job or
	// workerd would put there (Content-Type, User-Agent). Values may hold
	// secrets; they are never printed. Headers that frame the request or that
	// workerd owns (Host, Content-Length, Workerd-*, …) are not allowed.
	Headers map[string]string `yaml:"headers"`
	// ForwardHeaders names the job's headers that are passed on, compared
	// case-insensitively; a trailing * takes all that begin so, as in ce-*.
	// Content-Type, traceparent and tracestate are passed on anyway. A job
	// whose value is not fit for HTTP is not sent at all but fails for good.
	// Headers that frame the request or carry credentials are not allowed.
	ForwardHeaders []string `yaml:"forward_headers"`
	// MaxResponse is the largest response body that is read. A success with
	// more is a permanent failure; on any response with more the connection
	// is closed. Default 1MiB, at most 1GiB.
	MaxResponse int64 `yaml:"max_response" unit:"size"`
	// MaxIdleConns is how many connections are kept open while unused.
	// Fewer than calls at once means dialling again and again. Default 0: the
	// concurrency of the pools using the target.
	MaxIdleConns int `yaml:"max_idle_conns"`
	// MaxRetryAfter caps what the target may ask for by Retry-After. Default
	// 5m, at least 1s, at most 24h.
	MaxRetryAfter time.Duration `yaml:"max_retry_after"`
	// Classify says what statuses mean where the defaults do not fit. The
	// first rule that matches wins. Default: 2xx success; 408, 425 and 5xx
	// failure; 429, 529 and 503 with Retry-After throttled; 401 and 407
	// failure; 409 neutral; 3xx, 501, 505 and other 4xx permanent.
	Classify []Rule `yaml:"classify"`
}

// Rule gives statuses a class of their own.
type Rule struct {
	// Status is one status ("409"), a hundred ("4xx") or a range ("500-504"),
	// within 200-599. Required.
	Status string `yaml:"status"`
	// Class for these statuses: success, failure (the target could not do
	// it), throttled (it asked for less), permanent (the job can never
	// succeed) or neutral (try again, the target is well). Required.
	Class RuleClass `yaml:"class"`
}

// RuleClass is success, failure, throttled, permanent or neutral.
type RuleClass string

// WithDefaults returns the config with every zero replaced by its default.
// MaxIdleConns stays 0 for the caller to fill in.
func (c Config) WithDefaults() Config {
	c.Method = cmp.Or(c.Method, http.MethodPost)
	c.MaxResponse = cmp.Or(c.MaxResponse, defaultMaxResponse)
	c.MaxRetryAfter = cmp.Or(c.MaxRetryAfter, defaultMaxRetryAfter)
	return c
}

// Validate reports every problem of a config that has its defaults. It never
// prints a header's value, nor the query of the URL.
func (c Config) Validate(problem func(field, message string)) {
	if message := checkURL(c.URL); message != "" {
		problem("url", message)
	}
	if !isToken(c.Method) || c.Method == http.MethodConnect || c.Method == http.MethodTrace {
		problem("method", fmt.Sprintf("%q is not allowed, use an HTTP method such as POST or PUT", c.Method))
	}
	c.validateHeaders(problem)
	c.validateForward(problem)
	c.validateLimits(problem)
	for i, r := range c.Classify {
		r.validate(func(field, message string) { problem(fmt.Sprintf("classify[%d].%s", i, field), message) })
	}
}

func (c Config) validateHeaders(problem func(field, message string)) {
	seen := make(map[string]string, len(c.Headers))
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		field := "headers." + name
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case !isToken(name):
			problem(field, fmt.Sprintf("%q is not a header name, use letters, digits and -", name))
		case isReserved(canonical):
			problem(field, "is set by workerd or by the connection and cannot be fixed here")
		case seen[canonical] != "":
			problem(field, fmt.Sprintf("is the same header as %s, keep one", seen[canonical]))
		case !isValue(c.Headers[name]):
			problem(field, "the value has a line break or another control character, which HTTP does not allow")
		}
		seen[canonical] = name
	}
}

func (c Config) validateForward(problem func(field, message string)) {
	for i, name := range c.ForwardHeaders {
		field := fmt.Sprintf("forward_headers[%d]", i)
		stem, _ := strings.CutSuffix(name, "*")
		switch {
		case !isToken(stem) || strings.Contains(stem, "*"):
			problem(field, fmt.Sprintf("%q is not a header name, use a name or its beginning with a *, as in ce-*", name))
		case stem != name:
			// Whatever is denied stays denied behind a *.
		case isDenied(textproto.CanonicalMIMEHeaderKey(name)):
			problem(field, fmt.Sprintf("%s cannot be taken from a job, use headers if every call shall carry it", name))
		case c.fixes(name):
			problem(field, fmt.Sprintf("%s has a fixed value in headers, remove one of the two", name))
		}
	}
}

func (c Config) fixes(name string) bool {
	for fixed := range c.Headers {
		if strings.EqualFold(fixed, name) {
			return true
		}
	}
	return false
}

func (c Config) validateLimits(problem func(field, message string)) {
	if c.MaxResponse < 1 || c.MaxResponse > largestMaxResponse {
		problem("max_response", fmt.Sprintf("%d bytes is not allowed, use 1B to 1GiB", c.MaxResponse))
	}
	if c.MaxIdleConns < 0 {
		problem("max_idle_conns", fmt.Sprintf("%d is not allowed, use 0 (the concurrency of the pools) or more", c.MaxIdleConns))
	}
	if c.MaxRetryAfter < time.Second || c.MaxRetryAfter > largestMaxRetryAfter {
		problem("max_retry_after", fmt.Sprintf("%s is not allowed, use 1s to 24h", c.MaxRetryAfter))
	}
}

// checkURL returns what is wrong with a target's URL, or "".
func checkURL(raw string) string {
	if raw == "" {
		return "is required, for example http://127.0.0.1:8080/jobs"
	}
	if strings.ContainsAny(raw, "{}") {
		return "placeholders are not allowed, a target has one fixed URL"
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return "is not a URL, use for example http://127.0.0.1:8080/jobs"
	case u.Scheme != "http" && u.Scheme != "https":
		return "is not allowed, use an absolute URL that begins with http:// or https://"
	case u.User != nil:
		return "must not hold a user name or password, use headers.Authorization"
	case u.Hostname() == "" || u.Opaque != "":
		return "names no host, use for example http://127.0.0.1:8080/jobs"
	case u.Fragment != "":
		return "must not hold a #fragment, it would never be sent"
	}
	return checkPort(u)
}

func checkPort(u *url.URL) string {
	_, _, colon := strings.Cut(u.Host[strings.LastIndexByte(u.Host, ']')+1:], ":")
	if !colon {
		return ""
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		return fmt.Sprintf("port %q is not allowed, use 1 to 65535", u.Port())
	}
	return ""
}
