package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMutants_canAllBePlanted: a mutant whose line has changed is no mutant.
func TestMutants_canAllBePlanted(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants() {
		text, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), m.old); n != 1 || m.old == m.new || names[m.name] {
			t.Errorf("%s: %q is %d times in %s, want once; names and changes must differ", m.name, m.old, n, m.file)
		}
		names[m.name] = true
	}
}
