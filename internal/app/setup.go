package app

import (
	"context"
	"slices"
	"time"

	"github.com/workerd/workerd/internal/attempts"
	"github.com/workerd/workerd/internal/dlq"
)

// setUpAgain is the wait after something could not be set up.
const setUpAgain = 2 * time.Second

// setup is something workerd needs in NATS, to be made if it is absent.
type setup struct {
	name string
	// ensure returns how what exists differs from the configuration.
	ensure func(ctx context.Context) ([]string, error)
	failed string // what was logged last
}

// setups are those of this configuration.
func (a *App) setups() []*setup {
	all := []*setup{{name: "KV_" + a.cfg.Attempts.Bucket, ensure: func(ctx context.Context) ([]string, error) {
		return nil, attempts.Ensure(ctx, a.conn, a.cfg.Attempts)
	}}}
	if _, described := a.cfg.Streams[a.cfg.DLQ.Stream]; !described {
		all = append(all, &setup{name: a.cfg.DLQ.Stream, ensure: func(ctx context.Context) ([]string, error) {
			return dlq.Ensure(ctx, a.conn, a.cfg.DLQ)
		}})
	}
	for _, name := range sortedNames(a.cfg.Streams) {
		all = append(all, &setup{name: name, ensure: func(ctx context.Context) ([]string, error) {
			return a.conn.EnsureStream(ctx, name, a.cfg.Streams[name])
		}})
	}
	return all
}

// setUp creates what is described and absent, as soon as NATS answers.
func (a *App) setUp(ctx context.Context) {
	retry := time.NewTicker(setUpAgain)
	defer retry.Stop()
	for todo := a.setups(); ; {
		changed := a.conn.Changed()
		if a.conn.Connected() {
			todo = slices.DeleteFunc(todo, func(s *setup) bool { return a.isSetUp(ctx, s) })
		}
		if len(todo) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		case <-changed:
		}
	}
}

// isSetUp says what is wrong, and each thing only once.
func (a *App) isSetUp(ctx context.Context, s *setup) bool {
	differs, err := s.ensure(ctx)
	if err != nil {
		if text := err.Error(); text != s.failed && ctx.Err() == nil {
			s.failed = text
			a.log.Warn("cannot set up a stream, trying again", "stream", s.name, "err", err)
		}
		return false
	}
	for _, d := range differs {
		a.log.Warn("stream differs from the configuration; it is left as it is", "stream", s.name, "difference", d)
	}
	return true
}
