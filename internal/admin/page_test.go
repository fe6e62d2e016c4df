package admin_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/admin"
)

func TestPage_looksAsItShould(t *testing.T) {
	for name, f := range map[string]*fake{"calm": calmDay(), "outage": outage(), "leaving": leaving(), "nothing": {status: admin.Status{Now: noon(), Started: noon()}}} {
		golden(t, "testdata/"+name+".html", page(t, f))
	}
}

func TestPage_mainPartIsPartOfThePage(t *testing.T) {
	s := visit(t, outage(), admin.Config{})
	part := s.get("/?part=main")
	if !strings.HasPrefix(part, "<header>") || !strings.Contains(s.get("/"), part) {
		t.Errorf("the part is not in the page:\n%.300s", part)
	}
}

func TestPage_hasNoInlineScriptOrStyle(t *testing.T) {
	body := page(t, hostile())
	for _, tag := range tags(body) {
		if strings.HasPrefix(tag, "<script") && tag != `<script src="/page.js" defer>` {
			t.Errorf("script: %s", tag)
		}
		if regexp.MustCompile(`(?i)^<style|\s(on\w+|style|srcdoc)\s*=|javascript:`).MatchString(tag) {
			t.Errorf("the policy forbids %s", tag)
		}
	}
}

func TestPage_asksNobodyElse(t *testing.T) {
	s := visit(t, outage(), admin.Config{})
	links := regexp.MustCompile(`(?:href|src|url|import|fetch)\s*[=(]\s*["']?(https?:|//)`)
	for _, path := range []string{"/", "/page.css", "/page.js"} {
		if found := links.FindAllString(s.get(path), -1); found != nil {
			t.Errorf("%s: %q", path, found)
		}
	}
}

// tags of a page, in order. Text holds no "<" and no ">", as they are escaped.
func tags(page string) []string { return regexp.MustCompile(`<[^<>]*>`).FindAllString(page, -1) }

// everywhere is a status with the same text wherever a job, a target or a
// configuration can put one.
func everywhere(text string) *fake {
	f := outage()
	s := &f.status
	s.Instance, s.Version, s.NATS.URL = text, text, text
	s.Checks = []admin.Check{{Name: text, Message: text}}
	s.Pools = []admin.Pool{
		{Name: text, Target: text, State: admin.PoolHeld, HoldReason: text, OldestJobAgeSeconds: 1},
		{Name: text, State: admin.PoolState("x" + text), Why: "x" + text},
		{Name: text, State: admin.PoolStarting, Consumers: []admin.Consumer{{Name: text, Problem: text}}},
	}
	s.Targets = []admin.Target{{Name: text, Kind: text, URL: text, Breaker: admin.Breaker{State: "x" + text, Reason: text, Note: text}, Degraded: &admin.Degraded{On: true, By: text, Note: text, Probe: text}}}
	s.Failures = []admin.Failure{{At: noon(), Pool: text, JobID: text, Subject: text, Outcome: "x" + text, Reason: text, Error: text}}
	s.Drain = &admin.Drain{Phase: text, Since: noon()}
	return f
}

// TestPage_textsNeverBecomeMarkup: whatever the texts say, the tags are those
// of a page with harmless texts.
func TestPage_textsNeverBecomeMarkup(t *testing.T) {
	want := tags(page(t, everywhere("harmless")))
	for _, attack := range attacks() {
		body := page(t, everywhere(attack))
		if diff := cmp.Diff(want, tags(body)); diff != "" {
			t.Errorf("%.60q changes the tags:\n%s", attack, diff)
		}
		isPlain(t, body)
	}
}

// isPlain checks that nothing in a page can hide or reorder what is shown.
func isPlain(t *testing.T, page string) {
	t.Helper()
	if !utf8.ValidString(page) {
		t.Error("the page is not UTF-8")
	}
	for _, r := range page {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("the page has %U in it", r)
		}
	}
}

func TestPage_survivesWhateverTheBackendSays(t *testing.T) {
	s := visit(t, hostile(), admin.Config{})
	for _, path := range []string{"/", "/?part=main", "/api/v1/status"} {
		if res, body := s.ask(http.MethodGet, path, nil); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s: %s", path, res.Status, body)
		}
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(s.get("/api/v1/status")), &v); err != nil {
		t.Error(err)
	}
}

// page asks for the page once.
func page(t *testing.T, f *fake) string {
	t.Helper()
	return visit(t, f, admin.Config{}).get("/")
}

func FuzzPage(f *testing.F) {
	for _, a := range attacks() {
		f.Add(a)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.TrimSpace(text) == "" {
			return // says nothing, so its place is left out
		}
		want := tags(page(t, everywhere("harmless")))
		got := page(t, everywhere(text))
		if diff := cmp.Diff(want, tags(got)); diff != "" {
			t.Errorf("%q changes the tags:\n%s", text, diff)
		}
		isPlain(t, got)
	})
}
