package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
)

// check compares the parts with each other.
func (l *loader) check() {
	if len(l.file.Pools) == 0 {
		l.problem(CodeRequired, "pools", "at least one pool is required", "write for example pools: {email: {target: mailer, stream: JOBS, subjects: {normal: [jobs.email.>]}}}")
	}
	for name, t := range l.file.Targets {
		if t.protocols() != 1 {
			l.problem(CodeOneOf, "targets."+name, "exactly one protocol is required", "add http: {url: …}")
		}
	}
	l.checkTargetsOfPools()
	l.checkRoutes()
	l.checkUnusedTargets()
	l.checkFallbacks()
	l.checkResults()
	l.checkConsumers()
	l.checkFilters()
	l.checkDeadLetters()
	l.checkDrain()
	l.checkAdmin()
}

func (l *loader) checkTargetsOfPools() {
	for name, p := range l.file.Pools {
		path := "pools." + name
		l.checkStream(path, p)
		l.checkCore(path+".core", p.Core)
		if _, ok := l.file.Targets[p.Target]; !ok {
			l.unknownTarget(path+".target", p.Target)
		}
		for _, target := range p.Targets() {
			if t, ok := l.file.Targets[target]; ok {
				l.checkCalls(path, p, target, t)
			}
		}
	}
}

func (l *loader) checkCalls(path string, p pool.Config, target string, t TargetConfig) {
	const tooMany = 50
	calls := t.Retry.MaxAttempts * p.Redelivery.MaxAttempts * t.callsPerTry()
	if calls <= tooMany {
		return
	}
	each := ""
	if t.Hedge != nil {
		each = ", each with a hedge,"
	}
	l.problem(CodeCalls, l.written(path+".redelivery.max_attempts", "targets."+target+".retry.max_attempts"),
		fmt.Sprintf("a job may cost %d calls: %d tries of target %s%s in each of %d attempts", calls, t.Retry.MaxAttempts, quote(target), each, p.Redelivery.MaxAttempts),
		fmt.Sprintf("lower one of the two to stay at %d or less", tooMany))
}

func (l *loader) unknownTarget(path, target string) {
	if target == "" {
		return // said by the pool
	}
	names := slices.Sorted(maps.Keys(l.file.Targets))
	hint := "targets are: " + cut(strings.Join(names, ", "))
	if len(names) == 0 {
		hint = "add it to targets"
	}
	if near := Nearest(target, names); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	l.problem(CodeTarget, path, "unknown target "+quote(target), hint)
}

// written returns the first path that was written, or the first.
func (l *loader) written(paths ...string) string {
	for _, p := range paths {
		if l.isWritten(p) {
			return p
		}
	}
	return paths[0]
}

// checkStream: a stream that workerd makes must outlive the retries of its jobs.
func (l *loader) checkStream(path string, p pool.Config) {
	if p.Stream != "" {
		l.checkName(path+".stream", p.Stream, 255)
	}
	s, ok := l.file.Streams[p.Stream]
	if ok && s.MaxAge > 0 && s.MaxAge < p.Redelivery.MaxAge {
		l.problem(CodeStreamAge, l.written(path+".redelivery.max_age", "streams."+p.Stream+".max_age"),
			fmt.Sprintf("stream %s drops jobs after %s, before %s.redelivery.max_age (%s) makes dead letters of them", quote(p.Stream), s.MaxAge, path, p.Redelivery.MaxAge),
			"let the stream keep jobs longer than they are retried")
	}
}

// checkCore: the subject and its queue group are those of a subscription.
func (l *loader) checkCore(path string, c *pool.Core) {
	if c == nil || c.Subject == "" {
		return // said by the pool
	}
	if err := queue.CheckSubject(c.Subject); err != nil {
		l.problem(CodeSubject, path+".subject", err.Error(), "")
	}
	if strings.ContainsAny(c.Queue, " \t\r\n") {
		l.problem(CodeSubject, path+".queue", fmt.Sprintf("spaces are not allowed in %s", quote(c.Queue)), "")
	}
}

func (l *loader) checkUnusedTargets() {
	names := slices.Sorted(maps.Keys(l.file.Targets))
	used := map[string]bool{}
	for _, p := range l.file.Pools {
		for _, target := range l.calledFor(p) {
			used[target] = true
			if _, ok := l.file.Targets[target]; !ok {
				used[Nearest(target, names)] = true // misspelled, not unused
			}
		}
	}
	for name := range l.file.Targets {
		if !used[name] {
			l.problem(CodeUnused, "targets."+name, "no pool uses this target, nor the fallback of one that is used", "")
		}
	}
}

// checkConsumers: two pools on one consumer would share their jobs. A pool's
// consumers are named <pool>-<priority>, so only names that differ in nothing
// but case can meet, in a broker whose disk does not tell them apart.
func (l *loader) checkConsumers() {
	owners := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(l.file.Pools)) {
		p := l.file.Pools[name]
		for _, priority := range slices.Sorted(maps.Keys(p.Subjects)) {
			consumer := strings.ToLower(p.Stream + " " + name + "-" + priority)
			if other, taken := owners[consumer]; taken {
				l.problem(CodeConsumer, "pools."+name, fmt.Sprintf("its consumer %s-%s is also that of pool %s, but for case", name, priority, quote(other)), "rename one of them")
				break
			}
			owners[consumer] = name
		}
	}
}

// filter is one subject of one consumer.
type filter struct {
	subject, path  string
	pool, priority string
}

// checkFilters: NATS refuses filters that overlap within a consumer, and in a
// work queue within the stream; in other streams the job would run twice.
func (l *loader) checkFilters() {
	for stream, filters := range l.filters() {
		s, declared := l.file.Streams[stream]
		for i, f := range filters {
			for _, g := range filters[:i] {
				if queue.SubjectsOverlap(f.subject, g.subject) {
					l.overlap(f, g, declared && s.Retention == "workqueue")
				}
			}
			if declared && len(s.Subjects) > 0 && !overlapsAny(f.subject, s.Subjects) {
				l.problem(CodeOutside, f.path, fmt.Sprintf("stream %s takes up no subject that matches %s", quote(stream), quote(f.subject)),
					fmt.Sprintf("its subjects are [%s]", cut(strings.Join(s.Subjects, ", "))))
			}
		}
	}
	l.checkStreamsOverlap()
}

// filters lists the filters with valid priorities and subjects, by stream.
func (l *loader) filters() map[string][]filter {
	all := map[string][]filter{}
	for _, name := range slices.Sorted(maps.Keys(l.file.Pools)) {
		p := l.file.Pools[name]
		for _, priority := range slices.Sorted(maps.Keys(p.Subjects)) {
			if _, err := job.ParsePriority(priority); err != nil {
				continue
			}
			for i, s := range p.Subjects[priority] {
				if queue.CheckSubject(s) == nil {
					path := fmt.Sprintf("pools.%s.subjects.%s[%d]", name, priority, i)
					all[p.Stream] = append(all[p.Stream], filter{s, path, name, priority})
				}
			}
		}
	}
	return all
}

func (l *loader) overlap(f, g filter, workQueue bool) {
	later, first := f, g
	if l.before(f.path, g.path) {
		later, first = g, f
	}
	switch {
	case f.pool == g.pool && f.priority == g.priority:
		l.problem(CodeOverlap, later.path, fmt.Sprintf("%s overlaps %s of the same priority, which NATS does not allow", quote(later.subject), quote(first.subject)), "")
	case f.pool == g.pool:
		l.problem(CodeOverlap, later.path, fmt.Sprintf("%s overlaps %s of priority %s: the job would run twice", quote(later.subject), quote(first.subject), first.priority),
			"make the filters of a pool disjoint")
	case workQueue:
		l.problem(CodeOverlap, later.path, fmt.Sprintf("%s overlaps %s of pool %s, which a work queue does not allow", quote(later.subject), quote(first.subject), first.pool),
			"make them disjoint, or use retention: limits to give each pool a copy")
	}
}

// before tells which path was written first.
func (l *loader) before(a, b string) bool {
	x, y := l.spans[a], l.spans[b]
	return x.line < y.line || x.line == y.line && x.col < y.col
}

func overlapsAny(subject string, others []string) bool {
	return slices.ContainsFunc(others, func(o string) bool {
		return queue.CheckSubject(o) == nil && queue.SubjectsOverlap(subject, o)
	})
}

// checkStreamsOverlap: NATS refuses a stream that takes up another's subjects.
func (l *loader) checkStreamsOverlap() {
	names := slices.Sorted(maps.Keys(l.file.Streams))
	for i, name := range names {
		for _, other := range names[:i] {
			l.overlapOfStreams(name, other)
		}
	}
}

func (l *loader) overlapOfStreams(name, other string) {
	for i, s := range l.file.Streams[name].Subjects {
		if queue.CheckSubject(s) == nil && overlapsAny(s, l.file.Streams[other].Subjects) {
			l.problem(CodeOverlap, fmt.Sprintf("streams.%s.subjects[%d]", name, i),
				fmt.Sprintf("%s overlaps the subjects of stream %s, which NATS does not allow", quote(s), quote(other)), "")
		}
	}
}

// checkDeadLetters: a dead letter that lies where jobs are taken from would
// run, fail, and be a dead letter again.
func (l *loader) checkDeadLetters() {
	l.checkName("dlq.stream", l.file.DLQ.Stream, 255)
	subject := l.file.DLQ.Subject
	if strings.ContainsAny(subject, "*>") {
		l.problem(CodeSubject, "dlq.subject", fmt.Sprintf("wildcards are not allowed in %s, dead letters are published there", quote(subject)), "")
		return
	}
	letters := subject + ".>"
	const hint = "keep dead letters apart from jobs"
	for name, s := range l.file.Streams {
		path := "streams." + name
		if name == l.file.DLQ.Stream {
			l.problem(CodeLoop, path, "the stream of dead letters is described by dlq", "remove it here, or set dlq.stream")
			continue
		}
		for i, s := range s.Subjects {
			if queue.CheckSubject(s) == nil && queue.SubjectsOverlap(s, letters) {
				l.problem(CodeLoop, fmt.Sprintf("%s.subjects[%d]", path, i), fmt.Sprintf("%s takes up the dead letters %s", quote(s), quote(letters)), hint)
			}
		}
	}
	for _, filters := range l.filters() {
		for _, f := range filters {
			if queue.SubjectsOverlap(f.subject, letters) {
				l.problem(CodeLoop, f.path, fmt.Sprintf("%s takes the dead letters %s as jobs again", quote(f.subject), quote(letters)), hint)
			}
		}
	}
}

// checkDrain: once draining, a job starts no further call, so it lasts no
// longer than one call or what is left of its job_timeout. The pool whose jobs
// may take longest speaks for all.
func (l *loader) checkDrain() {
	var longest time.Duration
	var slowest, caller string
	for _, name := range slices.Sorted(maps.Keys(l.file.Pools)) {
		p := l.file.Pools[name]
		for _, target := range l.calledFor(p) {
			if t, ok := l.file.Targets[target]; ok && min(p.JobTimeout, t.Timeout) > longest {
				longest, slowest, caller = min(p.JobTimeout, t.Timeout), name, p.Target
				if slices.Contains(p.Targets(), target) {
					caller = target
				}
			}
		}
	}
	d := l.file.Drain
	if left := d.Timeout - d.FlushTimeout; longest > left {
		enough := (longest + d.FlushTimeout + time.Second - 1).Truncate(time.Second)
		l.problem(CodeDrain, l.written("drain.timeout", "targets."+caller+".timeout"),
			fmt.Sprintf("a call of pool %s may take %s, drain leaves it %s", quote(slowest), longest, max(0, left)),
			"raise drain.timeout to "+formatDuration(enough)+", or such calls are interrupted and run again")
	}
}

func (l *loader) checkAdmin() {
	if a := l.file.Admin; !a.Local() && a.Token == "" {
		l.problem(CodeOpenAdmin, "admin.listen", fmt.Sprintf("%s can be reached from other machines and there is no token", quote(a.Listen)), "set admin.token, or listen on 127.0.0.1; controls stay closed until then")
	}
}
