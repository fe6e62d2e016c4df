package whatif

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/queue"
)

// Bounds of a test.
const (
	maxJobs  = 100_000
	minLimit = time.Second
	maxLimit = 30 * 24 * time.Hour
)

// checker compares the tests of a suite with their configuration.
type checker struct {
	*config.Document
	cfg   *config.File
	names []string // of what can be expected
}

func (s *Suite) check(doc *config.Document) {
	c := checker{doc, s.Config, expectable(s.Config)}
	if len(s.Tests) == 0 {
		c.Problem(config.CodeRequired, "tests", "there is no test", "add tests: [{name: …, jobs: {subject: …}, expect: {ok: 1}}]")
	}
	seen := map[string]bool{}
	for i, t := range s.Tests {
		path := fmt.Sprintf("tests[%d]", i)
		switch {
		case t.Name == "":
			c.Problem(config.CodeRequired, path+".name", "a test needs a name", "")
		case seen[t.Name]:
			c.Problem(config.CodeRange, path+".name", fmt.Sprintf("another test is named %q", t.Name), "")
		}
		seen[t.Name] = true
		c.test(path, t)
	}
}

func (c checker) test(path string, t Test) {
	if len(t.Jobs) == 0 {
		c.Problem(config.CodeRequired, path+".jobs", "a test needs jobs", "add jobs: {subject: …}")
	}
	total := 0
	for i, j := range t.Jobs {
		c.jobs(fmt.Sprintf("%s.jobs[%d]", path, i), j)
		total += j.Count
	}
	if total > maxJobs {
		c.Problem(config.CodeRange, path+".jobs", fmt.Sprintf("%d jobs are not allowed, use up to %d", total, maxJobs), "")
	}
	for _, name := range sorted(t.Targets) {
		c.steps(path+".targets."+name, name, t.Targets[name])
	}
	if t.Limit < minLimit || t.Limit > maxLimit {
		c.Problem(config.CodeRange, path+".limit", fmt.Sprintf("%s is not allowed, use 1s to 30d", short(t.Limit)), "")
	}
	if len(t.Expect) == 0 {
		c.Problem(config.CodeRequired, path+".expect", "a test that expects nothing proves nothing", "add for example expect: {ok: 1, dead: 0}")
	}
	for _, name := range sorted(t.Expect) {
		c.expectation(path+".expect."+name, name, t.Expect[name])
	}
}

func (c checker) jobs(path string, j Jobs) {
	switch err := queue.CheckSubject(j.Subject); {
	case j.Subject == "":
		c.Problem(config.CodeRequired, path+".subject", "jobs need a subject", "")
	case err != nil:
		c.Problem(config.CodeSubject, path+".subject", err.Error(), "")
	case strings.ContainsAny(j.Subject, "*>"):
		c.Problem(config.CodeSubject, path+".subject", "a job is published to a subject without wildcards", "")
	case len(Takers(c.cfg, j.Subject)) == 0:
		c.Problem(config.CodeOutside, path+".subject", fmt.Sprintf("no pool takes jobs on %q", j.Subject), "they take: "+strings.Join(c.filters(), ", "))
	}
	if j.Count < 1 || j.Count > maxJobs {
		c.Problem(config.CodeRange, path+".count", fmt.Sprintf("%d is not allowed, use 1 to %d", j.Count, maxJobs), "")
	}
}

func (c checker) steps(path, target string, steps []Step) {
	if _, ok := c.cfg.Targets[target]; !ok {
		c.Problem(config.CodeTarget, path, fmt.Sprintf("unknown target %q", target), nearest(target, sorted(c.cfg.Targets)))
	}
	for i, s := range steps {
		at := fmt.Sprintf("%s[%d]", path, i)
		if s.For == 0 && i < len(steps)-1 {
			c.Problem(config.CodeRequired, at+".for", "how long it behaves so must be said, as another step follows", "add for: 60s")
		}
		c.step(at, s)
	}
}

func (c checker) step(path string, s Step) {
	ways := 0
	for _, way := range []bool{s.Status != 0, s.Hang, s.Error != ""} {
		if way {
			ways++
		}
	}
	if ways != 1 {
		c.Problem(config.CodeOneOf, path, "exactly one of status, hang and error is required", "")
	}
	if s.Status != 0 && (s.Status < 200 || s.Status > 599) {
		c.Problem(config.CodeRange, path+".status", fmt.Sprintf("%d is not allowed, use 200 to 599", s.Status), "")
	}
	if s.Error != "" && !slices.Contains(errorNames(), s.Error) {
		c.Problem(config.CodeRange, path+".error", fmt.Sprintf("%q is not allowed, use %s; for timeouts use hang: true", s.Error, strings.Join(errorNames(), ", ")), "")
	}
	if s.RetryAfter%time.Second != 0 {
		c.Problem(config.CodeRange, path+".retry_after", "it is sent in whole seconds", "")
	}
	if all := []string{"ack", "retry", "dead", "drop"}; s.Disposition != "" && !slices.Contains(all, s.Disposition) {
		c.Problem(config.CodeRange, path+".disposition", fmt.Sprintf("%q is not allowed, use ack, retry, dead or drop", s.Disposition), "")
	}
}

func (c checker) expectation(path, name, text string) {
	if hint, ok := knownName(c.names, name); !ok {
		c.Problem(config.CodeUnknown, path, fmt.Sprintf("nothing is known of %q", name), hint)
		return
	}
	if _, err := parseBounds(text, isDuration(name)); err != nil {
		hint := "write 40, \">=1\", \"<200\", \"!=0\" or 1..3"
		if isDuration(name) {
			hint = "write 3m for at most that, \">1m\" or 1m..3m"
		}
		c.Problem(config.CodeType, path, err.Error(), hint)
	}
}

func nearest(name string, names []string) string {
	if near := config.Nearest(name, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "known: " + strings.Join(names, ", ")
}

// filters are all subjects that pools take, up to a few.
func (c checker) filters() (all []string) {
	for _, name := range sorted(c.cfg.Pools) {
		for _, priority := range sorted(c.cfg.Pools[name].Subjects) {
			all = append(all, c.cfg.Pools[name].Subjects[priority]...)
		}
	}
	return all[:min(len(all), 8)]
}
