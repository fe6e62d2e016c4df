package config

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxValues bounds the work for one configuration: every key and every value
// counts, as often as an alias or a merge key brings it in.
const maxValues = 50_000

// decoder turns YAML nodes into structs, strictly, and collects everything
// that is wrong. Fields are named by their yaml tags; int64 fields with the
// tag unit:"size" are sizes. Null is not a value: whoever writes a key writes
// what it is.
type decoder struct {
	src      *source
	expander *expander
	problems Problems
	// spans says where each path was written: scalars by their value,
	// mappings and lists by their key.
	spans map[string]span
	// bad are the paths whose value is known to be wrong, so that nothing
	// more is said about them.
	bad map[string]bool
	// hidden are secrets that must not be printed, and the paths of values
	// that came from files.
	hidden      []string
	hiddenPaths []string
	budget      int
	exhausted   bool
	merging     map[*yaml.Node]bool
	// hint says what an unknown key was probably meant to be.
	hint func(key, path string, siblings []field) (hint, meant string)
}

func newDecoder(src *source, env Env) *decoder {
	return &decoder{
		src: src, expander: newExpander(env), spans: map[string]span{}, bad: map[string]bool{},
		budget: maxValues, merging: map[*yaml.Node]bool{}, hint: unknownHint,
	}
}

// place is where a value stands: its path and the key before it, nil in a
// list and at the root.
type place struct {
	path string
	key  *yaml.Node
	unit string
}

func (p place) field(key *yaml.Node, unit string) place {
	path := key.Value
	if p.path != "" {
		path = p.path + "." + path
	}
	return place{path, key, unit}
}

// value decodes n into out, which must be settable.
func (d *decoder) value(n *yaml.Node, at place, out reflect.Value) {
	if out.Kind() == reflect.Pointer {
		out.Set(reflect.New(out.Type().Elem()))
		d.value(n, at, out.Elem())
		return
	}
	n = resolve(n)
	if !d.spend(n, at, 1) {
		return
	}
	d.spans[at.path] = d.spanOf(n, at)
	if n.Style&yaml.TaggedStyle != 0 {
		d.wrong(n, at, "a tag is not allowed here", "write the plain value")
		return
	}
	if isNull(n) {
		d.missing(at, out.Type())
		return
	}
	switch out.Kind() {
	case reflect.Struct:
		if short, ok := shortOf(out.Type()); ok && n.Kind == yaml.ScalarNode {
			d.value(n, place{join(at.path, short.name), at.key, short.unit}, out.Field(short.index))
			return
		}
		d.structure(n, at, out)
	case reflect.Map:
		d.mapping(n, at, out)
	case reflect.Slice:
		d.list(n, at, out)
	default:
		d.scalar(n, at, out)
	}
}

// spend counts values and tells whether they may be decoded.
func (d *decoder) spend(n *yaml.Node, at place, values int) bool {
	d.budget -= values
	if d.budget < 0 && !d.exhausted {
		d.exhausted = true
		d.report(at, d.src.span(n), finding{CodeSyntax, fmt.Sprintf("the configuration has more than %d values", maxValues), "aliases count as often as they are used"})
	}
	return d.budget >= 0
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// spanOf: mappings, lists and nothing at all are best shown by their key.
func (d *decoder) spanOf(n *yaml.Node, at place) span {
	if at.key != nil && (n.Kind != yaml.ScalarNode || isNull(n)) {
		return d.src.span(at.key)
	}
	return d.src.span(n)
}

func (d *decoder) missing(at place, t reflect.Type) {
	d.bad[at.path] = true
	hint := "write one, or remove the key"
	if at.key == nil {
		hint = "write one, or remove the item"
	}
	d.report(at, d.spans[at.path], finding{CodeRequired, "a value is missing, use " + wanted(t, at.unit), hint})
}

// structure decodes a mapping into a struct.
func (d *decoder) structure(n *yaml.Node, at place, out reflect.Value) {
	if !d.is(n, yaml.MappingNode, at, out.Type()) {
		return
	}
	fields := fieldsOf(out.Type())
	for _, e := range d.entries(n, at) {
		f, ok := fieldNamed(fields, e.key.Value)
		switch {
		case ok:
			d.value(e.value, at.field(e.key, f.unit), out.Field(f.index))
		case at.path == "" && strings.HasPrefix(e.key.Value, "x-"):
		default:
			d.unknown(e.key, at, fields)
		}
	}
}

func (d *decoder) unknown(key *yaml.Node, at place, fields []field) {
	hint, meant := d.hint(key.Value, at.path, fields)
	if meant != "" {
		// What was misspelled is not missing as well.
		d.bad[join(at.path, meant)] = true
	}
	d.report(at, d.src.span(key), finding{CodeUnknown, "unknown field " + quote(key.Value), hint})
}

// mapping decodes a mapping into a map. An empty one is as none at all.
func (d *decoder) mapping(n *yaml.Node, at place, out reflect.Value) {
	if !d.is(n, yaml.MappingNode, at, out.Type()) {
		return
	}
	entries := d.entries(n, at)
	if len(entries) == 0 {
		return
	}
	m := reflect.MakeMapWithSize(out.Type(), len(entries))
	for _, e := range entries {
		v := reflect.New(out.Type().Elem()).Elem()
		d.value(e.value, at.field(e.key, at.unit), v)
		m.SetMapIndex(reflect.ValueOf(e.key.Value).Convert(out.Type().Key()), v)
	}
	out.Set(m)
}

// unitOne marks a list whose only item may stand for it.
const unitOne = "one"

// list decodes a sequence into a slice. An empty one is as none at all.
func (d *decoder) list(n *yaml.Node, at place, out reflect.Value) {
	if at.unit == unitOne && n.Kind == yaml.MappingNode {
		n, at.unit = &yaml.Node{Kind: yaml.SequenceNode, Line: n.Line, Column: n.Column, Content: []*yaml.Node{n}}, ""
	}
	if !d.is(n, yaml.SequenceNode, at, out.Type()) || len(n.Content) == 0 || !d.spend(n, at, len(n.Content)) {
		return
	}
	s := reflect.MakeSlice(out.Type(), len(n.Content), len(n.Content))
	for i := range n.Content {
		d.value(n.Content[i], place{path: fmt.Sprintf("%s[%d]", at.path, i), unit: at.unit}, s.Index(i))
	}
	out.Set(s)
}

// is reports a node of another kind than is wanted.
func (d *decoder) is(n *yaml.Node, kind yaml.Kind, at place, t reflect.Type) bool {
	if n.Kind == kind {
		return true
	}
	hint := ""
	if n.Kind == yaml.ScalarNode && kind == yaml.SequenceNode {
		hint = "write [" + cut(n.Value) + "]"
	}
	d.wrong(n, at, fmt.Sprintf("%s is not allowed here, use %s", found(n), wanted(t, at.unit)), hint)
	return false
}

func (d *decoder) wrong(n *yaml.Node, at place, message, hint string) {
	d.bad[at.path] = true
	d.report(at, d.src.span(n), finding{CodeType, message, hint})
}

// finding is what is to be said about a place.
type finding struct {
	code          Code
	message, hint string
}

func (d *decoder) report(at place, where span, f finding) {
	severity := Error
	if f.code >= "WD2" {
		severity = Warning
	}
	d.problems = append(d.problems, Problem{
		File: d.src.name, Line: where.line, Col: where.col, CaretLen: where.length,
		Path: at.path, Code: f.code, Severity: severity, Message: f.message, Hint: f.hint,
	})
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// found names what a node is, for messages.
func found(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping (key: value)"
	case yaml.SequenceNode:
		return "a list"
	}
	return quote(n.Value)
}

// field of a struct, as configuration sees it.
type field struct {
	name, unit string
	index      int
	typ        reflect.Type
}

// fieldsOf lists the fields with a yaml tag in the order they are declared.
func fieldsOf(t reflect.Type) (fields []field) {
	for i := range t.NumField() {
		f := t.Field(i)
		if name := f.Tag.Get("yaml"); f.IsExported() && name != "" && name != "-" {
			fields = append(fields, field{name, f.Tag.Get("unit"), i, f.Type})
		}
	}
	return fields
}

// shortOf returns the field of a struct that a plain value stands for.
func shortOf(t reflect.Type) (field, bool) {
	for _, f := range fieldsOf(t) {
		if t.Field(f.index).Tag.Get("short") == "true" {
			return f, true
		}
	}
	return field{}, false
}

func fieldNamed(fields []field, name string) (field, bool) {
	for _, f := range fields {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}
