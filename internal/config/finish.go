package config

import (
	"fmt"
	"regexp"
)

const (
	// maxProblems that are returned; nobody reads more at a time.
	maxProblems = 1000
	// longestLine that is returned with a problem.
	longestLine = 64 << 10
)

// finish makes the problems fit to print: sorted, each said once, secrets
// masked, with the source line.
func (d *decoder) finish() {
	m := newMask(d.hidden)
	for i := range d.problems {
		p := &d.problems[i]
		p.Message, p.Hint = m.text(shorterDurations(p.Message)), m.text(p.Hint)
		p.Line = max(1, min(p.Line, len(d.src.lines)))
		p.Col, p.CaretLen = max(1, p.Col), max(1, p.CaretLen)
	}
	d.problems = d.problems.withoutEchoes()
	d.problems.sort()
	d.limit()
	lines := map[int]string{}
	for i := range d.problems {
		p := &d.problems[i]
		if _, ok := lines[p.Line]; !ok && len(d.src.line(p.Line)) <= longestLine {
			lines[p.Line] = m.line(d.src.line(p.Line))
		}
		p.SourceLine = lines[p.Line]
	}
}

// withoutEchoes leaves out what was said already, and warnings about values
// that are wrong anyway.
func (ps Problems) withoutEchoes() Problems {
	wrong := map[string]bool{}
	for _, p := range ps {
		wrong[p.Path] = wrong[p.Path] || p.Severity == Error
	}
	seen := map[Problem]bool{}
	var kept Problems
	for _, p := range ps {
		if !seen[p] && (p.Severity == Error || !wrong[p.Path]) {
			seen[p] = true
			kept = append(kept, p)
		}
	}
	return kept
}

func (d *decoder) limit() {
	more := len(d.problems) - maxProblems
	if more <= 0 {
		return
	}
	errs := len(d.problems[maxProblems:].Errors())
	d.problems = d.problems[:maxProblems]
	last := d.problems[maxProblems-1]
	code, severity := CodeSyntax, Error
	if errs == 0 {
		code, severity = CodeUnused, Warning
	}
	d.problems = append(d.problems, Problem{
		File: last.File, Line: last.Line, Col: last.Col, CaretLen: 1, Code: code, Severity: severity,
		Message: fmt.Sprintf("%d problems more", more),
	})
}

var (
	wholeHours   = regexp.MustCompile(`(\d+h)0m0s\b`)
	wholeMinutes = regexp.MustCompile(`(\d+m)0s\b`)
)

// shorterDurations writes 10m for 10m0s, as one does in a configuration.
func shorterDurations(s string) string {
	return wholeMinutes.ReplaceAllString(wholeHours.ReplaceAllString(s, "$1"), "$1")
}
