package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
)

// TargetOf is the target of a pool's jobs of a subject.
func TargetOf(p pool.Config, subject string) string {
	for _, r := range p.Routes {
		if queue.SubjectCovers(r.Subject, subject) {
			return r.Target
		}
	}
	return p.Target
}

// checkRoutes: each route must lead somewhere, and some job must take it.
func (l *loader) checkRoutes() {
	for _, name := range slices.Sorted(maps.Keys(l.file.Pools)) {
		p := l.file.Pools[name]
		for i, r := range p.Routes {
			path := fmt.Sprintf("pools.%s.routes[%d]", name, i)
			if _, ok := l.file.Targets[r.Target]; !ok {
				l.unknownTarget(path+".target", r.Target)
			}
			if r.Subject != "" { // otherwise said by the pool
				l.checkRoute(path+".subject", p, i)
			}
		}
		l.checkDefault("pools."+name+".target", p)
	}
}

func (l *loader) checkRoute(path string, p pool.Config, i int) {
	subject := p.Routes[i].Subject
	if err := queue.CheckSubject(subject); err != nil {
		l.problem(CodeSubject, path, err.Error(), "")
		return
	}
	if filters := filtersOf(p); len(filters) > 0 && !overlapsAny(subject, filters) {
		l.problem(CodeOutside, path, fmt.Sprintf("the pool takes no job that matches %s", quote(subject)),
			fmt.Sprintf("its subjects are [%s]", cut(strings.Join(filters, ", "))))
		return
	}
	for n, earlier := range p.Routes[:i] {
		if queue.CheckSubject(earlier.Subject) == nil && queue.SubjectCovers(earlier.Subject, subject) {
			l.problem(CodeShadowed, path, fmt.Sprintf("no job takes this route: all that match %s take routes[%d], %s", quote(subject), n, quote(earlier.Subject)),
				"the first that matches counts; write the narrower one first")
			return
		}
	}
}

// checkDefault: the target of the pool is for what no route names.
func (l *loader) checkDefault(path string, p pool.Config) {
	if len(p.Routes) == 0 || p.Target == "" || len(filtersOf(p)) == 0 {
		return
	}
	for _, filter := range filtersOf(p) {
		if !slices.ContainsFunc(p.Routes, func(r pool.Route) bool { return queue.SubjectCovers(r.Subject, filter) }) {
			return
		}
	}
	l.problem(CodeUnused, path, "no job of the pool is sent there: its routes take them all", "name the target of one of the routes here, and remove the route")
}

// filtersOf are the subjects that a pool takes jobs of, without those that are
// wrong.
func filtersOf(p pool.Config) (all []string) {
	for _, priority := range slices.Sorted(maps.Keys(p.Subjects)) {
		for _, s := range p.Subjects[priority] {
			if queue.CheckSubject(s) == nil {
				all = append(all, s)
			}
		}
	}
	return all
}
