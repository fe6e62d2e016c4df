package internal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocs_namedTestsExist: a page that names a test which is not there proves
// nothing. `TestX_…` stands for all that begin so.
func TestDocs_namedTestsExist(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`)
	var all strings.Builder
	for _, f := range everything(t) {
		if !f.isTest() {
			continue
		}
		for _, m := range declared.FindAllStringSubmatch(string(f.text), -1) {
			all.WriteString("\n" + m[1] + "\n")
		}
	}
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(len(pages), err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)(…?)`")
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			want := "\n" + m[1]
			if m[2] == "" {
				want += "\n"
			}
			if !strings.Contains(all.String(), want) {
				t.Errorf("%s names %s%s, and there is none", page, m[1], m[2])
			}
		}
	}
}
