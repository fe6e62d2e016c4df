package config

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// entry is one key of a mapping and its value.
type entry struct{ key, value *yaml.Node }

// entries lists a mapping with its merge keys (<<) followed. What is written
// in the mapping itself wins over what is merged, and of several merged
// mappings the first wins. Duplicate keys are reported, the first one counts.
func (d *decoder) entries(n *yaml.Node, at place) (all []entry) {
	if !d.spend(n, at, len(n.Content)/2) {
		return nil
	}
	seen := map[string]int{} // line of the first
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), n.Content[i+1]
		switch first, dup := seen[key.Value]; {
		case isMerge(key):
			merges = append(merges, value)
		case key.Kind != yaml.ScalarNode || isNull(key):
			d.report(at, d.src.span(n.Content[i]), finding{CodeType, "a key must be text", ""})
		case dup:
			d.report(at, d.src.span(key), finding{CodeSyntax, fmt.Sprintf("duplicate key %s, the first is on line %d", quote(key.Value), first), "remove one of them"})
		default:
			seen[key.Value] = key.Line
			all = append(all, entry{key, value})
		}
	}
	for _, m := range merges {
		for _, e := range d.merged(m, at) {
			if _, ok := seen[e.key.Value]; !ok {
				seen[e.key.Value] = e.key.Line
				all = append(all, e)
			}
		}
	}
	return all
}

func isMerge(key *yaml.Node) bool { return key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" }

// merged lists what a merge key brings in: a mapping's entries, or those of
// each mapping in a list.
func (d *decoder) merged(n *yaml.Node, at place) (all []entry) {
	written := n
	n = resolve(n)
	if d.merging[n] {
		d.report(at, d.src.span(written), finding{CodeSyntax, "a mapping cannot be merged into itself", ""})
		return nil
	}
	d.merging[n] = true
	defer delete(d.merging, n)
	if !d.spend(n, at, 1) {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		return d.entries(n, at)
	case yaml.SequenceNode:
		for _, item := range n.Content {
			all = append(all, d.merged(item, at)...)
		}
		return all
	}
	d.report(at, d.src.span(written), finding{CodeType, fmt.Sprintf("%s cannot be merged, use a mapping or a list of them", found(n)), ""})
	return nil
}
