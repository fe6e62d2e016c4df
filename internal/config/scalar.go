package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/workerd/workerd/internal/secret"
)

const unitSize = "size"

// scalar decodes one value after its references are expanded. What it is is
// decided by the field, not by YAML: "5" from a variable is a number where a
// number is wanted.
func (d *decoder) scalar(n *yaml.Node, at place, out reflect.Value) {
	if !d.is(n, yaml.ScalarNode, at, out.Type()) {
		return
	}
	text, ok := d.expand(n, at, out.Type())
	if !ok {
		return
	}
	if quoted(n) && text == n.Value && !textual(out.Type(), at.unit) {
		d.wrong(n, at, fmt.Sprintf("text in quotes is not allowed here, use %s", wanted(out.Type(), at.unit)), "remove the quotes")
		return
	}
	bad := d.set(text, at.unit, out)
	if bad == nil {
		return
	}
	if bad.code == CodeRange {
		d.bad[at.path] = true
		d.report(at, d.src.span(n), finding{CodeRange, bad.message, bad.hint})
		return
	}
	d.wrong(n, at, bad.message, bad.hint)
}

// expand follows the references in a scalar and notes what must stay secret.
func (d *decoder) expand(n *yaml.Node, at place, t reflect.Type) (text string, ok bool) {
	e := d.expander.expand(n.Value)
	for _, b := range e.bad {
		d.bad[at.path] = true
		d.report(at, d.src.find(n, b.text), finding{CodeReference, b.message, b.hint})
	}
	d.hidden = append(d.hidden, e.hidden...)
	if len(e.hidden) > 0 {
		d.hiddenPaths = append(d.hiddenPaths, at.path)
	}
	if t == reflect.TypeFor[secret.Secret]() {
		d.hidden = append(d.hidden, e.text)
		if e.references == 0 && e.text != "" {
			d.report(at, d.src.span(n), finding{CodePlainSecret, "the secret is written in the file", "write ${file:/path}, ${cred:name} or ${VAR}"})
		}
	}
	return e.text, len(e.bad) == 0
}

func quoted(n *yaml.Node) bool {
	return n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

// textual tells whether values of the type are text to YAML.
func textual(t reflect.Type, unit string) bool {
	return t.Kind() == reflect.String || t == reflect.TypeFor[time.Duration]() || unit == unitSize
}

// wanted describes a type for messages.
func wanted(t reflect.Type, unit string) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration such as 30s or 1h30m"
	case unit == unitSize && t.Kind() == reflect.Int64:
		return "a size such as 64KiB or 8MiB"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "a list"
	}
	return "a mapping (key: value)"
}

// badScalar is why text is not a value of the type wanted.
type badScalar struct {
	code          Code // CodeType if empty
	message, hint string
}

func (d *decoder) set(text, unit string, out reflect.Value) *badScalar {
	switch {
	case out.Type() == reflect.TypeFor[time.Duration]():
		return setDuration(text, out)
	case unit == unitSize && out.Kind() == reflect.Int64:
		return setSize(text, out)
	}
	switch out.Kind() {
	case reflect.String:
		out.SetString(text)
		return nil
	case reflect.Bool:
		return setBool(text, out)
	case reflect.Int, reflect.Int64:
		return setInt(text, out)
	case reflect.Float64:
		return setFloat(text, out)
	}
	panic("config: a field of type " + out.Type().String() + " cannot be decoded")
}

func notA(text, unit string, out reflect.Value, hint string) *badScalar {
	return &badScalar{message: fmt.Sprintf("%s is not allowed here, use %s", quote(text), wanted(out.Type(), unit)), hint: hint}
}

func setDuration(text string, out reflect.Value) *badScalar {
	v, err := ParseDuration(text)
	switch {
	case errors.Is(err, errNoUnit):
		return &badScalar{message: fmt.Sprintf("a duration needs a unit, %s has none", quote(text)), hint: fmt.Sprintf("write %ss for seconds; ms, s, m, h and d are allowed", cut(text))}
	case errors.Is(err, errNegative):
		return &badScalar{code: CodeRange, message: "a negative duration is not allowed"}
	case errors.Is(err, errTooLarge):
		return &badScalar{code: CodeRange, message: fmt.Sprintf("%s is not allowed, use at most %s", quote(text), formatDuration(maxDuration))}
	case err != nil:
		return notA(text, "", out, "")
	}
	out.SetInt(int64(v))
	return nil
}

func setSize(text string, out reflect.Value) *badScalar {
	v, hint, err := parseSize(text)
	switch {
	case errors.Is(err, errNegative):
		return &badScalar{code: CodeRange, message: "a negative size is not allowed"}
	case errors.Is(err, errTooLarge):
		return &badScalar{code: CodeRange, message: quote(text) + " is too large"}
	case err != nil:
		return notA(text, unitSize, out, hint)
	}
	out.SetInt(v)
	return nil
}

func setBool(text string, out reflect.Value) *badScalar {
	switch text {
	case "true":
		out.SetBool(true)
	case "false":
		out.SetBool(false)
	default:
		return notA(text, "", out, boolHint(text))
	}
	return nil
}

func boolHint(text string) string {
	switch strings.ToLower(text) {
	case "yes", "on", "y", "1", "true":
		return "write true"
	case "no", "off", "n", "0", "false":
		return "write false"
	}
	return ""
}

func setInt(text string, out reflect.Value) *badScalar {
	digits := strings.TrimPrefix(text, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) > 1 && digits[0] == '0' {
		return notA(text, "", out, "")
	}
	v, err := strconv.ParseInt(text, 10, out.Type().Bits())
	if err != nil {
		return &badScalar{code: CodeRange, message: quote(text) + " is too large"}
	}
	out.SetInt(v)
	return nil
}

func setFloat(text string, out reflect.Value) *badScalar {
	if p, ok := strings.CutSuffix(text, "%"); ok {
		hint := ""
		if v, err := strconv.ParseFloat(strings.TrimSpace(p), 64); err == nil {
			hint = "write " + strconv.FormatFloat(v/100, 'g', 6, 64)
		}
		return notA(text, "", out, hint)
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.Trim(text, "0123456789.+-eE") != "" {
		return notA(text, "", out, "")
	}
	out.SetFloat(v)
	return nil
}
