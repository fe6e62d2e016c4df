package job_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/workerd/workerd/internal/job"
)

// declared returns the string constants of this package whose name or type
// begins so, by name.
func declared(t *testing.T, file, prefix string) map[string]string {
	t.Helper()
	syntax, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(syntax, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		typ, _ := spec.Type.(*ast.Ident)
		for i, name := range spec.Names {
			if !strings.HasPrefix(name.Name, prefix) && (typ == nil || typ.Name != prefix) || i >= len(spec.Values) {
				continue
			}
			if lit, ok := spec.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if found[name.Name], err = strconv.Unquote(lit.Value); err != nil {
					t.Fatal(err)
				}
			}
		}
		return true
	})
	if len(found) == 0 {
		t.Fatalf("no %s in %s", prefix, file)
	}
	return found
}

// TestReasons_areAll that are declared: a metric is made for each at the start,
// and one that is missing would be a label value out of nowhere.
func TestReasons_areAll(t *testing.T) {
	all := job.Reasons()
	names := declared(t, "outcome.go", "Reason")
	for name, value := range names {
		if !slices.Contains(all, job.Reason(value)) {
			t.Errorf("%s (%s) is not among Reasons()", name, value)
		}
	}
	if len(all) != len(names) {
		t.Errorf("Reasons() has %d, %d are declared", len(all), len(names))
	}
}

func TestActions_areAllThatEndADelivery(t *testing.T) {
	all := job.Actions()
	if len(all) != int(job.Park) {
		t.Fatalf("%d actions, want all before Park, which ends nothing", len(all))
	}
	for i, a := range all {
		if a != job.Action(i) {
			t.Errorf("%v is at %d; counters are indexed by action", a, i)
		}
	}
}

// TestHeaders_areOneWordEach: no two mean the same key in any case, since NATS
// keeps the case and readers differ; and each can be written by any client.
func TestHeaders_areOneWordEach(t *testing.T) {
	key := regexp.MustCompile(`^(Workerd|Nats)(-[A-Z][A-Za-z]*)+-?$`)
	seen := map[string]string{}
	for name, value := range declared(t, "header.go", "Header") {
		if other, ok := seen[strings.ToLower(value)]; ok {
			t.Errorf("%s and %s are both %s", name, other, value)
		}
		seen[strings.ToLower(value)] = name
		if !key.MatchString(value) {
			t.Errorf("%s: %q is no header of ours", name, value)
		}
	}
}

func TestHeader_readsTheSameEveryTime(t *testing.T) {
	h := job.Header{"WORKERD-TTL": {"1s"}, "workerd-ttl": {"2s"}, "Workerd-ttl": {"3s"}, "WORKERD-ttl": {}}
	for range 100 {
		if got := h.Get("Workerd-TTL"); got != "1s" {
			t.Fatalf("got %s, want that of the first key in byte order", got)
		}
	}
	h["Workerd-TTL"] = []string{"4s"}
	if got := h.Get("Workerd-TTL"); got != "4s" {
		t.Errorf("got %s, want that of the very key", got)
	}
}

func TestPriority_importanceIsTheOrder(t *testing.T) {
	if !(job.Critical < job.High && job.High < job.Normal && job.Normal < job.Low) || int(job.Low) != job.Priorities-1 {
		t.Error("a smaller priority is more important, and Low is the last")
	}
	if got := job.Priority(9).String(); got != "priority(9)" {
		t.Errorf("an unknown one is called %q", got)
	}
	_, err := job.ParsePriority("urgent")
	for p := range job.Priority(job.Priorities) {
		if err == nil || !strings.Contains(err.Error(), p.String()) {
			t.Errorf("the error %v does not offer %s", err, p)
		}
	}
}

// FuzzParsePriority: only the four words are priorities, and each is its own.
func FuzzParsePriority(f *testing.F) {
	for _, s := range []string{"critical", "high", "normal", "low", "", "High", " low", "priority(3)", "normal\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := job.ParsePriority(s)
		if err == nil && p.String() != s {
			t.Errorf("%q is taken for %s", s, p)
		}
		if int(p) >= job.Priorities {
			t.Errorf("%q: %d cannot index an array", s, p)
		}
	})
}

// FuzzHeader_Get: what is there is found in upper and lower case.
func FuzzHeader_Get(f *testing.F) {
	f.Add("Workerd-TTL", "1s", "workerd-ttl", "2s")
	f.Add("", "", "K", "\u212a")
	f.Fuzz(func(t *testing.T, key, value, other, value2 string) {
		h := job.Header{other: {value2}}
		h[key] = []string{value}
		if got := h.Get(key); got != value {
			t.Errorf("%q is %q, want %q", key, got, value)
		}
		if got := h.Get(strings.ToUpper(key)); strings.EqualFold(strings.ToUpper(key), key) && got != value && got != value2 {
			t.Errorf("%q in upper case is %q", key, got)
		}
	})
}
