package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/secret"
)

// sample has a field of every type that a Config may have.
type sample struct {
	Text   string            `yaml:"text"`
	Yes    bool              `yaml:"yes"`
	N      int               `yaml:"n"`
	Big    int64             `yaml:"big"`
	Size   int64             `yaml:"size" unit:"size"`
	Ratio  float64           `yaml:"ratio"`
	Wait   time.Duration     `yaml:"wait"`
	Enum   enum              `yaml:"enum"`
	Inner  *inner            `yaml:"inner"`
	List   []string          `yaml:"list"`
	Rules  []inner           `yaml:"rules"`
	Names  map[string]string `yaml:"names"`
	Parts  map[string]inner  `yaml:"parts"`
	Lists  map[enum][]string `yaml:"lists"`
	Secret secret.Secret     `yaml:"secret"`
	Other  string            // not configuration
}

type enum string

type inner struct {
	Key   string           `yaml:"key"`
	Waits []time.Duration  `yaml:"waits"`
	Sizes map[string]int64 `yaml:"sizes" unit:"size"`
}

func decodeSample(t interface{ Fatal(...any) }, text string, env Env) (sample, *decoder) {
	d := newDecoder(newSource("s.yaml", []byte(text)), env)
	root, bad := d.src.parse([]byte(text))
	if bad != nil {
		t.Fatal(bad, "\n", text)
	}
	var s sample
	if root != nil {
		d.value(root, place{}, reflect.ValueOf(&s).Elem())
	}
	return s, d
}

func noEnv(string) (string, bool) { return "", false }

func vars(pairs ...string) Env {
	return func(name string) (string, bool) {
		i := slices.Index(pairs, name)
		if i < 0 {
			return "", false
		}
		return pairs[i+1], true
	}
}

// TestShow_everyValueReadsBack is the round trip of the decoder and Show, for
// whatever values a Config can hold.
func TestShow_everyValueReadsBack(t *testing.T) {
	texts := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
		"~", "null", "true", "on", "<<", "1", "0x1", "1e3", "- a", "a: b", "#", "$", "$$", "${A}", "$${A}", "{}", "[]", "*a", "&a", "!a", " x ", "\n", "a\nb", "'", `"`, "\t", "...", "---", "=", "2026-01-01",
	}))
	inners := rapid.Custom(func(t *rapid.T) inner {
		return inner{
			texts.Draw(t, "key"), nilIfEmpty(rapid.SliceOfN(rapid.Map(rapid.Int64Range(0, int64(maxDuration)), func(n int64) time.Duration { return time.Duration(n) }), 0, 3).Draw(t, "waits")),
			rapid.MapOfN(texts, rapid.Int64Min(0), 1, 3).Draw(t, "sizes"),
		}
	})
	samples := rapid.Custom(func(t *rapid.T) sample {
		in := inners.Draw(t, "inner")
		return sample{
			Text: texts.Draw(t, "text"), Yes: rapid.Bool().Draw(t, "yes"), N: rapid.Int().Draw(t, "n"), Big: rapid.Int64().Draw(t, "big"),
			Size: rapid.Int64Min(0).Draw(t, "size"), Ratio: rapid.Float64Range(-1e300, 1e300).Draw(t, "ratio"),
			Wait: time.Duration(rapid.Int64Range(0, int64(maxDuration)).Draw(t, "wait")), Enum: enum(texts.Draw(t, "enum")), Inner: &in,
			List:  nilIfEmpty(rapid.SliceOfN(texts, 0, 4).Draw(t, "list")),
			Rules: nilIfEmpty(rapid.SliceOfN(inners, 0, 2).Draw(t, "rules")),
			Names: rapid.MapOfN(texts, texts, 1, 4).Draw(t, "names"), Parts: rapid.MapOfN(texts, inners, 1, 2).Draw(t, "parts"),
			Lists: rapid.MapOfN(rapid.Map(texts, func(s string) enum { return enum(s) }), rapid.SliceOfN(texts, 1, 2), 1, 2).Draw(t, "lists"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		want := samples.Draw(t, "sample")
		text, err := yaml.Dump(shower{}.node(reflect.ValueOf(want), "", ""), yaml.WithIndent(2), yaml.WithLineWidth(-1))
		if err != nil {
			t.Fatal(err)
		}
		got, d := decodeSample(t, string(text), noEnv)
		if len(d.problems) > 0 {
			t.Fatalf("%v\n%s", d.problems, text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got)\n%s\n%s", diff, text)
		}
	})
}

func nilIfEmpty[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

func TestDecode_referencesAreExpandedAfterParsingAndOnce(t *testing.T) {
	env := vars("TEXT", "a: [b]\n# ${OTHER} 'x", "N", "7", "WAIT", "1m", "YES", "true", "OTHER", "no", "EMPTY", "", "KIB", "2")
	got, d := decodeSample(t, `
text: ${TEXT}
n: ${N}
big: "${N}"
size: ${KIB}KiB
wait: ${WAIT}
yes: ${YES}
list: ["${UNSET:-d e f}", '${EMPTY:-}', "$${N}", "$N", "${N}${N}", "$", "a$$b", "${N:?must}"]
names: {a: "${EMPTY:-x: y}"}
`, env)
	if len(d.problems) > 0 {
		t.Fatal(d.problems)
	}
	want := sample{
		Text: "a: [b]\n# ${OTHER} 'x", N: 7, Big: 7, Size: 2048, Wait: time.Minute, Yes: true,
		List: []string{"d e f", "", "${N}", "$N", "77", "$", "a$b", "7"}, Names: map[string]string{"a": "x: y"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecode_filesAndCredentials(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ok := write("ok", "secret-canary\n")
	large, binary := write("large", strings.Repeat("x", maxFileValue+1)), write("binary", "\xff")
	env := vars("CREDENTIALS_DIRECTORY", dir)
	got, d := decodeSample(t, fmt.Sprintf("text: ${file:%s}\nsecret: ${cred:ok}\n", ok), env)
	if got.Text != "secret-canary" || got.Secret.Reveal() != "secret-canary" || len(d.problems) > 0 {
		t.Errorf("got %q, %q, %v", got.Text, got.Secret.Reveal(), d.problems)
	}
	if !slices.Equal(d.hiddenPaths, []string{"text", "secret"}) || !slices.Contains(d.hidden, "secret-canary") {
		t.Errorf("hidden: %q %q", d.hiddenPaths, d.hidden)
	}
	for _, ref := range []string{"file:" + large, "file:" + binary, "file:" + dir, "file:", "cred:", "cred:..", "cred:a/b", "cred:/ok", "cred:.hidden", "cred:none"} {
		if _, d := decodeSample(t, "text: ${"+ref+"}\n", env); len(d.problems) != 1 || d.problems[0].Code != CodeReference {
			t.Errorf("${%s}: %v", ref, d.problems)
		}
	}
	if _, d := decodeSample(t, "text: ${cred:ok}\n", noEnv); len(d.problems) != 1 {
		t.Errorf("without CREDENTIALS_DIRECTORY: %v", d.problems)
	}
	many := "list: [" + strings.Repeat(fmt.Sprintf("'${file:%s}',", write("big", strings.Repeat("y", maxFileValue))), 17) + "]\n"
	if _, d := decodeSample(t, many, env); len(d.problems) != 1 {
		t.Errorf("17 times 64KiB: %d problems, want 1", len(d.problems))
	}
}

func TestDecode_aliasesAndMergesAreBounded(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("x-a0: &a0 {k: v}\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&bomb, "x-a%d: &a%d {<<: [%s]}\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 20), ","))
	}
	bomb.WriteString("names: *a11\n")
	lists := "x-l: &l [" + strings.Repeat("a,", 1000) + "]\nlists:\n"
	for i := range 1000 {
		lists += fmt.Sprintf("  k%d: *l\n", i)
	}
	for name, text := range map[string]string{
		"merges": bomb.String(), "aliases": lists, "long list": "list: [" + strings.Repeat("a,", maxValues+1) + "]", "many keys": "names:\n" + manyKeys("  ", maxValues),
		"unknown keys": manyKeys("", maxValues+1),
	} {
		_, d := decodeSample(t, text, noEnv)
		if n := len(d.problems); n != 1 || d.problems[0].Code != CodeSyntax {
			t.Errorf("%s: %d problems, want one about too many values", name, n)
		}
	}
}

func manyKeys(indent string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%sk%d: v\n", indent, i)
	}
	return b.String()
}

func TestDecode_anchorsAndMergesInReason(t *testing.T) {
	got, d := decodeSample(t, `
x-base: &base {key: base, waits: [1s]}
x-more: &more {<<: *base, key: more, sizes: {a: 1KiB}}
parts:
  a: *base
  b: {<<: *base, key: b}
  c: {<<: [{key: first}, *more]}
list: &list [x]
lists: {q: *list}
`, noEnv)
	if len(d.problems) > 0 {
		t.Fatal(d.problems)
	}
	second := []time.Duration{time.Second}
	want := sample{
		Parts: map[string]inner{"a": {Key: "base", Waits: second}, "b": {Key: "b", Waits: second}, "c": {Key: "first", Waits: second, Sizes: map[string]int64{"a": 1024}}},
		List:  []string{"x"}, Lists: map[enum][]string{"q": {"x"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHint_wordsOfOtherSystemsLeadToKeysThatExist(t *testing.T) {
	words := strings.Fields(`maxRequests interval timeout trip maxRetries maxInterval failureRateThreshold minimumNumberOfCalls waitDurationInOpenState
		permittedNumberOfCallsInHalfOpenState slidingWindowSize FailureRatio MinimumThroughput BreakDuration SamplingDuration max_pending_requests
		max_in_flight drop_on backoff_on urls queues weight dead durable deliver_group max_deliver max_ack_pending filter_subjects backoff servers
		initialInterval slowCallRateThreshold slowCallDurationThreshold logging metrics visibility_timeout shutdown_timeout services circuitBreaker backoffMultiplier verb`)
	known := keyPaths(reflect.TypeFor[File](), "")
	for _, word := range words {
		paths := translate(word)
		if len(paths) == 0 {
			t.Errorf("%s is not translated", word)
		}
		for _, path := range paths {
			path, _, _ = strings.Cut(path, " ")
			if !slices.Contains(known, path) {
				t.Errorf("%s is translated to %s, which does not exist", word, path)
			}
		}
	}
}

func TestHint_unknownKeys(t *testing.T) {
	breakerFields := fieldsOf(reflect.TypeFor[File]().Field(2).Type.Elem().Field(3).Type)
	top := fieldsOf(reflect.TypeFor[File]())
	for _, c := range []struct {
		key, path string
		fields    []field
		hint      string
	}{
		{"failureRateThreshold", "targets.a.breaker", breakerFields, `here this is called "failure_rate"`},
		{"timeout", "targets.a.breaker", breakerFields, `here this is called "open_for"`},
		{"openFor", "targets.a.breaker", breakerFields, `did you mean "open_for"?`},
		{"min_cals", "targets.a.breaker", breakerFields, `did you mean "min_calls"?`},
		{"idnow", "targets.a.breaker", breakerFields, "known here: failure_rate"},
		{"max_attempts", "pools.a", top, "it belongs to pools.<name>.redelivery"},
		{"ack_wait", "", top, "it belongs to pools.<name>"},
		{"pool", "", top, `did you mean "pools"?`},
		{"queues", "", top, `here this is called "pools"`},
		{"max_in_flight", "", top, "here this is pools.<name>.concurrency"},
	} {
		if got, _ := unknownHint(c.key, c.path, c.fields); !strings.HasPrefix(got, c.hint) {
			t.Errorf("%s at %q: %q, want %q", c.key, c.path, got, c.hint)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"concurency", "concurrency", 1}} {
		if got := distance(c.a, c.b); got != c.want || distance(c.b, c.a) != got {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
