package httptarget

import "strings"

// maxName bounds how much of a strange header name is printed.
const maxName = 64

// isReserved reports headers that nobody but workerd and net/http sets: those
// that frame the request or steer the connection, and our own. name is canonical.
func isReserved(name string) bool {
	switch name {
	case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "Te", "Trailer",
		"Expect", "Http2-Settings", keyHeader, "X-" + keyHeader:
		return true
	}
	return hasAnyPrefix(name, "Proxy-", "Nats-", "Workerd-")
}

// isDenied reports headers that a job must not set: the reserved ones and
// those by which one is recognised and trusted. name is canonical.
func isDenied(name string) bool {
	switch name {
	case "Cookie", "Cookie2", "Set-Cookie", "Authorization", "Forwarded", "Via", "X-Real-Ip", "User-Agent":
		return true
	}
	return isReserved(name) || hasAnyPrefix(name, "X-Forwarded-")
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// isToken reports whether s is a token (RFC 9110 section 5.6.2), as header
// names and methods must be.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		isAlnum := c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
		if !isAlnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// isValue reports whether s may be a header's value: any byte but control
// characters other than tab, by the same rule as net/http.
func isValue(s string) bool {
	for i := range len(s) {
		if isControl(s[i]) {
			return false
		}
	}
	return true
}

func isControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }
