package main

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/workerd/workerd/internal/config"
)

func fields(t *testing.T) []fieldDoc {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	s := &sources{root: root, packages: map[string]*pkg{}}
	p, err := s.load("internal/config")
	if err != nil {
		t.Fatal(err)
	}
	sections, err := s.sections("", named{p, "File"})
	if err != nil {
		t.Fatal(err)
	}
	var all []fieldDoc
	for _, sec := range sections {
		if strings.TrimSpace(sec.typ.decl().doc) == "" {
			t.Errorf("type %s of %q has no doc comment", sec.typ.name, sec.path)
		}
		all = append(all, sec.fields...)
	}
	return all
}

func TestReference_everyFieldHasADocComment(t *testing.T) {
	all := fields(t)
	if len(all) < 80 {
		t.Fatalf("only %d fields found", len(all))
	}
	for _, f := range all {
		if len(strings.Fields(f.doc)) < 3 {
			t.Errorf("%s (%s): the doc comment %q says too little", f.path, f.goName, f.doc)
		}
	}
}

func TestReference_isWritten(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := writeReference(&b, root); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"### `pools.<name>.redelivery`", "### `targets.<name>.http.classify[]`",
		"- `concurrency` *(whole number)* is how many", "- `password` *(secret text)*", "- `max_bytes` *(size)*", "| WD1007 |",
		"- `subjects` *(mapping of names to lists of texts)*",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the reference lacks %q", want)
		}
	}
}

var documented = regexp.MustCompile(`Default:? (\S+?)[.,;]?(?:\s|$)`)

// TestReference_documentedDefaultsAreTrue compares what the comments promise
// with what a minimal configuration becomes.
func TestReference_documentedDefaultsAreTrue(t *testing.T) {
	actual := defaults(t)
	checked := 0
	for _, f := range fields(t) {
		m := documented.FindStringSubmatch(strings.Join(strings.Fields(f.doc), " "))
		got, ok := actual[f.path]
		if m == nil || !ok || !isValue(f, m[1]) {
			continue
		}
		checked++
		if canonical(m[1]) != canonical(got) {
			t.Errorf("%s: documented default %s, actual %s", f.path, m[1], got)
		}
	}
	if checked < 40 {
		t.Errorf("only %d defaults compared", checked)
	}
}

// isValue tells a default that is a value from one that is explained.
func isValue(f fieldDoc, s string) bool {
	switch f.kind.text {
	case "duration":
		_, err := time.ParseDuration(s)
		return err == nil
	case "text":
		return regexp.MustCompile(`^[a-zA-Z_][a-z_A-Z.:/0-9-]*$`).MatchString(s)
	}
	return regexp.MustCompile(`^(-?[0-9.]+[a-zA-Z]*|true|false)$`).MatchString(s)
}

func canonical(s string) string {
	if d, err := time.ParseDuration(s); err == nil {
		return d.String()
	}
	return s
}

func defaults(t *testing.T) map[string]string {
	t.Helper()
	f, problems := config.Load("minimal", []byte(`
targets: {t: {http: {url: "http://localhost/"}}}
streams: {S: {subjects: [a]}}
pools: {p: {target: t, stream: S, subjects: {normal: [a]}}}
`), func(string) (string, bool) { return "", false })
	if f == nil {
		t.Fatal(problems)
	}
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(config.Show(f, false)), &tree); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	flatten(values, "", tree)
	return values
}

// flatten names values by path, with <name> for the keys of maps.
func flatten(values map[string]string, path string, m map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		below := strings.TrimPrefix(path+"."+key, ".")
		if slices.Contains([]string{"targets", "streams", "pools"}, path) {
			below = path + ".<name>"
		}
		if inner, ok := m[key].(map[string]any); ok {
			flatten(values, below, inner)
			continue
		}
		text, _ := yaml.Marshal(m[key])
		values[below] = strings.Trim(strings.TrimSpace(string(text)), `"'`)
		if d, ok := strings.CutSuffix(values[below], "d"); ok && d == "14" {
			values[below] = "336h"
		}
	}
}
