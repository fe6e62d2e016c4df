package admin

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/workerd/workerd/internal/secret"
)

// Config of the admin listener.
type Config struct {
	// Listen is the address of the listener, as host:port. Port 0 takes any
	// free one. On a loopback address requests must name a loopback host; on
	// any other address everybody who can connect can read. Default:
	// 127.0.0.1:8422.
	Listen string `yaml:"listen"`
	// Token that guarded routes ask for as a bearer token, 16 characters or
	// more. Without one they answer on loopback addresses only. The page,
	// health and metrics need none. Default: none.
	Token secret.Secret `yaml:"token"`
	// Pprof serves Go's profiles under /debug/pprof/, guarded. They show
	// function names and, in goroutine dumps, pool names; no payloads.
	// Default: false.
	Pprof bool `yaml:"pprof"`
}

// DefaultListen is the address if none is configured.
const DefaultListen = "127.0.0.1:8422"

// minToken is the shortest token allowed, in bytes.
const minToken = 16

// WithDefaults fills in what was not said.
func (c Config) WithDefaults() Config {
	if c.Listen == "" {
		c.Listen = DefaultListen
	}
	return c
}

// Validate reports every problem.
func (c Config) Validate(problem func(field, message string)) {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		problem("listen", fmt.Sprintf("%q is not allowed, use host:port, for example %s", c.Listen, DefaultListen))
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		problem("listen", fmt.Sprintf("port %q is not allowed, use 0 to %d", port, 1<<16-1))
	} else if c.Pprof && c.Token == "" && !isLoopbackName(host) {
		problem("pprof", fmt.Sprintf("profiles on %s need a token; set token, or listen on 127.0.0.1", c.Listen))
	}
	if n := len(c.Token.Reveal()); n > 0 && n < minToken {
		problem("token", fmt.Sprintf("a token of %d characters is not allowed, use %d or more", n, minToken))
	}
}

// isLoopbackName tells whether a host, without port, can only mean this
// machine: localhost, names below it (RFC 6761, section 6.3), 127.0.0.0/8, ::1.
func isLoopbackName(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return err == nil && ip.Unmap().IsLoopback()
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
