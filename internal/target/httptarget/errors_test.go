package httptarget

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/workerd/workerd/internal/job"
)

func TestNetworkReason(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	read := func(err error) error {
		return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", err)}
	}
	for _, c := range []struct {
		err     error
		reason  job.Reason
		noRetry bool
	}{
		{dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), job.Connect, false},
		{dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), job.Connect, false},
		{dial(os.NewSyscallError("socket", syscall.EMFILE)), job.Connect, false},
		{dial(&net.DNSError{Err: "no such host", IsNotFound: true}), job.DNS, true},
		{dial(&net.DNSError{Err: "server misbehaving", IsTemporary: true}), job.DNS, false},
		{handshakeError{&tls.CertificateVerificationError{Err: x509.HostnameError{}}}, job.TLS, true},
		{fmt.Errorf("x: %w", &net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}), job.TLS, true},
		{read(syscall.ECONNRESET), job.Reset, false},
		{fmt.Errorf("broken: %w", read(syscall.ETIMEDOUT)), job.Reset, false},
		{fmt.Errorf("broken: %w", syscall.EPIPE), job.Reset, false},
		{io.ErrUnexpectedEOF, job.Reset, false},
		{fmt.Errorf("x: %w", io.EOF), job.Reset, false},
		{errors.New("http: server closed idle connection"), job.Reset, false},
		{errors.New("malformed HTTP response"), job.Protocol, false},
	} {
		if reason, noRetry := networkReason(c.err); reason != c.reason || noRetry != c.noRetry {
			t.Errorf("%v is %s, no retry %t, want %s, %t", c.err, reason, noRetry, c.reason, c.noRetry)
		}
	}
}

func TestRedactor_strikesOutWholeAndCutSecrets(t *testing.T) {
	const token = "abcdefghijklmnopqrstuvwxyz"
	r := newRedactor(map[string]string{"authorization": "Bearer " + token, "X-Key": "hunter2", "X-Short": "on", "Content-Type": "text/plain"})
	for text, want := range map[string]string{
		"":                                      "",
		"nothing here, text/plain on":           "nothing here, text/plain on",
		"Bearer " + token + ".":                 "***.",
		token + token:                           "******",
		"cut " + token[:20]:                     "cut ***",
		"too little " + token[:10]:              "too little " + token[:10],
		"key=hunter2&key=hunter2":               "key=***&key=***",
		"almost " + token[:18] + "!" + token:    "almost ***!***",
		`{"auth":"Bearer ` + token + `","x":1}`: `{"auth":"***","x":1}`,
	} {
		if got := r.redact(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func TestClean_isOneBoundedVisibleLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		" a\r\n\tb\x00\x1b[1m\u202ec ": "a   b[1mc", //nolint:gocritic // mapKey: the blanks are the point
		"\xff\xfe\xc3":                 "",
		"äöü€":                         "äöü€",
		"line\u2028separator":          "line separator",
	} {
		if got := clean(text, 100); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	if got := clean("aaaa€", 5); got != "aaaa" {
		t.Errorf("cut within a character: %q", got)
	}
	for limit := range 10 {
		got := clean(strings.Repeat("€\x01", 10), limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("limit %d: %q", limit, got)
		}
	}
}
