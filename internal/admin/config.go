package admin

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/workerd/workerd/internal/secret"
)

// Config of the one HTTP listener, for people, probes and Prometheus.
type Config struct {
	// Listen is the address of the listener, host:port or unix:/path. Port 0
	// takes any free one. On a loopback address requests must name a loopback
	// host; on any other everybody who can connect can read. Default:
	// 127.0.0.1:8422.
	Listen string `yaml:"listen"`
	// Token that guarded routes (profiles) ask for as a bearer token, 16
	// characters or more. Without one they answer on a loopback address and
	// on a unix socket only. The page, health and metrics need none.
	// Default: none.
	Token secret.Secret `yaml:"token"`
	// Pprof serves Go's profiles under /debug/pprof/, guarded. They show
	// function names and, in goroutine dumps, pool names; no payloads.
	// Default: false.
	Pprof bool `yaml:"pprof"`
}

// DefaultListen is the address if none is configured.
const DefaultListen = "127.0.0.1:8422"

// unixPrefix marks the path of a unix socket.
const unixPrefix = "unix:"

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
	if message := checkAddress(c.Listen); message != "" {
		problem("listen", message)
	} else if c.Pprof && c.Token == "" && !c.Local() {
		problem("pprof", fmt.Sprintf("profiles on %s need a token; set token, or listen on 127.0.0.1", c.Listen))
	}
	if n := len(c.Token.Reveal()); n > 0 && n < minToken {
		problem("token", fmt.Sprintf("a token of %d characters is not allowed, use %d or more", n, minToken))
	}
}

// Local tells whether only this machine can reach the listener.
func (c Config) Local() bool {
	if strings.HasPrefix(c.Listen, unixPrefix) {
		return true
	}
	host, _, _ := net.SplitHostPort(c.Listen)
	return isLoopbackName(host)
}

// checkAddress says what is wrong with an address, "" if nothing is.
func checkAddress(address string) string {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		if path == "" {
			return "unix: needs the path of a socket, as in unix:/run/workerd/admin.sock"
		}
		return ""
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Sprintf("%q is not an address, use host:port or unix:/path, for example %s", address, DefaultListen)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Sprintf("port %q is not allowed, use 0 to %d", port, 1<<16-1)
	}
	return ""
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

// isLocal tells whether only this machine can reach an address.
func isLocal(a net.Addr) bool {
	if a.Network() == "unix" {
		return true
	}
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
