package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func env(name string) (string, bool) {
	v, ok := map[string]string{
		"USER_NAME": "alice", "PASSWORD": "hunter2-canary-bird", "WORD": "word: [${USER_NAME}", "WORKERS": "32", "EMPTY": "",
		"CANARY": "visible", "FILE_SECRET": "not a url",
	}[name]
	return v, ok
}

func load(text string) (*config.File, config.Problems) {
	return config.Load("test.yaml", []byte(text), env)
}

// minimal is the smallest configuration that loads without a problem.
const minimal = `targets: {t: {http: {url: "http://localhost/"}}}
pools: {p: {target: t, stream: S, subjects: {normal: [a.b]}}}
`

func format(t *testing.T, ps config.Problems) string {
	t.Helper()
	var b strings.Builder
	if err := ps.Format(&b, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLoad_golden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f, problems := config.Load(filepath.Base(name), source, env)
			got := format(t, problems)
			if good := strings.HasPrefix(filepath.Base(name), "good"); good != (f != nil) {
				t.Errorf("loaded: %v, want %v\n%s", f != nil, good, got)
			}
			if f != nil {
				got += "# changed\n" + config.Show(f, true) + "# all\n" + config.Show(f, false)
			}
			golden(t, strings.TrimSuffix(name, ".yaml")+".txt", got)
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}
