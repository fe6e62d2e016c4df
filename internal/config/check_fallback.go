package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
)

// checkFallbacks compares the steps of the targets with the other parts.
func (l *loader) checkFallbacks() {
	for _, name := range slices.Sorted(maps.Keys(l.file.Targets)) {
		first := map[string]string{}
		for i, s := range l.file.Targets[name].Fallback {
			path := fmt.Sprintf("targets.%s.fallback[%d]", name, i)
			if s.Target != "" {
				l.checkAlternate(name, path+".target", s.Target, first)
			}
			if s.Cache != 0 {
				l.checkCache(path, first)
			}
			if s.Publish != "" {
				l.checkParking(name, path+".publish", s.Publish)
			}
		}
	}
}

// checkAlternate: the fallback of a fallback is not followed, so two targets may
// well stand in for each other. Only what leads back to the target itself, or
// comes twice, can never help.
func (l *loader) checkAlternate(name, path, other string, first map[string]string) {
	_, known := l.file.Targets[other]
	switch {
	case !known:
		l.unknownTarget(path, other)
	case other == name:
		l.problem(CodeFallback, path, fmt.Sprintf("target %s is its own fallback", quote(name)), "name another target")
	case first[other] != "":
		l.problem(CodeFallback, path, fmt.Sprintf("target %s is called by %s already", quote(other), first[other]), "remove one of the two")
	default:
		first[other] = path
	}
}

// checkCache: there is one cache, and a second look finds no more.
func (l *loader) checkCache(path string, first map[string]string) {
	if other := first["cache "]; other != "" { // no name of a target has a space
		l.problem(CodeFallback, path+".cache", "the cache is asked by "+other+" already", "remove one of the two")
		return
	}
	first["cache "] = path
}

// checkParking: a job that is parked where its own pool takes jobs from would
// come back at once.
func (l *loader) checkParking(name, path, subject string) {
	switch err := queue.CheckSubject(subject); {
	case err != nil:
		l.problem(CodeSubject, path, err.Error(), "")
		return
	case strings.ContainsAny(subject, "*>"):
		l.problem(CodeSubject, path, fmt.Sprintf("wildcards are not allowed in %s, jobs are published there", quote(subject)), "")
		return
	case strings.HasPrefix(subject, "$") || strings.HasPrefix(subject, "_INBOX."):
		l.problem(CodeSubject, path, fmt.Sprintf("%s is not for jobs, subjects that begin so are the broker's", quote(subject)), "")
		return
	}
	for _, filters := range l.filters() {
		for _, f := range filters {
			if TargetOf(l.file.Pools[f.pool], subject) == name && queue.SubjectsOverlap(f.subject, subject) {
				l.problem(CodeLoop, path, fmt.Sprintf("pool %s takes %s as a job again, for the same target", quote(f.pool), quote(subject)), "park jobs under a subject that no pool of this target takes")
			}
		}
	}
}

// calledFor are the targets that may be called for jobs of a pool.
func (l *loader) calledFor(p pool.Config) (all []string) {
	for _, target := range p.Targets() {
		all = append(all, l.alternatesOf(target)...)
	}
	return all
}

// alternatesOf are the targets that may be called for jobs of a target, itself
// included.
func (l *loader) alternatesOf(name string) []string {
	all := []string{name}
	for _, s := range l.file.Targets[name].Fallback {
		if s.Target != "" {
			all = append(all, s.Target)
		}
	}
	return all
}
