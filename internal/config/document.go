package config

import (
	"reflect"

	"go.yaml.in/yaml/v4"
)

// Document is a file of another kind, read as strictly as a configuration. It
// is for one goroutine.
type Document struct{ d *decoder }

// Decode reads a file into out, a pointer to a struct whose fields have yaml
// tags. Fields of int64 tagged unit:"size" are sizes; a list tagged unit:"one"
// may be written as its only item. Whoever asked validates what was read and
// reports it with [Document.Problem].
func Decode(name string, text []byte, lookup Env, out any) *Document {
	d := newDecoder(newSource(name, text), lookup)
	d.hint = nearHint
	root, bad := d.src.parse(text)
	switch {
	case bad != nil:
		d.report(place{}, bad.at, finding{CodeSyntax, bad.message, bad.hint})
		return &Document{d}
	case root == nil:
		root = &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1}
	}
	d.value(root, place{}, reflect.ValueOf(out).Elem())
	return &Document{d}
}

// Problem reports something about the value at a path ("tests[0].jobs"). It
// stands where the value was written, or else where its nearest parent was.
// Nothing is said of values that could not be read.
func (doc *Document) Problem(code Code, path, message, hint string) {
	if !doc.d.exhausted && !doc.d.bad[""] {
		doc.d.problem(code, path, message, hint)
	}
}

// Problems returns all that were found, sorted by position. It ends the
// document.
func (doc *Document) Problems() Problems {
	doc.d.finish()
	return doc.d.problems
}
