package whatif

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"

	"github.com/workerd/workerd/internal/config"
)

// order is what a child process is told on its standard input.
type order struct {
	Source Source
	// Test is the index of the one to run.
	Test int
	// Dir for the broker's files.
	Dir string
	// Limit of real time.
	Limit time.Duration
}

// reply is what it answers.
type reply struct {
	Result Result
	Error  string
}

// Serve runs the one test that its input asks for and writes the reply to out.
// It ends the process: the machinery of package testing, without which there is
// no bubble, does so. It only returns if nothing is asked for.
func Serve(in io.Reader, out io.WriteCloser, lookup config.Env) error {
	var o order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("nothing to run is given: %w", err)
	}
	// Nothing of the command line is for package testing.
	testing.Init()
	_ = flag.CommandLine.Parse(nil) // nothing to go wrong
	run := func(t *testing.T) { send(out, o.carryOut(t, lookup)) }
	testing.Main(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "whatif", F: run}}, nil, nil)
	return nil
}

func send(out io.WriteCloser, r reply) {
	_ = json.NewEncoder(out).Encode(r) // who would be told?
	_ = out.Close()
}

// carryOut runs a test in a bubble.
func (o order) carryOut(t *testing.T, lookup config.Env) (r reply) {
	suite, problems, err := o.Source.again(lookup)
	if err != nil || suite == nil || o.Test >= len(suite.Tests) {
		return reply{Error: fmt.Sprintf("the test file cannot be read again: %v %v", problems, err)}
	}
	// The only thing in the broker that would keep time in a bubble from
	// moving: a channel of its own package. Outside it is out of the way.
	ats.Register()
	defer ats.Unregister()
	around := setting{dir: o.Dir, now: time.Now(), log: slog.DiscardHandler, over: stopwatch(o.Limit)}
	synctest.Test(t, func(*testing.T) {
		result, err := play(suite, suite.Tests[o.Test], around)
		r = reply{Result: result}
		if err != nil {
			r.Error = err.Error()
		}
	})
	return r
}

// stopwatch tells, in a bubble too, whether so much real time has passed.
func stopwatch(limit time.Duration) func() bool {
	began := realTime()
	return func() bool { return limit > 0 && realTime()-began > limit }
}

// realTime is the time of the real clock since 1970; package time has that of
// the bubble only.
func realTime() time.Duration {
	var now syscall.Timeval
	if syscall.Gettimeofday(&now) != nil {
		return 0
	}
	return time.Duration(now.Nano())
}
