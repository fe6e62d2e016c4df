package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/config"
)

type recipe struct {
	Name  string            `yaml:"name"`
	Steps []recipeStep      `yaml:"steps" unit:"one"`
	Tags  map[string]string `yaml:"tags"`
}

type recipeStep struct {
	Takes time.Duration `yaml:"takes"`
	Count int           `yaml:"count"`
}

func TestDecode_readsOtherFilesByTheSameRules(t *testing.T) {
	env := func(name string) (string, bool) { return "from " + name, name == "WHO" }
	for _, text := range []string{"name: ${WHO}\nsteps: {takes: 2s, count: 3}", "name: ${WHO}\nsteps: [{takes: 2s, count: 3}]"} {
		var r recipe
		if problems := config.Decode("r.yaml", []byte(text), env, &r).Problems(); len(problems) > 0 {
			t.Errorf("%s: %v", text, problems)
		}
		if r.Name != "from WHO" || len(r.Steps) != 1 || r.Steps[0] != (recipeStep{2 * time.Second, 3}) {
			t.Errorf("%s: %+v", text, r)
		}
	}
}

func TestDecode_reportsEverythingWhereItStands(t *testing.T) {
	var r recipe
	doc := config.Decode("r.yaml", []byte("namee: x\nsteps:\n- {takes: 2, count: 1}\n- {takes: 2s, timeout: 1s}\n"), func(string) (string, bool) { return "", false }, &r)
	doc.Problem(config.CodeRange, "steps[1].takes", "too long", "write 1s")
	doc.Problem(config.CodeRange, "steps[0].takes", "it could not be read, so nothing more is said of it", "")
	doc.Problem(config.CodeRequired, "tags", "stands where the file begins", "")
	var out strings.Builder
	if err := doc.Problems().Format(&out, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"r.yaml:1:1: unknown field \"namee\"", "did you mean \"name\"?",
		"r.yaml:3:11: steps[0].takes: a duration needs a unit",
		"r.yaml:4:11: steps[1].takes: too long", "^^ write 1s",
		"r.yaml:4:15: steps[1]: unknown field \"timeout\"", "known here: takes, count",
		"r.yaml:1:1: tags: stands where the file begins", "r.yaml: 5 problems",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("not said: %s", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func TestDecode_whatIsNotYAMLIsOneProblem(t *testing.T) {
	doc := config.Decode("r.yaml", []byte("a: [\n"), func(string) (string, bool) { return "", false }, new(recipe))
	if problems := doc.Problems(); len(problems) != 1 || problems[0].Code != config.CodeSyntax {
		t.Errorf("%v", problems)
	}
}
