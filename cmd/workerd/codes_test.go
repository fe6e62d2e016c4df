package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// found are the distinct first groups of a pattern in a text.
func found(pattern, text string) []string {
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)`+pattern).FindAllStringSubmatch(text, -1) {
		all[m[1]] = true
	}
	return slices.Sorted(maps.Keys(all))
}

func read(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("nothing matches %s: %v", pattern, err)
	}
	var text strings.Builder
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b)
	}
	return text.String()
}

func TestExitCodes_areThoseOfTheHelpAndEachIsSeenInAScript(t *testing.T) {
	documented := found(`^  (\d+) `, exitCodes)
	declared := found(`^\texit\w+ += (\d+)`, read(t, "main.go"))
	if diff := cmp.Diff(declared, documented); diff != "" {
		t.Errorf("declared in the code (-) and documented (+):\n%s", diff)
	}
	scripts := read(t, "testdata/script/*.txtar")
	seen := found(`^(?:code|end \w+ \w+) (\d+)`, scripts)
	seen = append(seen, "70") // which scripts cannot provoke, see below
	slices.Sort(seen)
	if diff := cmp.Diff(documented, seen); diff != "" {
		t.Errorf("documented (-) and seen in scripts (+):\n%s", diff)
	}
}

func TestExitCodes_ofTheReadmeAreThoseOfTheHelp(t *testing.T) {
	_, table, ok := strings.Cut(read(t, "../../README.md"), "| exit code |")
	if !ok {
		t.Fatal("no table of exit codes")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	for _, code := range found(`^\| (\d+) \|`, table) {
		if !strings.Contains(exitCodes, "\n  "+code+" ") {
			t.Errorf("%s is in the README, but not in the help", code)
		}
	}
}

func TestGuarded_aPanicIsAMistakeInWorkerdAndSaysSo(t *testing.T) {
	var stderr bytes.Buffer
	if code := guarded(&stderr, func() error { panic("no such thing") }); code != exitSoftware {
		t.Errorf("exit code %d, want %d", code, exitSoftware)
	}
	for _, want := range []string{"this is a mistake in workerd", "no such thing", "codes_test.go:"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%q is not in %s", want, stderr.String())
		}
	}
}
