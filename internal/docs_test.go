package internal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages are the texts for people, by file.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, where := range []string{"../*.md", "../docs/*.md", "../docs/*/*.md"} {
		files, err := filepath.Glob(where)
		if err != nil || len(files) == 0 {
			t.Fatal(where, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all[file] = string(text)
		}
	}
	return all
}

// TestDocs_targetsOfMakeExist, and are no empty words: make has nothing to do for
// a target that is phony and has no rule, and says so without an error.
func TestDocs_targetsOfMakeExist(t *testing.T) {
	text, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z-]*):`).FindAllStringSubmatch(string(text), -1) {
		rules[m[1]] = true
	}
	phony := regexp.MustCompile(`(?m)^\.PHONY:((?:.*\\\n)*.*)`).FindStringSubmatch(string(text))
	for target := range strings.FieldsSeq(strings.ReplaceAll(phony[1], "\\", "")) {
		if !rules[target] {
			t.Errorf("Makefile: %s is phony and has no rule", target)
		}
	}
	named := regexp.MustCompile("`make ([a-z][a-z-]*)")
	for page, text := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if !rules[m[1]] {
				t.Errorf("%s says make %s, and there is no such target", page, m[1])
			}
		}
	}
}

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
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)(…?)`")
	for page, text := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
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
