package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/workerd/workerd/internal/config"
)

// TestDocs_whatWePrintIsValid loads every shipped file and every YAML block of
// the documentation: an example that does not work is worse than none.
func TestDocs_whatWePrintIsValid(t *testing.T) {
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../configs/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for name, yaml := range examples(file, string(text)) {
				if strings.Contains(yaml, "\ntests:\n") {
					continue // a config test: TestDocs of whatif looks at those
				}
				noEnvironment := func(string) (string, bool) { return "", false }
				if _, problems := config.Load(name, []byte(yaml), noEnvironment); len(problems) > 0 {
					t.Errorf("%s: %v", name, problems)
				}
			}
		}
	}
}

// examples returns the configurations in a file by a name for each. Blocks of
// a page that show a part only are marked as text, not as yaml.
func examples(file, text string) map[string]string {
	if !strings.HasSuffix(file, ".md") {
		return map[string]string{file: text}
	}
	found := map[string]string{}
	for n, block := range strings.Split(text, "```yaml\n")[1:] {
		body, _, _ := strings.Cut(block, "```")
		found[file+"#"+string(rune('1'+n))] = body
	}
	return found
}

// TestDocs_defaultsAreThoseOfTheCode reads the tables of keys and defaults in
// docs/resilience.md and compares them with what a configuration that says
// nothing comes to.
func TestDocs_defaultsAreThoseOfTheCode(t *testing.T) {
	file, problems := config.Load("all.yaml", []byte(`
streams: {JOBS: {subjects: ["jobs.>"]}, PARKED: {subjects: ["parked.>"]}}
targets:
  t: {http: {url: "http://127.0.0.1:1/"}, probe: /healthz, idempotent: true, hedge: {}, fallback: [{publish: parked.a}], degrade_when: {fallback_rate: 0.5}}
pools:
  p: {target: t, stream: JOBS, subjects: {normal: [jobs.b], low: [jobs.c]}, priorities: {normal: {}, low: {}}, fairness: {by: key}}
  q: {target: t, core: {subject: rpc.a}}
`), func(string) (string, bool) { return "", false })
	if file == nil {
		t.Fatal(problems)
	}
	var all map[string]any
	if err := yaml.Unmarshal([]byte(config.Show(file, false)), &all); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/resilience.md")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| ([^ |]+) \\| [^|]+ \\|$").FindAllStringSubmatch(string(text), -1) {
		compared++
		if got := value(all, m[1]); got != m[2] {
			t.Errorf("%s: the page says %s, the code %q", m[1], m[2], got)
		}
	}
	if rows := strings.Count(string(text), "| key | default | why |"); rows < 10 || compared < 5*rows/2 {
		t.Errorf("%d defaults in %d tables: some were not found", compared, rows)
	}
}

// value of a key of a target, of a pool or of the file, as text.
func value(all map[string]any, key string) string {
	for _, prefix := range []string{"targets.t.", "pools.p.", "pools.q.", ""} {
		var at any = all
		for part := range strings.SplitSeq(prefix+key, ".") {
			inside, _ := at.(map[string]any)
			at = inside[part]
		}
		if at != nil {
			return fmt.Sprint(at)
		}
	}
	return ""
}
