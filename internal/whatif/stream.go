package whatif

import (
	"maps"
	"slices"
	"strings"

	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/queue"
)

// staged is the configuration as it is tried out: without what belongs to the
// surroundings of a real workerd.
func staged(cfg *config.File) *config.File {
	c := *cfg
	c.NATS = queue.Config{URL: "nats://whatif", InboxPrefix: cfg.NATS.InboxPrefix, Name: cfg.NATS.Name, JetstreamDomain: cfg.NATS.JetstreamDomain}.WithDefaults()
	c.Streams = make(map[string]queue.StreamConfig, len(cfg.Streams))
	for name, s := range cfg.Streams {
		s.Replicas = 1
		c.Streams[name] = s
	}
	maps.Copy(c.Streams, absentStreams(cfg))
	c.DLQ.Replicas, c.Attempts.Replicas = 1, 1
	c.Pressure.CPU, c.Pressure.Memory = -1, -1
	return &c
}

// absentStreams are those that pools use and the configuration does not
// describe: work queues that take what the pools take.
func absentStreams(cfg *config.File) map[string]queue.StreamConfig {
	absent := map[string]queue.StreamConfig{}
	for _, name := range sorted(cfg.Pools) {
		p := cfg.Pools[name]
		if _, described := cfg.Streams[p.Stream]; described {
			continue
		}
		s := absent[p.Stream]
		for _, priority := range sorted(p.Subjects) {
			for _, filter := range p.Subjects[priority] {
				if slices.ContainsFunc(s.Subjects, func(other string) bool { return queue.SubjectsOverlap(other, filter) }) {
					s.Retention = "limits" // a work queue allows no two filters that overlap
				}
				s.Subjects = withSubject(s.Subjects, filter)
			}
		}
		absent[p.Stream] = s
	}
	for name, s := range absent {
		absent[name] = s.WithDefaults()
	}
	return absent
}

// withSubject adds a subject to those of a stream, which must not overlap.
func withSubject(subjects []string, s string) []string {
	if slices.ContainsFunc(subjects, func(other string) bool { return covers(other, s) }) {
		return subjects
	}
	return append(slices.DeleteFunc(subjects, func(other string) bool { return covers(s, other) }), s)
}

// covers tells whether a filter matches all that another one does.
func covers(wide, narrow string) bool {
	ws, ns := strings.Split(wide, "."), strings.Split(narrow, ".")
	for i, w := range ws {
		switch {
		case i >= len(ns):
			return false
		case w == ">":
			return true
		case ns[i] == ">", w != "*" && w != ns[i]:
			return false
		}
	}
	return len(ws) == len(ns)
}

// Taker is a consumer that takes a job.
type Taker struct {
	Pool     string `json:"pool"`
	Priority string `json:"priority"`
	// Filter of the consumer that matches the subject.
	Filter string `json:"filter"`
}

// Takers are the consumers that take a job of a subject, by pool and priority.
func Takers(cfg *config.File, subject string) (all []Taker) {
	stream := streamOf(cfg, subject)
	for _, name := range sorted(cfg.Pools) {
		p := cfg.Pools[name]
		if stream != "" && p.Stream != stream {
			continue
		}
		for _, priority := range []string{"critical", "high", "normal", "low"} {
			for _, filter := range p.Subjects[priority] {
				if covers(filter, subject) {
					all = append(all, Taker{name, priority, filter})
				}
			}
		}
	}
	return all
}

// streamOf is the described stream that a subject lands in, "" if that is not
// known.
func streamOf(cfg *config.File, subject string) string {
	for _, name := range sorted(cfg.Streams) {
		if slices.ContainsFunc(cfg.Streams[name].Subjects, func(s string) bool { return covers(s, subject) }) {
			return name
		}
	}
	return ""
}

// sorted returns the keys of a map in order.
func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
