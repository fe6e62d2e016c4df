package whatif_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/workerd/workerd/internal/whatif"
)

// TestDocs_testsWePrintAreValid loads every shipped file of config tests and
// every one in the documentation.
func TestDocs_testsWePrintAreValid(t *testing.T) {
	found := 0
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../configs/*.test.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, yaml := range examples(file, string(text)) {
				found++
				// Examples are for the example configuration.
				_, problems, err := whatif.Load("../../configs/x.yaml", []byte(yaml), nothing, os.ReadFile)
				if len(problems) > 0 || err != nil {
					t.Errorf("%s: %v %v", file, problems, err)
				}
			}
		}
	}
	if found < 2 {
		t.Errorf("%d examples", found)
	}
}

func nothing(string) (string, bool) { return "", false }

func examples(file, text string) (found []string) {
	if !strings.HasSuffix(file, ".md") {
		return []string{text}
	}
	for _, block := range strings.Split(text, "```yaml\n")[1:] {
		if body, _, _ := strings.Cut(block, "```"); strings.Contains(body, "\ntests:\n") {
			found = append(found, body)
		}
	}
	return found
}
