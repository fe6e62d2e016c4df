package config_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/config"
)

func TestLoad_minimal(t *testing.T) {
	f, problems := load(minimal)
	if f == nil || len(problems) > 0 {
		t.Fatal(problems)
	}
	// 3 calls of 10s, and waits of at most 200ms and 400ms between them.
	if got := f.Pools["p"].JobTimeout; got != 31*time.Second {
		t.Errorf("job_timeout is %s", got)
	}
	b := f.Targets["t"].Breaker
	if b.SlowCall != 8*time.Second || b.ProbeTimeout != 15*time.Second {
		t.Errorf("slow_call %s, probe_timeout %s", b.SlowCall, b.ProbeTimeout)
	}
}

func TestLoad_tenMistakesAreTenProblemsWithPositions(t *testing.T) {
	source, err := os.ReadFile("testdata/bad_ten.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, problems := config.Load("bad_ten.yaml", source, env)
	if len(problems) != 10 || len(problems.Errors()) != 10 {
		t.Errorf("%d problems:\n%s", len(problems), format(t, problems))
	}
	checkPositions(t, string(source), problems)
}

// checkPositions: every problem points into the file, in order.
func checkPositions(t testing.TB, source string, problems config.Problems) {
	t.Helper()
	last := config.Problem{}
	for _, p := range problems {
		if p.Line < 1 || p.Col < 1 || p.CaretLen < 1 || p.Message == "" || p.Code == "" || p.Severity == "" || p.File == "" {
			t.Errorf("incomplete: %+v", p)
		}
		if p.Line > strings.Count(source, "\n")+strings.Count(source, "\r")+strings.Count(source, "\u0085")+strings.Count(source, "\u2028")+strings.Count(source, "\u2029")+1 {
			t.Errorf("line %d is beyond the end: %v", p.Line, p)
		}
		if p.Line < last.Line || p.Line == last.Line && p.Col < last.Col {
			t.Errorf("%v comes after %v", p, last)
		}
		last = p
	}
}

// TestLoad_secretsAreInNoProblem plants a canary wherever a secret may stand.
func TestLoad_secretsAreInNoProblem(t *testing.T) {
	const canary = "hunter2-canary-bird"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ref := "${file:" + file + "}"
	for _, text := range []string{
		"nats: {password: " + canary + ", unknown: 1}", "nats: {token: [" + canary + "]}", "nats: {url: 'nats://me:" + canary + "@ h'}",
		"nats: {url: 'nats://" + canary + "@'}", "nats: {url: 'http://a:" + canary + "/x@h'}", "admin: {token: '" + canary + "', token: x}",
		"nats: {url: " + ref + "}", "nats: {replicas: " + ref + "}", "log: {level: " + ref + "}", "drain: {timeout: " + ref + "}",
		"pools: {p: {target: " + ref + ", concurrency: " + ref + "}}", "nats:\n  password: a: " + canary, "nats:\n  password: \"" + canary,
		"targets: {t: {http: {url: 'http://x:" + canary + "@h/'}}}", "targets: {t: {http: {url: 'http://h/#?api_key=" + canary + "'}}}",
		"targets: {t: {http: {url: http://h/, headers: {Authorization: \"Bearer " + canary + "\\n\"}}}}",
		"targets: {t: {http: {url: http://h/, headers: {X: \"" + ref + "\\n\"}}}}",
		"log: {level: ${PASSWORD}}\nnats: {password: \"${PASSWORD}\"}",
	} {
		f, problems := load(text)
		if f != nil {
			t.Errorf("%s: loaded", text)
		}
		if got := format(t, problems); strings.Contains(got, canary) {
			t.Errorf("%s:\n%s", text, got)
		}
	}
}

func TestShow_secretsAreHidden(t *testing.T) {
	const canary = "hunter2-canary-bird"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("http://"+canary+"/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, problems := load(`
nats: {url: "nats://me:hunter2-canary-bird@h:1,nats://hunter2-canary-bird@h", user: u, password: "${PASSWORD}"}
targets: {t: {http: {url: "${file:` + file + `}", headers: {X: hunter2-canary-bird}}}}
pools: {p: {target: t, stream: S, subjects: {normal: [a]}}}
admin: {token: hunter2-canary-bird}
`)
	if f == nil {
		t.Fatal(problems)
	}
	for _, changed := range []bool{true, false} {
		got := config.Show(f, changed)
		if strings.Contains(got, canary) || strings.Count(got, "***") != 6 {
			t.Errorf("Show:\n%s", got)
		}
	}
}

// TestShow_readsBack builds valid configurations by choosing settings.
func TestShow_readsBack(t *testing.T) {
	choices := []struct{ path, values string }{
		{"nats", "name: x|embedded: true|url: 'tls://a:1,tls://b:2'|creds: /a b|tls_first: true|inbox_prefix: _I.x"},
		{"shed", "shares: {low: 0.1}|shares: {high: 0.9, normal: 0.9}"},
		{"dlq", "stream: D|subject: dead|max_age: 3d|max_bytes: 2MiB|duplicate_window: 90s|replicas: 3"},
		{"drain", "timeout: 1s|timeout: 90m|pre_stop_delay: 1.5s|flush_timeout: 250ms"},
		{"admin", "listen: unix:/x|listen: '[::1]:0'|pprof: true"},
		{"log", "level: warn|format: json|job: none"},
	}
	target := "timeout: 33s|timeout: 1ms|retry: {max_attempts: 5}|retry: {max_attempts: 1, initial_backoff: 1s}|breaker: {open_for: 5m}|breaker: {consecutive_failures: -1, slow_call: 1s}"
	http := "method: PUT|max_response: 1|headers: {}|forward_headers: [a, b-*]|classify: [{status: 4xx, class: neutral}]|max_retry_after: 1h|max_idle_conns: 3"
	pool := "concurrency: 1|prefetch: 7|job_timeout: 1h|ack_wait: 1s|max_message: 123456|max_park: 7m|redelivery: {max_attempts: 1}|redelivery: {max_age: 10d, multiplier: 1.25}|on_expired: drop"
	stream := "retention: limits|storage: memory|replicas: 5|max_age: 30d|max_bytes: 5GB|duplicate_window: 1s"
	rapid.Check(t, func(t *rapid.T) {
		some := func(values string) string { return some(t, values) }
		var b strings.Builder
		for _, c := range choices {
			b.WriteString(c.path + ": {" + some(c.values) + "}\n")
		}
		b.WriteString("streams:\n  S1: {subjects: [\"s1.>\"], " + some(stream) + "}\n  S2: {subjects: [s2], " + some(stream) + "}\n")
		b.WriteString("targets:\n  a: {http: {url: http://h/a$$b, " + some(http) + "}, " + some(target) + "}\n  b: {http: {url: http://h/b}, " + some(target) + "}\n")
		b.WriteString("pools:\n  p: {target: a, stream: S1, subjects: {low: [s1.a], critical: [s1.b, s1.c.>]}, " + some(pool) + "}\n  q: {target: b, stream: S2, subjects: {normal: [s2]}, " + some(pool) + "}\n")
		want, problems := config.Load("a", []byte(b.String()), env)
		if want == nil {
			t.Fatalf("%v\n%s", problems, b.String())
		}
		for _, changed := range []bool{true, false} {
			text := config.Show(want, changed)
			got, problems := config.Load("b", []byte(text), env)
			if got == nil {
				t.Fatalf("%v\n%s", problems, text)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(config.File{})); diff != "" {
				t.Fatalf("changed only: %v (-want +got)\n%s\n%s", changed, diff, text)
			}
		}
	})
}

// some draws a subset of settings, each key at most once.
func some(t *rapid.T, values string) string {
	seen := map[string]bool{}
	var chosen []string
	for _, v := range rapid.SliceOfN(rapid.SampledFrom(strings.Split(values, "|")), 0, 4).Draw(t, "settings") {
		if key, _, _ := strings.Cut(v, ":"); !seen[key] {
			seen[key] = true
			chosen = append(chosen, v)
		}
	}
	return strings.Join(chosen, ", ")
}

func TestShow_changedOnlyOfDefaultsIsWhatIsRequired(t *testing.T) {
	f, _ := load(minimal)
	got, problems := load(config.Show(f, true))
	if got == nil {
		t.Fatal(problems)
	}
	if want := "targets:\n  t:\n    http:\n      url: http://localhost/\npools:\n  p:\n    target: t\n    stream: S\n    subjects:\n      normal: [a.b]\n"; config.Show(f, true) != want {
		t.Errorf("Show(changed):\n%s", config.Show(f, true))
	}
}

func TestLoad_sizeIsBounded(t *testing.T) {
	if f, problems := load(minimal + "#" + strings.Repeat(" ", 1<<20)); f != nil || len(problems) != 1 || problems[0].Code != config.CodeSyntax {
		t.Errorf("%v", problems)
	}
}

func TestLoad_warningsDoNotStop(t *testing.T) {
	f, problems := load(minimal + "admin: {listen: 0.0.0.0:1}\ndrain: {timeout: 1s}\n")
	if f == nil || len(problems.Warnings()) != 2 || len(problems.Errors()) != 0 {
		t.Fatal(problems)
	}
	if got := problems[0].Code + problems[1].Code; got != config.CodeOpenAdmin+config.CodeDrain {
		t.Errorf("codes %s", got)
	}
	if got := format(t, problems); strings.Contains(got, "problem") {
		t.Errorf("a count of problems although there are none:\n%s", got)
	}
}

func TestLoad_oneMistakeIsOneProblem(t *testing.T) {
	for text, code := range map[string]config.Code{
		strings.Replace(minimal, "target: t", "taget: t", 1):                 config.CodeUnknown,
		strings.Replace(minimal, "target: t", "target: tt", 1):               config.CodeTarget,
		strings.Replace(minimal, "target: t", "target:", 1):                  config.CodeRequired,
		strings.Replace(minimal, "target: t, ", "", 1):                       config.CodeRequired,
		strings.Replace(minimal, "http:", "htpp:", 1):                        config.CodeUnknown,
		strings.Replace(minimal, "subjects: {normal", "subjects: {nrmal", 1): config.CodeRange,
		strings.Replace(minimal, "a.b", "", 1):                               config.CodeRequired,
		strings.Replace(minimal, "a.b", "a..b", 1):                           config.CodeSubject,
		strings.Replace(minimal, "a.b", "'${NOPE}'", 1):                      config.CodeReference,
		strings.Replace(minimal, "a.b", "a.b, a.*", 1):                       config.CodeOverlap,
		strings.Replace(minimal, "a.b", "workerd.dlq.>", 1):                  config.CodeLoop,
		"pools: {": config.CodeSyntax,
		minimal + "streams: {S: {subjects: [c]}}\n":      config.CodeOutside,
		minimal + "pools: {}\n":                          config.CodeSyntax,
		minimal + "x-free: {a: b}\nlog: {x-free: 1}\n":   config.CodeUnknown,
		minimal + "admin: {listen: '127.0.0.1:99999'}\n": config.CodeRange,
		minimal + "nats: {key: a}\n":                     config.CodeRequired,
	} {
		_, problems := load(text)
		errs := problems.Errors()
		if len(errs) != 1 || errs[0].Code != code {
			t.Errorf("%s\nwant one %s, got\n%s", text, code, format(t, problems))
		}
		if len(problems.Warnings()) > 0 && code == config.CodeTarget {
			t.Errorf("a misspelled target is called unused:\n%s", format(t, problems))
		}
	}
}

func TestFormat_color(t *testing.T) {
	_, problems := load("nats: {nam: x}\n" + minimal + "admin: {listen: ':1'}\n")
	var plain, colored strings.Builder
	if problems.Format(&plain, false) != nil || problems.Format(&colored, true) != nil {
		t.Fatal("a builder does not fail")
	}
	bare := strings.NewReplacer("\x1b[1m", "", "\x1b[31m", "", "\x1b[33m", "", "\x1b[0m", "").Replace(colored.String())
	if bare != plain.String() || bare == colored.String() {
		t.Errorf("%q", colored.String())
	}
	if !strings.HasSuffix(bare, "test.yaml: 1 problem, 1 warning\n") {
		t.Errorf("%q", bare)
	}
}

func TestFormat_cannotMoveTheCursor(t *testing.T) {
	_, problems := load("\"\\e[2J\\u202e\": 1\n")
	if got := format(t, problems); strings.ContainsAny(got, "\x1b\u202e") {
		t.Errorf("%q", got)
	}
}

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		if strings.Contains(string(source), "file:") {
			t.Skip("references could name any file of this machine")
		}
		file, problems := config.Load("fuzz.yaml", source, env)
		if (file == nil) != (len(problems.Errors()) > 0) {
			t.Fatalf("file %v with %v", file, problems)
		}
		checkPositions(t, string(source), problems)
		var b strings.Builder
		if err := problems.Format(&b, false); err != nil || !utf8.ValidString(b.String()) {
			t.Fatalf("not printable: %q", b.String())
		}
		if file != nil && !strings.Contains(config.Show(file, false), "***") {
			readsBack(t, file)
		}
	})
}

func readsBack(t *testing.T, want *config.File) {
	t.Helper()
	for _, changed := range []bool{true, false} {
		text := config.Show(want, changed)
		got, problems := config.Load("shown.yaml", []byte(text), env)
		if got == nil {
			t.Fatalf("%v\n%s", problems, text)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(config.File{})); diff != "" {
			t.Fatalf("(-want +got)\n%s\n%s", diff, text)
		}
	}
}

// TestLoad_largestInputsEnd has inputs on which a careless reader takes
// minutes: everything on one line, as JSON is, or very many of one thing.
func TestLoad_largestInputsEnd(t *testing.T) {
	fill := func(before, item, after string) string {
		return before + strings.Repeat(item, (1<<20-len(before)-len(after))/len(item)) + after
	}
	many := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.ReplaceAll(format, "#", strconv.Itoa(i)))
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"nesting":      fill("", "[", ""),
		"mappings":     fill("", "{a: ", ""),
		"unknown":      "{" + many("k#: 1, ", 2_000) + "é: 1}",
		"quoted":       "{pools: {" + many(`"k#": "x", `, 5_000) + "}}",
		"subjects":     "{pools: {p: {target: t, stream: S, subjects: {low: [" + many("a#.*, ", 1_000) + "]}}}}",
		"pools":        "targets: {t: {http: {url: http://h/}}}\npools: {" + many("p#: {target: t, stream: S, subjects: {low: [a.#]}}, ", 4_000) + "}",
		"references":   fill("nats: {name: '", "${WORD}", "'}"),
		"unclosed":     fill("nats: {name: '", "${", "'}"),
		"secrets":      fill("nats: {name: '", "password: ", "'}"),
		"urls":         fill("nats: {url: '", "://", "'}"),
		"anchors":      "x-a: [" + many("&a# 1, ", 60_000) + "]",
		"long problem": fill("nats: {url: '", "x", "'}"),
	} {
		t.Run(name, func(t *testing.T) {
			f, problems := load(text)
			if len(problems) > 1001 {
				t.Errorf("%d problems", len(problems))
			}
			checkPositions(t, text, problems)
			if got := format(t, problems); f == nil && got == "" {
				t.Error("refused without a word")
			}
		})
	}
}

// TestLoad_healthChecksKeepTheirPaceWhileTheBreakerIsOpen: otherwise a target that
// is known to be well would wait for a probe of the breaker.
func TestLoad_healthChecksKeepTheirPaceWhileTheBreakerIsOpen(t *testing.T) {
	for _, c := range []struct {
		more string
		want time.Duration
	}{
		{"probe: /healthz, degrade_when: {unhealthy: 3}", 5 * time.Second},
		{"probe: /healthz, degrade_when: {unhealthy: 3, interval: 2s}", 2 * time.Second},
		{"probe: /healthz, degrade_when: {unhealthy: 3, interval: 5m}", 2 * time.Minute}, // max_open_for
		{"probe: {path: /healthz, interval: 30s}, degrade_when: {unhealthy: 3}", 30 * time.Second},
		{"probe: /healthz, degrade_when: {fallback_rate: 0.5}", 0},
		{"probe: /healthz", 0},
	} {
		file, problems := config.Load("test.yaml", []byte(`
targets: {t: {http: {url: "http://127.0.0.1:1/"}, fallback: [{dead_letter: true}], `+c.more+`}}
pools: {p: {target: t, stream: JOBS, subjects: {normal: [jobs.>]}}}
`), func(string) (string, bool) { return "", false })
		if file == nil {
			t.Fatal(problems)
		}
		if got := file.Targets["t"].Probe.Interval; got != c.want {
			t.Errorf("%s: every %s, want %s", c.more, got, c.want)
		}
	}
}
