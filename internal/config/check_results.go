package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
)

// checkResults: whom a job names is a publisher's word, and the result is
// published with our rights. So what is allowed is narrow, and cannot be a job.
func (l *loader) checkResults() {
	for _, name := range slices.Sorted(maps.Keys(l.file.Pools)) {
		p := l.file.Pools[name]
		for i, subject := range p.Results.Subjects {
			l.checkResultSubject(fmt.Sprintf("pools.%s.results.subjects[%d]", name, i), subject)
		}
		if p.Results.Stream != "" {
			l.checkName("pools."+name+".results.stream", p.Results.Stream, 255)
		}
		l.checkReplies(name, p)
	}
}

func (l *loader) checkResultSubject(path, subject string) {
	first, _, _ := strings.Cut(subject, ".")
	switch err := queue.CheckSubject(subject); {
	case err != nil:
		l.problem(CodeSubject, path, err.Error(), "")
		return
	case strings.HasPrefix(subject, "$") || strings.ContainsAny(first, "*>"):
		l.problem(CodeSubject, path, fmt.Sprintf("%s is too much to be allowed to whoever publishes a job", quote(subject)), "begin with a literal token, as in results.> or _INBOX.>")
		return
	case queue.SubjectsOverlap(subject, l.file.DLQ.Subject+".>"):
		l.problem(CodeLoop, path, fmt.Sprintf("%s takes in the dead letters", quote(subject)), "keep results apart from dead letters")
	}
	for _, filters := range l.filters() {
		for _, f := range filters {
			if queue.SubjectsOverlap(f.subject, subject) {
				l.problem(CodeLoop, path, fmt.Sprintf("pool %s takes results under %s as jobs", quote(f.pool), quote(subject)), "keep results apart from jobs")
				return
			}
		}
	}
}

// checkReplies: a job whose point is what it does is not done by a reply.
func (l *loader) checkReplies(name string, p pool.Config) {
	if len(p.Results.Subjects) > 0 {
		return
	}
	for _, target := range p.Targets() {
		for i, s := range l.file.Targets[target].Fallback {
			if k := s.Kind(); k == fallback.Cached || k == fallback.Static {
				path := fmt.Sprintf("targets.%s.fallback[%d]", target, i)
				l.problem(CodeNoResult, path, fmt.Sprintf("jobs of pool %s count as done by a reply that nobody gets", quote(name)),
					"say to whom results may go in pools."+name+".results.subjects, or remove the step")
				break
			}
		}
	}
}
