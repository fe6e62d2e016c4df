package config

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// lineWidth is how many characters of a source line are shown.
const lineWidth = 100

// Format prints every problem with its source line, a caret and a hint, and
// then a count if there are errors. It returns the first error of w.
func (ps Problems) Format(w io.Writer, color bool) error {
	c := paint(color)
	var b strings.Builder
	for _, p := range ps {
		p.format(&b, c)
	}
	if errs := len(ps.Errors()); errs > 0 {
		fmt.Fprintf(&b, "%s: %s", printable(ps[0].File), count(errs, "problem"))
		if warnings := len(ps.Warnings()); warnings > 0 {
			fmt.Fprintf(&b, ", %s", count(warnings, "warning"))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p Problem) format(b *strings.Builder, c paint) {
	where, what, _ := strings.Cut(p.String(), ": ")
	fmt.Fprintf(b, "%s %s\n", c.bold(where+":"), what)
	line, col := excerpt(p.SourceLine, p.Col)
	if line == "" {
		if p.Hint != "" {
			fmt.Fprintf(b, "       | %s\n", printable(p.Hint))
		}
		return
	}
	carets := strings.Repeat("^", max(1, min(p.CaretLen, len([]rune(line))-col+1)))
	fmt.Fprintf(b, "%6d | %s\n", p.Line, line)
	fmt.Fprintf(b, "       | %s%s", strings.Repeat(" ", col-1), c.caret(p.Severity, carets))
	if p.Hint != "" {
		b.WriteString(" " + printable(p.Hint))
	}
	b.WriteByte('\n')
}

// excerpt cuts a long line to the part around a column, and makes it safe to
// print. It returns the column within the excerpt.
func excerpt(line string, col int) (text string, newCol int) {
	runes := []rune(printable(strings.ReplaceAll(line, "\t", " "))) // at most longestLine
	col = max(1, col)
	if start := col - lineWidth*3/4; len(runes) > lineWidth && start > 0 {
		runes = append([]rune{'…'}, runes[min(start, len(runes)):]...)
		col -= start - 1
	}
	if len(runes) > lineWidth {
		runes = append(runes[:lineWidth-1], '…')
	}
	return string(runes), col
}

// printable replaces what could move the cursor of a terminal, or pretend to
// be other text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, s)
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// paint colors for terminals, or leaves text alone.
type paint bool

func (c paint) bold(s string) string { return c.with("1", s) }

func (c paint) caret(severity Severity, s string) string {
	if severity == Warning {
		return c.with("33", s)
	}
	return c.with("31", s)
}

func (c paint) with(code, s string) string {
	if !c {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
