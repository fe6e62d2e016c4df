package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/secret"
	"github.com/workerd/workerd/internal/target/httptarget"
)

// Show writes the effective configuration as YAML: defaults filled in,
// references expanded, secrets as "***". It loads again to the same File,
// secrets excepted. changedOnly leaves out what is as it would be by default.
//
// Secrets are: fields of that type, values of HTTP headers, whatever came
// from ${file:…} or ${cred:…}, and passwords within URLs.
func Show(f *File, changedOnly bool) string {
	s := shower{hidden: f.hidden}
	tree := s.node(reflect.ValueOf(*f), "", "")
	if changedOnly {
		subtract(tree, shower{}.node(reflect.ValueOf(f.baseline()), "", ""))
	}
	text, err := yaml.Dump(tree, yaml.WithIndent(2), yaml.WithLineWidth(-1))
	if err != nil {
		panic("config: show: " + err.Error()) // the tree is ours
	}
	return string(text)
}

// baseline is f with everything at its default that has one.
func (f *File) baseline() File {
	b := File{
		Streams: each(f.Streams, func(queue.StreamConfig) queue.StreamConfig { return queue.StreamConfig{} }),
		Targets: each(f.Targets, func(t TargetConfig) TargetConfig {
			// What depends on the timeout is compared at the actual one.
			b := TargetConfig{Timeout: t.Timeout}
			if t.HTTP != nil {
				b.HTTP = new(httptarget.Config)
			}
			return b
		}),
	}.WithDefaults()
	b.Targets = each(b.Targets, func(t TargetConfig) TargetConfig {
		t.Timeout = TargetConfig{}.WithDefaults().Timeout
		return t
	})
	b.Pools = each(f.Pools, func(p pool.Config) pool.Config {
		b := pool.Config{}.WithDefaults()
		b.JobTimeout = f.jobTimeoutOf(p)
		return b
	})
	return b
}

// shower builds a YAML tree.
type shower struct{ hidden map[string]bool }

// node is nil for what is not there: empty text, maps and lists, nil pointers.
func (s shower) node(v reflect.Value, path, unit string) *yaml.Node {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return s.node(v.Elem(), path, unit)
	case reflect.Struct:
		return s.structure(v, path)
	case reflect.Map:
		return s.mapping(v, path, unit)
	case reflect.Slice:
		return s.list(v, path, unit)
	}
	return s.scalar(v, path, unit)
}

func (s shower) structure(v reflect.Value, path string) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fieldsOf(v.Type()) {
		if n := s.node(v.Field(f.index), join(path, f.name), f.unit); n != nil {
			m.Content = append(m.Content, textNode(f.name), n)
		}
	}
	return m
}

func (s shower) mapping(v reflect.Value, path, unit string) *yaml.Node {
	if v.Len() == 0 {
		return nil
	}
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, key := range slices.SortedFunc(maps.Keys(mapKeys(v)), strings.Compare) {
		name := reflect.ValueOf(key).Convert(v.Type().Key())
		n := s.node(v.MapIndex(name), join(path, key), unit)
		if n == nil {
			n = emptyNode(v.Type().Elem())
		}
		m.Content = append(m.Content, textNode(key), n)
	}
	return m
}

func mapKeys(v reflect.Value) map[string]bool {
	keys := make(map[string]bool, v.Len())
	for _, k := range v.MapKeys() {
		keys[k.String()] = true
	}
	return keys
}

// emptyNode is an empty value where one must stand: in a map or a list.
func emptyNode(t reflect.Type) *yaml.Node {
	switch t.Kind() {
	case reflect.String:
		return textNode("")
	case reflect.Slice:
		return &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	}
	return &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
}

func (s shower) list(v reflect.Value, path, unit string) *yaml.Node {
	if v.Len() == 0 {
		return nil
	}
	l := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range v.Len() {
		n := s.node(v.Index(i), fmt.Sprintf("%s[%d]", path, i), unit)
		if n == nil {
			n = emptyNode(v.Type().Elem())
		}
		if n.Kind == yaml.ScalarNode {
			l.Style = yaml.FlowStyle
		}
		l.Content = append(l.Content, n)
	}
	return l
}

func (s shower) scalar(v reflect.Value, path, unit string) *yaml.Node {
	isSecret := v.Type() == reflect.TypeFor[secret.Secret]() || s.hidden[path] || isHeader(path)
	switch {
	case v.Kind() == reflect.String && v.String() == "":
		return nil
	case isSecret && !v.IsZero():
		return textNode("***")
	case v.Type() == reflect.TypeFor[time.Duration]():
		return plainNode(formatDuration(time.Duration(v.Int())))
	case unit == unitSize:
		return plainNode(formatSize(v.Int()))
	}
	switch v.Kind() {
	case reflect.String:
		return textNode(escape(maskURL(v.String())))
	case reflect.Bool:
		return plainNode(strconv.FormatBool(v.Bool()))
	case reflect.Float64:
		return plainNode(strconv.FormatFloat(v.Float(), 'g', -1, 64))
	}
	return plainNode(strconv.FormatInt(v.Int(), 10))
}

// isHeader: the values of fixed headers are never printed.
func isHeader(path string) bool {
	return strings.HasPrefix(path, "targets.") && strings.Contains(path, ".http.headers.")
}

// escape keeps text from being taken for a reference.
func escape(s string) string {
	if strings.Contains(s, "${") || strings.Contains(s, "$$") {
		return strings.ReplaceAll(s, "$", "$$")
	}
	return s
}

func textNode(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func plainNode(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// subtract removes from a what is the same in b, key by key.
func subtract(a, b *yaml.Node) {
	kept := a.Content[:0]
	for i := 0; i+1 < len(a.Content); i += 2 {
		key, value := a.Content[i], a.Content[i+1]
		if base := lookup(b, key.Value); base != nil && base.Kind == value.Kind {
			if value.Kind == yaml.MappingNode {
				subtract(value, base)
			}
			if len(value.Content) == 0 && value.Value == base.Value {
				continue
			}
		}
		kept = append(kept, key, value)
	}
	a.Content = kept
}

func lookup(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}
