package app

import (
	"fmt"
	"strings"
	"time"

	"github.com/workerd/workerd/internal/admin"
	"github.com/workerd/workerd/internal/breaker"
)

// Control implements admin.Backend.
func (a *App) Control(c admin.Control) error {
	switch c.Verb {
	case admin.PausePool, admin.ResumePool:
		p, ok := a.pools[c.Name]
		if !ok {
			return unknown("pool", c.Name, sortedNames(a.pools))
		}
		return p.control(c, time.Now())
	}
	l, ok := a.targets[c.Name]
	if !ok {
		return unknown("target", c.Name, sortedNames(a.targets))
	}
	return l.control(c, time.Now())
}

func unknown(kind, name string, known []string) error {
	return fmt.Errorf("%s %q: %w; there are %s", kind, name, admin.ErrUnknownName, strings.Join(known, ", "))
}

func (c *compartment) control(do admin.Control, now time.Time) error {
	if do.Verb == admin.ResumePool {
		c.pause.Resume()
		c.valve.Reset()
		return nil
	}
	c.pause.Pause(end(now, do.For), do.Reason)
	return nil
}

func (l *lane) control(do admin.Control, now time.Time) error {
	switch do.Verb {
	case admin.OpenBreaker:
		return l.breaker.Override(breaker.ForcedOpen, do.For, do.Reason, now)
	case admin.CloseBreaker:
		return l.breaker.Override(breaker.Disabled, do.For, do.Reason, now)
	case admin.AutoBreaker:
		l.breaker.Reset(now)
	case admin.Degrade, admin.Restore:
		return l.degradeBy(do, now)
	case admin.PausePool, admin.ResumePool:
	}
	return nil
}

// end of something that lasts so long, zero for ever.
func end(now time.Time, lasts time.Duration) time.Time {
	if lasts == 0 {
		return time.Time{}
	}
	return now.Add(lasts)
}
