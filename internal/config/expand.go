package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Env looks up an environment variable. [os.LookupEnv] is one.
type Env func(name string) (value string, ok bool)

const (
	// maxFileValue is the largest file a reference may take in.
	maxFileValue = 64 << 10
	// maxExpanded bounds what all references of one configuration give.
	maxExpanded = 1 << 20
)

// expander replaces references in scalars:
//
//	${VAR}            the environment variable, which must be set
//	${VAR:-default}   default if it is unset or empty
//	${VAR:?message}   an error with that message if it is unset or empty
//	${file:/path}     the content of a file, without its last newline
//	${cred:name}      the same for $CREDENTIALS_DIRECTORY/name
//	$$                a dollar
//
// Any other dollar is just a dollar. What a reference gives is never looked
// at again, so nobody can inject a reference, or YAML, through a variable.
type expander struct {
	env    Env
	files  map[string]string // read once, so that all references agree
	budget int
}

func newExpander(env Env) *expander {
	return &expander{env: env, files: map[string]string{}, budget: maxExpanded}
}

// expansion is what became of one scalar.
type expansion struct {
	text string
	// references counts those that were found.
	references int
	// hidden are the values that came from files: taken for secrets.
	hidden []string
	bad    []badReference
}

// badReference is a reference that cannot be followed.
type badReference struct {
	text          string // as written, "${VAR:20}"
	message, hint string
}

func (x *expander) expand(s string) (e expansion) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		switch {
		case strings.HasPrefix(s, "$$"):
			b.WriteByte('$')
			s = s[2:]
		case strings.HasPrefix(s, "${"):
			var value string
			value, s = x.reference(s, &e)
			b.WriteString(value)
		default:
			b.WriteByte('$')
			s = s[1:]
		}
	}
	b.WriteString(s)
	e.text = b.String()
	return e
}

// reference expands the reference that s begins with and returns the rest.
func (x *expander) reference(s string, e *expansion) (value, rest string) {
	e.references++
	end := strings.IndexByte(s, '}')
	if end < 0 {
		e.bad = append(e.bad, badReference{s, "malformed reference " + quote(s), "close it with }, or write $$ for a dollar"})
		return "", ""
	}
	text, rest := s[:end+1], s[end+1:]
	value, hidden, bad := x.resolve(text[2:end])
	if x.budget -= len(value); bad == nil && x.budget < 0 {
		bad = &badReference{message: fmt.Sprintf("references give more than %s in all", formatSize(maxExpanded))}
	}
	if bad != nil {
		bad.text = text
		e.bad = append(e.bad, *bad)
		return "", rest
	}
	if hidden && value != "" {
		e.hidden = append(e.hidden, value)
	}
	return value, rest
}

// resolve follows a reference, given without its braces.
func (x *expander) resolve(ref string) (value string, hidden bool, bad *badReference) {
	if strings.Contains(ref, "${") {
		return "", false, &badReference{message: "references cannot be nested", hint: "compute the value outside, or use two settings"}
	}
	if path, ok := strings.CutPrefix(ref, "file:"); ok {
		value, err := x.file(path)
		return value, true, badFile(err, ref)
	}
	if name, ok := strings.CutPrefix(ref, "cred:"); ok {
		value, err := x.credential(name)
		return value, true, badFile(err, ref)
	}
	value, bad = x.variable(ref)
	if bad == nil && !utf8.ValidString(value) {
		bad = &badReference{message: "the variable is not UTF-8 text"}
	}
	return value, false, bad
}

func badFile(err error, ref string) *badReference {
	if err == nil {
		return nil
	}
	return &badReference{message: fmt.Sprintf("cannot follow ${%s}: %v", ref, err)}
}

func (x *expander) variable(ref string) (string, *badReference) {
	name := ref[:nameLen(ref)]
	value, set := x.env(name)
	op := ref[len(name):]
	switch {
	case name == "":
		return "", malformed(ref, "write ${VAR}, or $$ for a dollar")
	case op == "" && !set:
		return "", &badReference{
			message: fmt.Sprintf("environment variable %s is not set", name),
			hint:    fmt.Sprintf("set it, or write ${%s:-default}", name),
		}
	case op == "":
		return value, nil
	case strings.HasPrefix(op, ":-"):
		if value == "" {
			value = op[2:]
		}
		return value, nil
	case strings.HasPrefix(op, ":?"):
		if value == "" {
			return "", &badReference{message: fmt.Sprintf("environment variable %s is not set or empty: %s", name, quote(op[2:]))}
		}
		return value, nil
	case name == "env" && op[0] == ':':
		return "", malformed(ref, fmt.Sprintf("write ${%s}", op[1:]))
	case op[0] == ':' || op[0] == '-':
		return "", malformed(ref, fmt.Sprintf("write ${%s:-%s}", name, op[1:]))
	case op[0] == '?':
		return "", malformed(ref, fmt.Sprintf("write ${%s:?%s}", name, op[1:]))
	}
	return "", malformed(ref, "write ${VAR}, or $$ for a dollar")
}

func malformed(ref, hint string) *badReference {
	return &badReference{message: "malformed reference ${" + cut(ref) + "}", hint: hint}
}

// nameLen is how much of s can be the name of a variable.
func nameLen(s string) int {
	for i, r := range s {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || '9' < r) {
			return i
		}
	}
	return len(s)
}

func (x *expander) credential(name string) (string, error) {
	dir, _ := x.env("CREDENTIALS_DIRECTORY")
	switch {
	case name == "" || name != filepath.Base(name) || strings.HasPrefix(name, "."):
		return "", errors.New("the name of a credential is a plain file name")
	case dir == "":
		return "", errors.New("CREDENTIALS_DIRECTORY is not set; systemd sets it for LoadCredential=")
	}
	return x.file(filepath.Join(dir, name))
}

func (x *expander) file(path string) (string, error) {
	if value, ok := x.files[path]; ok {
		return value, nil
	}
	if !filepath.IsAbs(path) {
		return "", errors.New("the path must be absolute")
	}
	value, err := readSmall(path)
	if err != nil {
		return "", err
	}
	x.files[path] = value
	return value, nil
}

// readSmall reads a regular text file; a pipe or a device could block or
// never end.
func readSmall(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFileValue+1))
	switch {
	case err != nil:
		return "", err
	case len(content) > maxFileValue:
		return "", fmt.Errorf("larger than %s", formatSize(maxFileValue))
	case !utf8.Valid(content):
		return "", errors.New("not UTF-8 text")
	}
	text := strings.TrimSuffix(string(content), "\n")
	return strings.TrimSuffix(text, "\r"), nil
}

// cut shortens text of unknown origin for a message.
func cut(s string) string {
	const longest = 60
	if runes := []rune(s); len(runes) > longest {
		return string(runes[:longest-1]) + "…"
	}
	return s
}

// quote is cut in quotes.
func quote(s string) string { return fmt.Sprintf("%q", cut(s)) }
