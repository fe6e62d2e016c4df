// Package oneline makes texts of others fit to be shown: one line of visible
// UTF-8 of bounded length, whatever was in them.
//
// It guarantees that the result holds no line break, no control character (and
// so no terminal escape), no invisible character (marks that turn the direction
// of text), no invalid UTF-8, and no more bytes than allowed. A text that has
// nothing of it is returned as it is, without a copy.
package oneline

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// cut marks a text of which the end is missing.
const cut = "…"

// Of returns s as one visible line of at most limit bytes. Line breaks and tabs
// become spaces, other invisible characters are left out. limit is at least 3,
// the length of the mark that shows a missing end.
func Of(s string, limit int) string {
	if len(s) <= limit && isFit(s) {
		return s
	}
	var out strings.Builder
	end := 0 // of what may stay if the mark has to follow
	for _, r := range s {
		if r = shown(r); r < 0 {
			continue
		}
		if out.Len()+utf8.RuneLen(r) > limit {
			return out.String()[:end] + cut
		}
		out.WriteRune(r)
		if out.Len() <= limit-len(cut) {
			end = out.Len()
		}
	}
	return out.String()
}

// shown is the character to show for r, -1 for none.
func shown(r rune) rune {
	switch {
	case r == utf8.RuneError:
		return -1
	case r == ' ' || unicode.IsGraphic(r) && !unicode.IsSpace(r):
		return r
	case unicode.IsSpace(r): // line and paragraph separators among them
		return ' '
	}
	return -1
}

func isFit(s string) bool {
	for _, r := range s {
		if shown(r) != r {
			return false
		}
	}
	return true
}
