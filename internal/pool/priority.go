package pool

import (
	"fmt"
	"time"

	"github.com/workerd/workerd/internal/job"
)

// Priority says how the jobs of one priority are treated when there is not
// enough room for all.
type Priority struct {
	// PromoteAfter is the age, from publication, from which on a job counts
	// as one priority higher. More than redelivery.max_age turns it off. 1ms
	// to 365d. Default: 5m for normal, 15m for low, never for the others.
	PromoteAfter time.Duration `yaml:"promote_after"`
	// OnShed says what becomes of a job that is older than shed_after and has
	// no room because the pool is busy with others: defer leaves it to wait,
	// in its stream; drop acknowledges it undone, dead_letter keeps it among
	// the dead letters. Default: defer.
	OnShed string `yaml:"on_shed"`
	// ShedAfter is the age, from publication, from which on a job that has to
	// wait is shed. It does nothing with on_shed: defer. 1ms to 365d.
	// Default: 1m.
	ShedAfter time.Duration `yaml:"shed_after"`
}

// What becomes of a job that is shed.
const (
	shedDefer      = "defer"
	shedDrop       = "drop"
	shedDeadLetter = "dead_letter"
)

func (c Priority) withDefaults(p job.Priority) Priority {
	switch p {
	case job.Normal:
		setDefault(&c.PromoteAfter, 5*time.Minute)
	case job.Low:
		setDefault(&c.PromoteAfter, 15*time.Minute)
	case job.Critical, job.High:
	}
	setDefault(&c.OnShed, shedDefer)
	setDefault(&c.ShedAfter, time.Minute)
	return c
}

func (c Priority) validate(problem func(field, message string)) {
	if c.PromoteAfter != 0 {
		if text := outside(c.PromoteAfter, time.Millisecond, 365*24*time.Hour); text != "" {
			problem("promote_after", text)
		}
	}
	if c.OnShed != shedDefer && c.OnShed != shedDrop && c.OnShed != shedDeadLetter {
		problem("on_shed", fmt.Sprintf("%q is not allowed, use defer, drop or dead_letter", c.OnShed))
	}
	if text := outside(c.ShedAfter, time.Millisecond, 365*24*time.Hour); text != "" {
		problem("shed_after", text)
	}
}

// withPriorities fills in the defaults of the priorities that are spoken of.
func (c Config) withPriorities() map[string]Priority {
	if c.Priorities == nil {
		return nil
	}
	all := make(map[string]Priority, len(c.Priorities))
	for name, s := range c.Priorities {
		if p, err := job.ParsePriority(name); err == nil {
			s = s.withDefaults(p)
		}
		all[name] = s
	}
	return all
}

func (c Config) validatePriorities(problem func(field, message string)) {
	for name, p := range c.Priorities {
		path := "priorities." + name
		if _, err := job.ParsePriority(name); err != nil {
			problem(path, err.Error())
			continue
		}
		p.validate(func(field, message string) { problem(path+"."+field, message) })
	}
}

// ages are those from which on a job counts for more, and is shed; 0: never.
func (c Config) ages(p job.Priority) (promote, shed time.Duration) {
	s := c.Priorities[p.String()].withDefaults(p)
	if s.OnShed != shedDefer {
		shed = s.ShedAfter
	}
	return s.PromoteAfter, shed
}
