// Package internal_test keeps the house in order: which package may import
// which, who starts goroutines, and the shape of files and functions. A rule
// that is broken names the line and says what to do. There is no switch to
// turn one off; the tables below are changed with the design, and reviewed.
package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/workerd/workerd/"

	maxFileLines     = 400
	maxTestFileLines = 700
	maxFuncLines     = 70  // between the braces
	maxTestFuncLines = 100 // tables are data
)

// layers says which of our packages each package may import. A key or an
// entry ending in "/*" means the packages one level below. "..." stands for
// everything but cmd. A row whose package does not exist yet does no harm.
func layers() map[string][]string {
	return map[string][]string{
		"cmd/workerd": {
			"configs", "internal/app", "internal/admin", "internal/config", "internal/broker", "internal/demo", "internal/queue",
			"internal/dlq", "internal/job", "internal/whatif", "internal/shutdown", "internal/secret", "internal/target", "internal/target/*", "internal/oneline",
		},
		"configs":         {},
		"internal/app":    {"..."},
		"internal/whatif": {"..."}, // a whole workerd in a bubble
		"internal/config": { // for their Config only
			"internal/breaker", "internal/retry", "internal/target", "internal/target/*", "internal/queue",
			"internal/pool", "internal/probe", "internal/shed", "internal/limiter", "internal/valve", "internal/pressure", "internal/fallback", "internal/hedge", "internal/cache", "internal/dlq", "internal/attempts", "internal/admin", "internal/secret", "internal/job",
		},
		"internal/config/gen": {"internal/config"},
		"internal/metrics": {
			"internal/job", "internal/pool", "internal/breaker", "internal/bulkhead", "internal/shed", "internal/pipeline", "internal/fallback", "internal/cache", "internal/hedge",
		},
		"internal/admin":    {"internal/secret"}, // it declares the Status it shows
		"internal/gate":     {"internal/job", "internal/pool", "internal/breaker", "internal/limiter", "internal/valve", "internal/pressure", "internal/fallback"},
		"internal/pool":     {"internal/job", "internal/bulkhead", "internal/shed", "internal/retry", "internal/valve"}, // of valve its Config
		"internal/pipeline": {"internal/job", "internal/retry", "internal/breaker", "internal/limiter", "internal/target", "internal/fallback", "internal/cache", "internal/hedge"},
		"internal/probe":    {"internal/job", "internal/breaker"},
		"internal/fallback": {"internal/job"},
		"internal/result":   {"internal/job", "internal/pool", "internal/queue", "internal/oneline"},
		"internal/cache":    {"internal/job"},
		"internal/queue":    {"internal/codel", "internal/shed", "internal/job", "internal/secret"},
		"internal/dlq":      {"internal/job", "internal/secret", "internal/queue"},
		"internal/attempts": {"internal/job", "internal/queue"},
		"internal/target":   {"internal/job", "internal/secret"},
		"internal/target/*": {"internal/job", "internal/secret", "internal/target"}, // they know nothing of each other
		"internal/broker":   {},
		"internal/demo":     {"internal/job"},

		// For tests, and imported by tests only.
		"internal/natstest":  {"internal/broker", "internal/queue"},
		"internal/sim":       {}, // all of it is tests
		"internal/testkit":   {"..."},
		"internal/testkit/*": {"..."},
		"test/*":             {"..."},

		// The leaves: the standard library only. shed speaks of priorities, and
		// is otherwise one of them.
		"internal/job":      {},
		"internal/retry":    {},
		"internal/breaker":  {},
		"internal/bulkhead": {},
		"internal/codel":    {},
		"internal/hedge":    {},
		"internal/limiter":  {}, // and golang.org/x/time/rate
		"internal/valve":    {},
		"internal/pressure": {},
		"internal/shed":     {"internal/job"},
		"internal/shutdown": {},
		"internal/secret":   {},
		"internal/oneline":  {},
	}
}

// leaves import nothing but the standard library.
func leaves() []string {
	return []string{
		"internal/job", "internal/retry", "internal/breaker", "internal/bulkhead", "internal/codel", "internal/shed", "internal/shutdown", "internal/secret",
		"internal/valve", "internal/pressure", "internal/oneline", "internal/hedge",
	}
}

// starters lists the functions that hold a go statement, and who waits for
// the goroutine. Prefer [sync.WaitGroup.Go], which waits by itself and needs
// no row here.
func starters() map[string]starter {
	return map[string]starter{}
}

type starter struct {
	count int
	owner string // and when the goroutine ends
}

// forTests tells support code for tests from what is shipped.
func forTests(dir string) bool {
	return strings.HasPrefix(dir+"/", "test/") || strings.HasPrefix(dir+"/", "internal/testkit/") ||
		slices.Contains([]string{"internal/natstest", "internal/target/targettest"}, dir)
}

func TestArch_packagesImportOnlyWhatTheirRowAllows(t *testing.T) {
	for _, f := range everything(t) {
		if !f.isTest() {
			report(t, f.imports(layers()))
		}
	}
}

func TestArch_leavesImportTheStandardLibraryOnly(t *testing.T) {
	for _, f := range shipped(t) {
		report(t, f.foreignImports(leaves()))
	}
}

func TestArch_packageNamesSaySomething(t *testing.T) {
	for _, f := range everything(t) {
		report(t, f.packageName())
	}
}

func TestArch_everyPackageHasAComment(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range everything(t) {
		if !f.isTest() {
			documented[f.dir] = documented[f.dir] || f.packageComment()
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment; say what it is (`// Package x …`, `// Command x …`), what it guarantees and what it leaves to others", dir)
		}
	}
}

func TestArch_filesAndFunctionsAreShort(t *testing.T) {
	for _, f := range everything(t) {
		report(t, f.length())
		report(t, f.functionLengths())
	}
}

func TestArch_noInitAndNoGlobals(t *testing.T) {
	for _, f := range everything(t) {
		report(t, f.initFunctions())
	}
	for _, f := range shipped(t) {
		report(t, f.globals())
	}
}

func TestArch_nobodySleeps(t *testing.T) {
	for _, f := range everything(t) {
		report(t, f.sleeps())
	}
}

func TestArch_goroutinesHaveAnOwner(t *testing.T) {
	counts := map[string]int{}
	for _, f := range shipped(t) {
		for fn, n := range f.goStatements() {
			counts[fn] += n
		}
	}
	for fn, n := range counts {
		if want := starters()[fn]; n != want.count {
			t.Errorf("%s: %d go statements, %d allowed; use sync.WaitGroup.Go, or name the owner in starters() of internal/arch_test.go", fn, n, want.count)
		}
	}
	for fn, s := range starters() {
		if s.owner == "" {
			t.Errorf("starters(): %s has no owner", fn)
		}
	}
}

// TestArch_rulesCatchWhatTheyForbid guards the guards: a rule that never
// fires would look like a tidy house.
func TestArch_rulesCatchWhatTheyForbid(t *testing.T) {
	long := strings.Repeat("\tprintln()\n", maxFuncLines+1)
	for _, c := range []struct {
		name, file, code string
		rule             func(*source) []string
		want             int
	}{
		{"import above", "internal/job/x.go", `import "github.com/workerd/workerd/internal/pool"`, importsOf, 1},
		{"import allowed", "internal/pool/x.go", `import "github.com/workerd/workerd/internal/job"`, importsOf, 0},
		{"import of itself", "internal/pool/x.go", `import "github.com/workerd/workerd/internal/pool"`, importsOf, 0},
		{"import of a sibling", "internal/target/a/x.go", `import "github.com/workerd/workerd/internal/target/b"`, importsOf, 1},
		{"import by pattern", "internal/config/x.go", `import "github.com/workerd/workerd/internal/target/b"`, importsOf, 0},
		{"import of cmd", "internal/app/x.go", `import "github.com/workerd/workerd/cmd/workerd"`, importsOf, 1},
		{"import of test support", "internal/app/x.go", `import "github.com/workerd/workerd/internal/natstest"`, importsOf, 1},
		{"unknown package", "internal/new/x.go", ``, importsOf, 1},
		{"leaf with a library", "internal/job/x.go", `import "go.uber.org/zap"`, foreignOf, 1},
		{"leaf with the standard library", "internal/job/x.go", `import "net/http"`, foreignOf, 0},
		{"name that says nothing", "internal/util/x.go", ``, (*source).packageName, 1},
		{"init", "internal/job/x.go", `func init() {}`, (*source).initFunctions, 1},
		{"method named init", "internal/job/x.go", "type t int\nfunc (t) init() {}", (*source).initFunctions, 0},
		{"global", "internal/job/x.go", `var cache = map[string]int{}`, (*source).globals, 1},
		{"global without value", "internal/job/x.go", `var mu sync.Mutex`, (*source).globals, 1},
		{"sentinel", "internal/job/x.go", `var ErrFull = errors.New("full")`, (*source).globals, 0},
		{"assertion", "internal/job/x.go", `var _ io.Reader = (*T)(nil)`, (*source).globals, 0},
		{"embed", "internal/job/x.go", "//go:embed page.html\nvar page string", (*source).globals, 0},
		{"pattern", "internal/job/x.go", `var word = regexp.MustCompile("a+")`, (*source).globals, 0},
		{"sleep", "internal/job/x.go", `func f() { time.Sleep(1) }`, (*source).sleeps, 1},
		{"sleep under another name", "internal/job/x.go", "import clock \"time\"\nfunc f() { clock.Sleep(1) }", (*source).sleeps, 1},
		{"sleep in a test", "internal/job/x_test.go", `func f() { time.Sleep(1) }`, (*source).sleeps, 1},
		{"sleep in a bubble", "internal/job/x_test.go", "import \"testing/synctest\"\nfunc f() { time.Sleep(1) }", (*source).sleeps, 0},
		{"long function", "internal/job/x.go", "func f() {\n" + long + "}", (*source).functionLengths, 1},
		{"long literal", "internal/job/x.go", "func f() {\nfunc() {\n" + long + "}()}", (*source).functionLengths, 1},
		{"long function, defended", "internal/job/x.go", "// long: one straight line\nfunc f() {\n" + long + "}", (*source).functionLengths, 0},
		{"long function, undefended", "internal/job/x.go", "// long:\nfunc f() {\n" + long + "}", (*source).functionLengths, 1},
		{"long file", "internal/job/x.go", strings.Repeat("\n", maxFileLines), (*source).length, 1},
		{"long test", "internal/job/x_test.go", strings.Repeat("\n", maxFileLines), (*source).length, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := parse(t, c.file, []byte("package "+path.Base(path.Dir(c.file))+"\n"+c.code+"\n"))
			if got := c.rule(f); len(got) != c.want {
				t.Errorf("found %d problems, want %d: %q", len(got), c.want, got)
			}
		})
	}
	f := parse(t, "internal/a/x.go", []byte("package a\nfunc f() { go f() }\nfunc (*T) g() { func() { go f() }() }\n"))
	if got := f.goStatements(); got["internal/a.f"] != 1 || got["internal/a.T.g"] != 1 {
		t.Errorf("go statements found: %v", got)
	}
}

func importsOf(f *source) []string { return f.imports(layers()) }
func foreignOf(f *source) []string { return f.foreignImports(leaves()) }

// source is one parsed file.
type source struct {
	name, dir string // relative to the module, with slashes
	text      []byte
	fset      *token.FileSet
	syntax    *ast.File
}

func (f *source) isTest() bool    { return strings.HasSuffix(f.name, "_test.go") }
func (f *source) generated() bool { return ast.IsGenerated(f.syntax) }

// at reports a problem at a node as file:line: message.
func (f *source) at(n ast.Node, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: ", f.name, f.fset.Position(n.Pos()).Line) + fmt.Sprintf(format, args...)
}

func (f *source) imports(rows map[string][]string) (problems []string) {
	allowed, ok := row(rows, f.dir)
	if !ok {
		return []string{f.name + ": package " + f.dir + " is new; give it a row in layers() of internal/arch_test.go, and a line in docs/architecture.md"}
	}
	for _, spec := range f.syntax.Imports {
		to, ours := strings.CutPrefix(unquote(spec), module)
		switch {
		case !ours || to == f.dir:
		case forTests(to) && !forTests(f.dir):
			problems = append(problems, f.at(spec, "%s is for tests only", to))
		case !permits(allowed, to):
			problems = append(problems, f.at(spec, "%s must not import %s; allowed: %s (layers() in internal/arch_test.go)", f.dir, to, strings.Join(allowed, ", ")))
		}
	}
	return problems
}

func (f *source) foreignImports(leaves []string) (problems []string) {
	if !slices.Contains(leaves, f.dir) {
		return nil
	}
	for _, spec := range f.syntax.Imports {
		p := unquote(spec)
		first, _, _ := strings.Cut(p, "/")
		if strings.Contains(first, ".") && !strings.HasPrefix(p, module) {
			problems = append(problems, f.at(spec, "%s is a leaf and imports the standard library only, not %s", f.dir, p))
		}
	}
	return problems
}

func (f *source) packageName() []string {
	name := strings.TrimSuffix(strings.TrimSuffix(f.syntax.Name.Name, "_test"), "s")
	if !slices.Contains([]string{"util", "common", "type", "helper", "model", "misc", "shared"}, name) {
		return nil
	}
	return []string{f.at(f.syntax.Name, "package %s says nothing; name the idea, or copy the five lines", f.syntax.Name.Name)}
}

func (f *source) packageComment() bool {
	doc := f.syntax.Doc.Text()
	return strings.HasPrefix(doc, "Package "+f.syntax.Name.Name+" ") || f.syntax.Name.Name == "main" && strings.HasPrefix(doc, "Command ")
}

func (f *source) length() []string {
	limit := maxFileLines
	if f.isTest() {
		limit = maxTestFileLines
	}
	lines := strings.Count(string(f.text), "\n")
	if lines <= limit || f.generated() {
		return nil
	}
	return []string{fmt.Sprintf("%s: %d lines, %d allowed; split it by idea", f.name, lines, limit)}
}

func (f *source) functionLengths() (problems []string) {
	limit := maxFuncLines
	if f.isTest() || forTests(f.dir) {
		limit = maxTestFuncLines
	}
	if f.generated() {
		return nil
	}
	for _, d := range f.syntax.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil || defended(fn.Doc) {
			continue
		}
		lines := f.fset.Position(fn.Body.Rbrace).Line - f.fset.Position(fn.Body.Lbrace).Line - 1
		if lines > limit {
			problems = append(problems, f.at(fn, "%s has %d lines, %d allowed; split it, or defend it with `//nolint:funlen // long: <reason>` directly above", fn.Name.Name, lines, limit))
		}
	}
	return problems
}

// defended finds "long: <reason>" in the comment above a function.
func defended(doc *ast.CommentGroup) bool {
	if doc == nil {
		return false
	}
	for _, c := range doc.List {
		if _, reason, ok := strings.Cut(c.Text, "long:"); ok && strings.TrimSpace(reason) != "" {
			return true
		}
	}
	return false
}

func (f *source) initFunctions() (problems []string) {
	for _, d := range f.syntax.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			problems = append(problems, f.at(fn, "no init functions; do it where the thing is made"))
		}
	}
	return problems
}

func (f *source) globals() (problems []string) {
	for _, d := range f.syntax.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.VAR {
			continue
		}
		for _, s := range decl.Specs {
			spec := s.(*ast.ValueSpec)
			for i, name := range spec.Names {
				if !constantEnough(name.Name, spec, i) && !embedded(spec.Doc) && !embedded(decl.Doc) {
					problems = append(problems, f.at(name, "%s is a global; two instances must work in one process, so pass it, or make it a function", name.Name))
				}
			}
		}
	}
	return problems
}

var errName = regexp.MustCompile(`^(Err|err)[A-Z]`)

// constantEnough: sentinel errors, compile-time assertions, patterns.
func constantEnough(name string, spec *ast.ValueSpec, i int) bool {
	if name == "_" {
		return true
	}
	if i >= len(spec.Values) {
		return false
	}
	call, ok := spec.Values[i].(*ast.CallExpr)
	return errName.MatchString(name) || ok && selected(call.Fun) == "regexp.MustCompile"
}

func embedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// sleeps: a sleep in a bubble of testing/synctest takes no time, so a test
// file that uses bubbles may sleep; inside them, that is.
func (f *source) sleeps() (problems []string) {
	clock := "time"
	for _, spec := range f.syntax.Imports {
		switch p := unquote(spec); {
		case p == "testing/synctest" && f.isTest():
			return nil
		case p == "time" && spec.Name != nil:
			clock = spec.Name.Name
		}
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && selected(sel) == clock+".Sleep" {
			problems = append(problems, f.at(n, "no time.Sleep; wait for the event, on a timer and a context, or in a synctest bubble"))
		}
		return true
	})
	return problems
}

// goStatements counts them by the function they stand in: dir.Func, dir.Type.Method.
func (f *source) goStatements() map[string]int {
	counts := map[string]int{}
	for _, d := range f.syntax.Decls {
		ast.Inspect(d, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				counts[f.dir+"."+declared(d)]++
			}
			return true
		})
	}
	return counts
}

func declared(d ast.Decl) string {
	fn, ok := d.(*ast.FuncDecl)
	if !ok {
		return "var"
	}
	if fn.Recv == nil {
		return fn.Name.Name
	}
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if generic, ok := t.(*ast.IndexExpr); ok {
		t = generic.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// selected returns "pkg.Name" of a selector, or "".
func selected(e ast.Expr) string {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return id.Name + "." + sel.Sel.Name
}

// row finds what dir may import; the longest matching key wins.
func row(rows map[string][]string, dir string) ([]string, bool) {
	if r, ok := rows[dir]; ok {
		return r, true
	}
	r, ok := rows[path.Dir(dir)+"/*"]
	return r, ok
}

func permits(allowed []string, to string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		return a == to || a == path.Dir(to)+"/*" || a == "..." && !strings.HasPrefix(to, "cmd/")
	})
}

func unquote(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic("arch: the parser let a bad import path through: " + err.Error())
	}
	return p
}

func report(t *testing.T, problems []string) {
	t.Helper()
	for _, p := range problems {
		t.Error(p)
	}
}

// shipped returns every file but tests and their support.
func shipped(t *testing.T) []*source {
	t.Helper()
	return slices.DeleteFunc(everything(t), func(f *source) bool { return f.isTest() || forTests(f.dir) })
}

// everything parses all Go files of the module.
func everything(t *testing.T) (files []*source) {
	t.Helper()
	const root = ".."
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if name != root && (strings.HasPrefix(e.Name(), ".") || slices.Contains([]string{"testdata", "vendor", "tools", "bin", "dist"}, e.Name())) {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".go") {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			files = append(files, parse(t, filepath.ToSlash(rel), text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no Go files found: the rules would hold for an empty house")
	}
	return files
}

func parse(t *testing.T, name string, text []byte) *source {
	t.Helper()
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return &source{name: name, dir: path.Dir(name), text: text, fset: fset, syntax: syntax}
}
