package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
