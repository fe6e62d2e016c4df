package config

import (
	"cmp"
	"fmt"
	"slices"
)

// Code names a kind of problem, "WD1001". It is stable, so that it can be
// looked up and tested for.
type Code string

// The codes. WD1xxx are errors, WD2xxx warnings. Errors without a code of
// their own (an unknown name of a priority, a number out of range) are
// CodeRange.
const (
	// CodeSyntax: the file is not one YAML document that can be read.
	CodeSyntax Code = "WD1000"
	// CodeUnknown: a key that does not exist there.
	CodeUnknown Code = "WD1001"
	// CodeType: a value of the wrong type or without its unit.
	CodeType Code = "WD1002"
	// CodeReference: a ${…} that is malformed or leads nowhere.
	CodeReference Code = "WD1003"
	// CodeRequired: a value is missing.
	CodeRequired Code = "WD1004"
	// CodeOneOf: exactly one of several keys is wanted.
	CodeOneOf Code = "WD1005"
	// CodeTarget: a pool names a target that does not exist.
	CodeTarget Code = "WD1006"
	// CodeConsumer: two pools would share one durable consumer.
	CodeConsumer Code = "WD1007"
	// CodeSubject: a subject that NATS would refuse.
	CodeSubject Code = "WD1008"
	// CodeOverlap: two filters would both take the same job.
	CodeOverlap Code = "WD1009"
	// CodeRange: a value that is not allowed.
	CodeRange Code = "WD1010"
	// CodeFallback: a fallback that leads back to its own target, or twice to the
	// same.
	CodeFallback Code = "WD1011"
	// CodeLoop: dead letters would come back as jobs.
	CodeLoop Code = "WD1012"
	// CodeOutside: a filter that no subject of its stream, or a route that no job of
	// its pool can match.
	CodeOutside Code = "WD1013"
	// CodeShadowed: a route all of whose jobs take an earlier one.
	CodeShadowed Code = "WD1014"

	// CodePlainSecret: a secret is written in the file itself.
	CodePlainSecret Code = "WD2001"
	// CodeUnused: a target that no pool uses.
	CodeUnused Code = "WD2002"
	// CodeDrain: a call may outlast drain.timeout and be interrupted.
	CodeDrain Code = "WD2003"
	// CodeCalls: retries multiply to very many calls per job.
	CodeCalls Code = "WD2007"
	// CodeOpenAdmin: the admin listener is reachable from outside, without a token.
	CodeOpenAdmin Code = "WD2009"
	// CodeNoResult: jobs are done by a reply that nobody gets.
	CodeNoResult Code = "WD2013"
	// CodeStreamAge: the stream drops jobs that are still being retried.
	CodeStreamAge Code = "WD2011"
)

// Severity tells what stops workerd from what it only mentions.
type Severity string

// The severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Problem is one thing to put right, and where.
type Problem struct {
	// File as it was named to [Load].
	File string `json:"file"`
	// Line and Col count from 1; Col counts characters, not bytes.
	Line int `json:"line"`
	Col  int `json:"col"`
	// Path of the value, "pools.email.concurrency". "" for the file as a whole.
	Path string `json:"path,omitempty"`
	Code Code   `json:"code"`
	// Severity is error or warning.
	Severity Severity `json:"severity"`
	// Message says what is wrong and what is allowed. Secrets are "***".
	Message string `json:"message"`
	// Hint says what to write instead, if that can be known.
	Hint string `json:"hint,omitempty"`
	// SourceLine is the line as written, secrets masked.
	SourceLine string `json:"source_line,omitempty"`
	// CaretLen is how many characters from Col on are meant, at least 1.
	CaretLen int `json:"caret_len"`
}

// String is the problem on one line: file:line:col: path: message.
func (p Problem) String() string {
	s := fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Col)
	if p.Severity == Warning {
		s += "warning: "
	}
	if p.Path != "" {
		s += p.Path + ": "
	}
	s += p.Message
	if p.Code > CodeRequired {
		// The codes below explain themselves.
		s += " [" + string(p.Code) + "]"
	}
	return printable(s)
}

// Problems are sorted by position.
type Problems []Problem

// Errors returns those because of which the configuration cannot be used.
func (ps Problems) Errors() Problems { return ps.with(Error) }

// Warnings returns those that do not keep workerd from starting.
func (ps Problems) Warnings() Problems { return ps.with(Warning) }

func (ps Problems) with(s Severity) (some Problems) {
	for _, p := range ps {
		if p.Severity == s {
			some = append(some, p)
		}
	}
	return some
}

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
}
