package config

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
)

// Load reads a configuration: parse, expand references, decode, fill in
// defaults, validate each part, then check the parts against each other. name
// is how the file is called in problems; lookup serves the references to
// environment variables.
//
// All problems are returned at once, sorted by position. The file is nil if
// one of them is an error.
func Load(name string, text []byte, lookup Env) (*File, Problems) {
	l := &loader{decoder: newDecoder(newSource(name, text), lookup)}
	l.load(text)
	l.finish()
	if len(l.problems.Errors()) > 0 {
		return nil, l.problems
	}
	return l.file, l.problems
}

// loader is one run of Load.
type loader struct {
	*decoder
	file *File
}

func (l *loader) load(text []byte) {
	root, bad := l.src.parse(text)
	if bad != nil {
		l.report(place{}, bad.at, finding{CodeSyntax, bad.message, bad.hint})
		return
	}
	var written File
	if root == nil {
		root = &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1}
	}
	l.value(root, place{}, reflect.ValueOf(&written).Elem())
	if l.exhausted || l.bad[""] {
		return
	}
	file := written.WithDefaults()
	l.file = &file
	l.file.hidden = hiddenSet(l.hiddenPaths)
	l.validate()
	l.check()
}

func hiddenSet(paths []string) map[string]bool {
	if len(paths) == 0 {
		return nil
	}
	set := make(map[string]bool, len(paths))
	for _, p := range paths {
		set[p] = true
	}
	return set
}

// validate asks every part.
func (l *loader) validate() {
	f := l.file
	f.NATS.Validate(l.at("nats"))
	for name, s := range f.Streams {
		l.checkName("streams."+name, name, 255)
		s.Validate(l.at("streams." + name))
	}
	for name, t := range f.Targets {
		l.checkName("targets."+name, name, 64)
		t.Validate(l.at("targets." + name))
	}
	for name, p := range f.Pools {
		l.checkName("pools."+name, name, 64)
		l.validatePool("pools."+name, p)
	}
	f.Shed.Validate(l.at("shed"))
	f.Pressure.Validate(l.at("pressure"))
	f.Cache.Validate(l.at("cache"))
	f.DLQ.Validate(l.at("dlq"))
	f.Attempts.Validate(l.at("attempts"))
	f.Drain.Validate(l.at("drain"))
	f.Admin.Validate(l.at("admin"))
	f.Log.Validate(l.at("log"))
}

func (l *loader) validatePool(path string, p pool.Config) {
	report := l.at(path)
	p.Validate(report)
	for priority, subjects := range p.Subjects {
		for i, s := range subjects {
			if err := queue.CheckSubject(s); err != nil {
				report("subjects."+priority+"["+strconv.Itoa(i)+"]", err.Error())
			}
		}
	}
}

// checkName: names become consumers, directories of the broker and label values.
func (l *loader) checkName(path, name string, longest int) {
	if name == "" || len(name) > longest || strings.Trim(name, nameCharacters) != "" {
		l.problem(CodeRange, path, "the name "+quote(name)+" is not allowed, use up to "+strconv.Itoa(longest)+" letters, digits, - and _", "")
	}
}

const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// at takes the problems of the part at path.
func (l *loader) at(path string) func(field, message string) {
	return prefixed(func(path, message string) { l.problem(l.codeOf(path), path, message, priorityHint(path)) }, path)
}

// problem reports something about the value at a path. It stands where the
// value was written, or else where its nearest parent was. Nothing is said of
// values that could not be read.
func (d *decoder) problem(code Code, path, message, hint string) {
	if d.isBad(path, code == CodeRequired || code == CodeOneOf) {
		return
	}
	where := path
	for where != "" && !d.isWritten(where) {
		where = parentOf(where)
	}
	at, ok := d.spans[where]
	if !ok {
		at = span{1, 1, 1}
	}
	d.report(place{path: path}, at, finding{code, message, hint})
}

func (d *decoder) isWritten(path string) bool {
	_, ok := d.spans[path]
	return ok
}

func parentOf(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// isBad tells whether a path, something above it, or (of a value that is
// missing) something below it is known to be wrong.
func (d *decoder) isBad(path string, missing bool) bool {
	for above := path; above != ""; above = parentOf(above) {
		if d.bad[above] {
			return true
		}
	}
	if missing {
		for bad := range d.bad {
			if strings.HasPrefix(bad, path+".") || strings.HasPrefix(bad, path+"[") {
				return true
			}
		}
	}
	return false
}

var subjectPath = regexp.MustCompile(`^(streams\.[^.]+\.subjects\[\d+\]|pools\.[^.]+\.subjects\.[^.]+\[\d+\]|dlq\.subject)$`)

// codeOf tells what kind of problem a part has reported at a path.
func (l *loader) codeOf(path string) Code {
	if subjectPath.MatchString(path) {
		return CodeSubject
	}
	if isMissing(valueAt(reflect.ValueOf(l.file).Elem(), path), l.isWritten(path)) {
		return CodeRequired
	}
	return CodeRange
}

// isMissing: a zero number that was written is a wrong number, but empty text
// or lists are as good as nothing.
func isMissing(v reflect.Value, written bool) bool {
	if !v.IsValid() || !v.IsZero() {
		return false
	}
	switch v.Kind() {
	case reflect.String, reflect.Slice, reflect.Map, reflect.Pointer:
		return true
	}
	return !written
}

// valueAt returns the value at a path, invalid if there is none.
func valueAt(v reflect.Value, path string) reflect.Value {
	for path != "" && v.IsValid() {
		var key string
		path = strings.TrimPrefix(path, ".")
		if end := strings.IndexAny(path[1:], ".["); end >= 0 {
			key, path = path[:end+1], path[end+1:]
		} else {
			key, path = path, ""
		}
		v = child(v, key)
	}
	return v
}

// child returns the value under a key ("url", "[2]"), invalid if there is none.
func child(v reflect.Value, key string) reflect.Value {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Struct:
		if f, ok := fieldNamed(fieldsOf(v.Type()), key); ok {
			return v.Field(f.index)
		}
	case reflect.Map:
		return v.MapIndex(reflect.ValueOf(key).Convert(v.Type().Key()))
	case reflect.Slice:
		i, err := strconv.Atoi(strings.Trim(key, "[]"))
		if err == nil && i < v.Len() {
			return v.Index(i)
		}
	}
	return reflect.Value{}
}
