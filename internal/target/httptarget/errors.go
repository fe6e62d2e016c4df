package httptarget

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/workerd/workerd/internal/job"
)

const (
	// maxBodyText is how much of a response body an error shows.
	maxBodyText = 200
	// maxErrorText bounds other texts; a malformed answer is quoted in them.
	maxErrorText = 400
	// minSecret is the length from which a part of a fixed header's value is
	// struck out of error texts; shorter ones would strike out half a sentence.
	minSecret = 6
	// probeSecret is the length from which a beginning gives a secret away.
	probeSecret = 16
	redacted    = "***"
)

// callError is an error whose text is fit for logs and headers: one line,
// bounded, without secrets.
type callError struct {
	text  string
	cause error
}

func (e *callError) Error() string { return e.text }
func (e *callError) Unwrap() error { return e.cause }

// errTooLarge: the body goes on beyond max_response.
var errTooLarge = errors.New("response is larger than max_response")

// handshakeError marks what went wrong between dialling and HTTP; crypto/tls
// has no common type for it.
type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }

// networkReason says why there is no whole answer, and whether a second call
// at once is pointless.
func networkReason(err error) (reason job.Reason, noRetry bool) {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return job.DNS, dns.IsNotFound
	}
	if _, ok := errors.AsType[handshakeError](err); ok {
		return job.TLS, true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		switch op.Op {
		case "dial":
			return job.Connect, false
		case "remote error", "local error": // TLS alerts, which may come after the handshake
			return job.TLS, true
		}
		return job.Reset, false
	}
	if isReset(err) {
		return job.Reset, false
	}
	return job.Protocol, false
}

func isReset(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED} {
		if errors.Is(err, end) {
			return true
		}
	}
	// net/http gives this one neither a name nor a type. Taking it for
	// another reason would change a label, nothing else.
	return err.Error() == "http: server closed idle connection"
}

// isTLSFailure tells a handshake that was refused from one that was cut off.
func isTLSFailure(err error) bool {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	reason, _ := networkReason(err)
	return reason != job.Reset && reason != job.Connect
}

// redactor strikes secrets out of texts that a target may have echoed.
type redactor []string

// newRedactor takes the values of the fixed headers for secrets, whole and in
// parts ("Bearer <token>"), except those that never are.
func newRedactor(fixed map[string]string) redactor {
	var secrets redactor
	for name, value := range fixed {
		switch http.CanonicalHeaderKey(name) {
		case "Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "Content-Encoding", "User-Agent":
			continue
		}
		for _, part := range append(strings.Fields(value), value) {
			if len(part) >= minSecret {
				secrets = append(secrets, part)
			}
		}
	}
	// The longest first, as one may be part of another.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	return secrets
}

// redact replaces every secret, also one whose end was cut off with the text.
func (r redactor) redact(s string) string {
	for _, secret := range r {
		probe := secret[:min(len(secret), probeSecret)]
		for from := 0; ; {
			at := strings.Index(s[from:], probe)
			if at < 0 {
				break
			}
			at += from
			end := at + len(probe)
			for end < len(s) && end-at < len(secret) && s[end] == secret[end-at] {
				end++
			}
			s = s[:at] + redacted + s[end:]
			from = at + len(redacted)
		}
	}
	return s
}

// networkError describes a call that got no whole answer.
func (t *Target) networkError(err error) error {
	return &callError{text: "call " + t.host + ": " + clean(t.secrets.redact(err.Error()), maxErrorText), cause: err}
}

// statusError describes an answer that was not a success.
func (t *Target) statusError(status int, disposition string, body []byte) error {
	said := ""
	if disposition != "" {
		said = fmt.Sprintf(" (%s %s)", job.HeaderDisposition, clean(disposition, maxName))
	}
	text := clean(t.secrets.redact(string(body)), maxBodyText)
	return &callError{text: fmt.Sprintf("HTTP %d from %s%s: \"%s\"", status, t.host, said, text)}
}

// clean returns at most limit bytes of s as one line of valid, visible UTF-8.
func clean(s string, limit int) string {
	out := make([]byte, 0, min(len(s), limit))
	for _, r := range s {
		switch {
		case r == utf8.RuneError:
			continue
		case unicode.IsSpace(r):
			r = ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r): // Cf: bidi marks and the like
			continue
		}
		if len(out)+utf8.RuneLen(r) > limit {
			break
		}
		out = utf8.AppendRune(out, r)
	}
	return strings.TrimSpace(string(out))
}
