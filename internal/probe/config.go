package probe

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Config of a target's probe.
type Config struct {
	// Path that is asked for with GET, on the host of the target and with its
	// fixed headers: absolute, with a query if need be. Only a 2xx answer is
	// good. Required; `probe: /healthz` is short for it.
	Path string `yaml:"path" short:"true"`
	// Interval at which the target is asked as long as it does not answer, less
	// the breaker's open_jitter, 500ms up to the breaker's max_open_for. Default:
	// that of degrade_when if it counts health checks, else 0: after the growing
	// waits of the breaker.
	Interval time.Duration `yaml:"interval"`
	// Timeout of one probe, 10ms up to the breaker's probe_timeout. Default: 5s,
	// or the target's timeout if that is less.
	Timeout time.Duration `yaml:"timeout"`
}

// defaultTimeout of a probe.
const defaultTimeout = 5 * time.Second

// WithDefaults fills in what was not said, for a target that is given so long.
func (c Config) WithDefaults(targetTimeout time.Duration) Config {
	if c.Timeout == 0 {
		c.Timeout = max(shortest, min(defaultTimeout, targetTimeout))
	}
	return c
}

// Bounds.
const (
	shortest      = 10 * time.Millisecond
	fastest       = 500 * time.Millisecond
	longestPath   = 1024
	pathWanted    = "use an absolute path such as /healthz"
	pathForbidden = `\{}#`
)

// Validate reports every problem of a config with its defaults filled in, for a
// breaker that stays open and waits for a probe no longer than this.
func (c Config) Validate(maxOpenFor, probeTimeout time.Duration, problem func(field, message string)) {
	if message := checkPath(c.Path); message != "" {
		problem("path", message)
	}
	if c.Interval != 0 && (c.Interval < fastest || c.Interval > maxOpenFor) {
		problem("interval", fmt.Sprintf("%v is not allowed, use %v to %v (breaker.max_open_for), or 0 for the waits of the breaker", c.Interval, fastest, maxOpenFor))
	}
	if c.Timeout < shortest || c.Timeout > probeTimeout {
		problem("timeout", fmt.Sprintf("%v is not allowed, use %v to %v (breaker.probe_timeout)", c.Timeout, shortest, probeTimeout))
	}
}

// checkPath returns what is wrong with a path, or "".
func checkPath(path string) string {
	switch {
	case path == "":
		return "is required, for example /healthz"
	case len(path) > longestPath:
		return fmt.Sprintf("%d bytes are not allowed, use at most %d", len(path), longestPath)
	case strings.Contains(path, "://"):
		return fmt.Sprintf("%q is not allowed, the host is that of http.url; %s", path, pathWanted)
	case path[0] != '/' || strings.HasPrefix(path, "//"), strings.ContainsAny(path, pathForbidden), strings.ContainsFunc(path, isNotInPath):
		return fmt.Sprintf("%q is not allowed, %s", path, pathWanted)
	}
	if _, err := url.ParseRequestURI(path); err != nil {
		return fmt.Sprintf("%q is not allowed, %s", path, pathWanted)
	}
	return ""
}

func isNotInPath(r rune) bool { return r <= ' ' || r > '~' }
