package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxSource is the largest configuration read.
const maxSource = 1 << 20

// source is a configuration as written, and finds places in it.
type source struct {
	name  string
	lines []string
	// offsets of the characters of lines that are not ASCII, made when needed.
	offsets map[int][]int
}

// span is a place in a source: where something stands and how long it is.
// All of it counts characters, from 1.
type span struct{ line, col, length int }

func newSource(name string, text []byte) *source {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	// The line breaks of YAML 1.1, so that our lines are those of the parser.
	breaks := strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n")
	return &source{name: name, lines: strings.Split(breaks.Replace(string(text)), "\n"), offsets: map[int][]int{}}
}

// line returns a line, "" beyond the end.
func (s *source) line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	return s.lines[n-1]
}

// from returns the rest of a line from a column on. A file may be one long
// line with all its values, so this must not walk through it each time.
func (s *source) from(line, col int) string {
	text := s.line(line)
	table, ok := s.offsets[line]
	if !ok {
		table = offsetsOf(text)
		s.offsets[line] = table
	}
	switch {
	case table == nil:
		return text[max(0, min(col-1, len(text))):]
	case col > len(table):
		return ""
	}
	return text[table[max(0, col-1)]:]
}

// offsetsOf lists where each character of a text begins; nil for ASCII.
func offsetsOf(text string) []int {
	if utf8.RuneCountInString(text) == len(text) {
		return nil
	}
	offsets := make([]int, 0, len(text))
	for i := range text {
		offsets = append(offsets, i)
	}
	return offsets
}

// span finds what a node covers on its first line.
func (s *source) span(n *yaml.Node) span {
	text := s.from(n.Line, n.Column)
	at := span{n.Line, n.Column, 1}
	// A node begins with its anchor and tag; the value is what is meant.
	for strings.HasPrefix(text, "&") || strings.HasPrefix(text, "!") {
		i := strings.IndexAny(text, " \t")
		if i < 0 {
			return at
		}
		rest := strings.TrimLeft(text[i:], " \t")
		at.col += utf8.RuneCountInString(text[:len(text)-len(rest)])
		text = rest
	}
	switch n.Kind {
	case yaml.AliasNode:
		at.length = utf8.RuneCountInString(n.Value) + 1
	case yaml.ScalarNode:
		at.length = max(1, scalarLen(n, text))
	}
	return at
}

func scalarLen(n *yaml.Node, text string) int {
	switch {
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		return quotedLen(text)
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return 1
	case strings.HasPrefix(text, n.Value):
		return utf8.RuneCountInString(n.Value)
	}
	return utf8.RuneCountInString(strings.TrimRight(text, " \t"))
}

// quotedLen is the length of the quoted scalar that text begins with, or of
// all the text if the scalar goes on in the next line.
func quotedLen(text string) (length int) {
	var mark rune
	escaped := false
	for _, r := range text {
		length++
		switch {
		case length == 1:
			mark = r
		case escaped:
			escaped = false
		case r == '\\' && mark == '"':
			escaped = true
		case r == mark:
			return length
		}
	}
	return length
}

// find looks for text within a scalar, which may be spread over lines.
func (s *source) find(n *yaml.Node, text string) span {
	first, _, _ := strings.Cut(text, "\n")
	length := utf8.RuneCountInString(first)
	rest := s.from(n.Line, n.Column)
	if before, _, ok := strings.Cut(rest, first); ok {
		return span{n.Line, n.Column + utf8.RuneCountInString(before), length}
	}
	last := n.Line + strings.Count(n.Value, "\n") + 1
	for line := n.Line + 1; line <= min(last, len(s.lines)); line++ {
		if before, _, ok := strings.Cut(s.line(line), first); ok {
			return span{line, utf8.RuneCountInString(before) + 1, length}
		}
	}
	return s.span(n)
}

// syntaxError is why a source could not be read, and where.
type syntaxError struct {
	at            span
	message, hint string
}

// parse reads the only document. It is nil without an error if there is none.
func (s *source) parse(text []byte) (*yaml.Node, *syntaxError) {
	if len(text) > maxSource {
		return nil, &syntaxError{span{1, 1, 1}, fmt.Sprintf("the file is larger than %s", formatSize(maxSource)), ""}
	}
	if err := s.checkCharacters(); err != nil {
		return nil, err
	}
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		return nil, s.syntaxError(err)
	}
	var doc, second yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, s.syntaxError(err)
	}
	switch err := loader.Load(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, s.syntaxError(err)
	default:
		return nil, &syntaxError{span{second.Line, max(1, second.Column), 3}, "a second document begins here, only one is allowed", "remove the ---"}
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, nil
	}
	return doc.Content[0], nil
}

// checkCharacters finds what the parser would refuse without saying where.
func (s *source) checkCharacters() *syntaxError {
	for i, line := range s.lines {
		col := 0
		for j, r := range line {
			col++
			if _, size := utf8.DecodeRuneInString(line[j:]); r == utf8.RuneError && size == 1 {
				return &syntaxError{span{i + 1, col, 1}, "not UTF-8 text", "save the file as UTF-8"}
			}
			if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0xfeff || r == 0xfffe || r == 0xffff {
				return &syntaxError{span{i + 1, col, 1}, fmt.Sprintf("control character %U", r), "remove it, or write it as an escape in double quotes"}
			}
		}
	}
	return nil
}

func (s *source) syntaxError(err error) *syntaxError {
	e := &syntaxError{at: span{1, 1, 1}, message: "not valid YAML: " + err.Error()}
	load, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		return e
	}
	e.message = "not valid YAML: " + load.Message
	if load.Mark.Line > 0 {
		e.at = span{load.Mark.Line, max(1, load.Mark.Column), 1}
	}
	switch text := s.line(e.at.line); {
	case strings.HasPrefix(strings.TrimLeft(text, " "), "\t"):
		e.hint = "indent with spaces, not with tabs"
	case strings.Contains(load.Message, "did not find expected") && strings.Contains(text, "${"):
		e.hint = "within [ ] and { }, put a reference in quotes"
	case strings.Contains(load.Message, "mapping values are not allowed"):
		e.hint = `put a value that contains ": " in quotes`
	}
	return e
}
