package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// mask keeps secrets out of problems. Values known to be secret are replaced
// wherever they appear; for what could not be decoded, the looks decide.
type mask struct{ secrets []string }

// shortestMasked: replacing shorter texts everywhere would garble messages
// and hide little.
const shortestMasked = 4

func newMask(hidden []string) mask {
	var m mask
	for _, h := range hidden {
		for _, s := range []string{h, strings.Trim(strconv.Quote(h), `"`)} {
			if len(s) >= shortestMasked && !slices.Contains(m.secrets, s) {
				m.secrets = append(m.secrets, s)
			}
		}
	}
	// Longer ones first, as one may be part of another.
	slices.SortFunc(m.secrets, func(a, b string) int { return len(b) - len(a) })
	return m
}

// text masks a message.
func (m mask) text(s string) string {
	for _, secret := range m.secrets {
		s = strings.ReplaceAll(s, secret, "***")
	}
	return maskURL(sloppy.ReplaceAllString(s, "://${1}***@"))
}

var (
	secretKey = regexp.MustCompile(`(?i)^(.*?(?:password|passwd|token|secret|authorization|cookie|credential|api[_-]?key)[\w-]*["']?\s*:\s+)(\S.*)$`)
	userinfo  = regexp.MustCompile(`://([^/\s:@"']*:)?[^/\s@"']+@`)
	sloppy    = regexp.MustCompile(`://([^/\s:@"']*:)?[^\s"']+@`) // a password with a slash is none, but a password
	query     = regexp.MustCompile(`(?i)([?&][\w-]*(?:password|token|secret|key|sig)[\w-]*=)[^&\s"'#]+`)
)

// line masks a source line, keeping its length so that carets fit.
func (m mask) line(s string) string {
	for _, secret := range m.secrets {
		s = strings.ReplaceAll(s, secret, strings.Repeat("*", utf8.RuneCountInString(secret)))
	}
	if parts := secretKey.FindStringSubmatch(s); parts != nil && !strings.Contains(parts[2], "${") {
		s = parts[1] + strings.Repeat("*", utf8.RuneCountInString(parts[2]))
	}
	return maskURL(sloppy.ReplaceAllString(s, "://${1}***@"))
}

// maskURL hides the password or token of a URL, and what looks like a key in
// its query.
func maskURL(s string) string {
	return query.ReplaceAllString(userinfo.ReplaceAllString(s, "://${1}***@"), "${1}***")
}
