package dlq

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxCause bounds how much of an error text makes its fingerprint, in bytes.
const maxCause = 2048

// variable stands for a part that differs from job to job.
const variable = "#"

// Fingerprint names the cause of a dead letter: six hexadecimal digits that are
// the same for error texts which differ only in what belongs to the single job,
// that is numbers, ids, hexadecimal, quoted values and addresses. An HTTP status
// does count, and so do the words a target answered. Without a text the reason
// is the cause.
func Fingerprint(reason, text string) string {
	cause := normalise(text)
	if cause == "" {
		cause = reason
	}
	sum := sha256.Sum256([]byte(cause))
	return hex.EncodeToString(sum[:3])
}

// IsFingerprint tells whether s can be one.
func IsFingerprint(s string) bool { return len(s) == 6 && strings.Trim(s, "0123456789abcdef") == "" }

// normalise leaves the words of an error text that say what went wrong.
func normalise(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), maxCause)], "")
	said, answer := cutAnswer(text)
	words := strings.FieldsFunc(unquote(said, false)+" "+unquote(answer, isJSON(answer)), isSeparator)
	var out []string
	for _, word := range words {
		word = strings.ToLower(strings.Trim(word, ".:-/"))
		last := ""
		if len(out) > 0 {
			last = out[len(out)-1]
		}
		switch {
		case word == "":
			continue
		case last == "http" && len(word) == 3: // a status
		case isVariable(word):
			word = variable
		}
		if word != variable || last != variable {
			out = append(out, word)
		}
	}
	return strings.Join(out, " ")
}

// cutAnswer cuts what a target answered off the end of `… HTTP 422 from host:
// "answer"`, as the HTTP target words it. An answer is in quotes there, but it
// is no value.
func cutAnswer(text string) (said, answer string) {
	at := strings.Index(text, "HTTP ")
	if at < 0 {
		return text, ""
	}
	head, answer, ok := strings.Cut(text[at:], `: "`)
	if !ok {
		return text, ""
	}
	return text[:at] + head, strings.TrimSuffix(answer, `"`)
}

func isJSON(text string) bool {
	text = strings.TrimSpace(text)
	return strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[")
}

// unquote takes quoted parts out of a text. In JSON keys stay, and so does what
// has several words: that is the message.
func unquote(text string, inJSON bool) string {
	var b strings.Builder
	before := ' '
	for text != "" {
		r, size := utf8.DecodeRuneInString(text)
		end := -1
		if r == '"' || r == '`' || r == '\'' && !unicode.IsLetter(before) {
			end = closing(text[size:], r)
		}
		if end < 0 {
			b.WriteRune(r)
			text, before = text[size:], r
			continue
		}
		inside, rest := text[size:size+end], text[size+end+size:]
		if inJSON && r == '"' && (strings.Contains(inside, " ") || strings.HasPrefix(rest, ":")) {
			b.WriteString(" " + inside)
		}
		b.WriteString(" ")
		text, before = rest, r
	}
	return b.String()
}

// closing finds the quote that ends a quoted part, -1 if there is none.
func closing(text string, quote rune) int {
	escaped := false
	for i, r := range text {
		switch {
		case escaped:
			escaped = false
		case r == '\\':
			escaped = true
		case r == quote:
			return i
		}
	}
	return -1
}

func isSeparator(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("()[]{}<>,;=\"'`|\\", r)
}

// isVariable tells whether a word in lower case belongs to one job: it has a
// digit or is an address, or it is hexadecimal and too long for a word.
func isVariable(word string) bool {
	return strings.ContainsFunc(word, unicode.IsDigit) || strings.ContainsRune(word, '@') ||
		len(word) >= 8 && strings.Trim(word, "abcdef") == ""
}
