package app

import (
	"github.com/workerd/workerd/internal/attempts"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/fallback"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/result"
)

// Permissions are all that a workerd of this configuration does with NATS, and
// nothing else: what is checked at the start, and what an operator is told to
// permit.
func Permissions(cfg *config.File) []queue.Permission {
	all := cfg.NATS.ConnPermissions()
	for _, name := range sortedNames(cfg.Streams) {
		all = append(all, cfg.NATS.StreamPermissions(name)...)
	}
	consumers := sourceConfigs(cfg)
	for _, s := range consumers {
		all = append(all, cfg.NATS.SourcePermissions(s)...)
	}
	for _, name := range sortedNames(cfg.Pools) {
		p := cfg.Pools[name]
		if p.Core != nil {
			all = append(all, cfg.NATS.CorePermissions(name, p.Core.Subject)...)
		}
		all = append(all, result.Permissions(name, p.Results)...)
	}
	for _, name := range sortedNames(cfg.Targets) {
		for _, step := range cfg.Targets[name].Fallback {
			if step.Kind() == fallback.Parked {
				all = append(all, dlq.ShelfPermission(name, step.Publish))
			}
		}
	}
	all = append(all, attempts.Permissions(cfg.NATS, cfg.Attempts, consumers)...)
	all = append(all, dlq.Permissions(cfg.NATS, cfg.DLQ, sortedNames(cfg.Pools))...)
	return queue.Distinct(all)
}

// sourceConfigs are the consumers of all pools.
func sourceConfigs(cfg *config.File) []queue.SourceConfig {
	var all []queue.SourceConfig
	for _, name := range sortedNames(cfg.Pools) {
		p := cfg.Pools[name]
		for priority := range job.Priority(job.Priorities) {
			if len(p.Subjects[priority.String()]) > 0 {
				all = append(all, sourceConfig(cfg, name, p, priority))
			}
		}
	}
	return all
}

func sourceConfig(cfg *config.File, name string, p pool.Config, priority job.Priority) queue.SourceConfig {
	s := queue.SourceConfig{
		Pool: name, Stream: p.Stream, Consumer: name + "-" + priority.String(), Subjects: p.Subjects[priority.String()],
		Priority: priority, AckWait: p.AckWait, MaxMessage: p.MaxMessage, MaxAge: p.Redelivery.MaxAge, Limit: p.Concurrency + p.Prefetch + p.Window(),
	}
	if stream, ok := cfg.Streams[p.Stream]; ok {
		s.Create = &stream
	}
	return s
}
