package whatif

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The server leaves these behind when it is stopped while it makes a stream.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).syncBlocks"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

const plain = `
targets: {t: {http: {url: "http://t.invalid/"}, %s}}
pools: {p: {target: t, stream: JOBS, subjects: {high: [jobs.high], normal: ["jobs.normal.>"]}, %s}}`

// suite reads a configuration and its tests.
func suite(t *testing.T, cfg, tests string) *Suite {
	t.Helper()
	text := "config: workerd.yaml\ntests:\n" + tests
	s, problems, err := Load("t.yaml", []byte(text), func(string) (string, bool) { return "", false },
		func(string) ([]byte, error) { return []byte(cfg), nil })
	if s == nil || err != nil {
		t.Fatal(problems, err)
	}
	return s
}

// playAll runs all tests of a suite, each in a bubble of its own.
func playAll(t *testing.T, s *Suite) (results []Result) {
	t.Helper()
	ats.Register()
	defer ats.Unregister()
	for _, test := range s.Tests {
		around := setting{dir: t.TempDir(), now: time.Now(), log: slog.DiscardHandler, over: stopwatch(2 * time.Minute)}
		began := time.Now()
		synctest.Test(t, func(t *testing.T) {
			r, err := play(s, test, around)
			if err != nil {
				t.Error(err)
			}
			results = append(results, r)
		})
		t.Logf("%s: virtual %s in %s", test.Name, results[len(results)-1].Virtual, time.Since(began).Round(time.Millisecond))
		// The client library keeps timers for reuse, which must not get from one
		// bubble into another. Pools are empty after two collections.
		runtime.GC()
		runtime.GC()
	}
	return results
}

func mustHold(t *testing.T, results []Result) {
	t.Helper()
	for _, r := range results {
		if !r.OK {
			var b strings.Builder
			_ = r.Text(&b, false)
			t.Errorf("%s", &b)
		}
	}
}

// TestPlay_halfAnHourOfOutageKillsNothing, and whatever else the shipped config
// tests say. The log tells the real time each takes.
func TestPlay_halfAnHourOfOutageKillsNothing(t *testing.T) {
	const name = "../../configs/workerd.test.yaml"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s, problems, err := Load(name, text, func(string) (string, bool) { return "", false }, os.ReadFile)
	if s == nil || err != nil {
		t.Fatal(problems, err)
	}
	mustHold(t, playAll(t, s))
}

func TestPlay_everyKindOfAnswer(t *testing.T) {
	mustHold(t, playAll(t, suite(t, fmt.Sprintf(plain, "timeout: 1s, retry: {max_attempts: 1}", "redelivery: {max_attempts: 2, initial_backoff: 1s}"), `
- {name: refused, jobs: {subject: jobs.high, count: 3}, targets: {t: {status: 422}}, expect: {dead: 3, dead.reason.status_4xx: 3, target.t.calls: 3}}
- {name: hangs, jobs: {subject: jobs.high}, targets: {t: {hang: true}}, expect: {dead: 1, dead.reason.max_attempts: 1, retry.reason.timeout: 1, target.t.calls: 2}}
- {name: reset, jobs: {subject: jobs.high}, targets: {t: {error: reset}}, expect: {dead: 1, retry.reason.reset: 1}}
- {name: no host, jobs: {subject: jobs.high}, targets: {t: [{for: 500ms, error: dns}, {status: 200}]}, expect: {ok: 1, retry.reason.dns: 1}}
- {name: dropped, jobs: {subject: jobs.high}, targets: {t: {disposition: drop}}, expect: {dropped: 1, dead: 0}}
- {name: asks for time, jobs: {subject: jobs.high}, targets: {t: [{for: 5s, status: 429, retry_after: 30s}, {status: 200}]}, expect: {ok: 1, deferred: 1, target.t.calls: 2, within: 30s..40s}}
- {name: expired, jobs: {subject: jobs.high, headers: {Workerd-Deadline: "2001-01-01T00:00:00Z"}}, expect: {expired: 1, dead: 1, target.t.calls: 0}}
`)))
}

func TestPlay_jobsOutliveNATSAndRestarts(t *testing.T) {
	mustHold(t, playAll(t, suite(t, fmt.Sprintf(plain, "timeout: 10s", "concurrency: 4"), `
- name: faults
  jobs: [{subject: jobs.normal.a, count: 200, every: 200ms}, {subject: jobs.high, count: 5, at: 10s}]
  targets: {t: {status: 200, takes: 300ms}}
  nats: [{at: 5s, down: 3s}, {at: 20s, down: 1s}]
  restart: {at: 12s}
  expect: {ok: ">=205", dead: 0, left: 0, target.t.max_in_flight: "<=4"}
`)))
}

func TestPlay_whatIsLeftAtTheLimitIsAFailure(t *testing.T) {
	r := playAll(t, suite(t, fmt.Sprintf(plain, "timeout: 10s", "concurrency: 4"), `
- {name: limit, jobs: {subject: jobs.high, count: 7}, targets: {t: {status: 503}}, limit: 1m, expect: {dead: 0, breaker.t.opened: ">=99"}}
`))[0]
	if r.OK || r.Numbers["left"] != 7 || !strings.Contains(r.Stopped, "limit of virtual time (1m)") || len(r.Failures) != 2 {
		t.Errorf("got %+v", r)
	}
}

// TestForetell_isWhatHappens: what route computes is what a workerd does.
func TestForetell_isWhatHappens(t *testing.T) {
	const calm = "breaker: {consecutive_failures: -1, min_calls: 100000}, retry: {max_attempts: 2}"
	for _, c := range []struct {
		answer Answer
		step   string
	}{{Answer{Status: 503}, "status: 503"}, {Answer{Status: 422}, "status: 422"}, {Answer{Status: 409}, "status: 409"}} {
		s := suite(t, fmt.Sprintf(plain, calm, "redelivery: {max_attempts: 4}"), fmt.Sprintf(`
- {name: %q, jobs: {subject: jobs.high}, targets: {t: {%s, takes: 1ms}}, expect: {dead: 1}}
`, c.step, c.step))
		fate, err := Foretell(s.Config, Routes(s.Config, "jobs.high")[0], c.answer)
		if err != nil {
			t.Fatal(err)
		}
		results := playAll(t, s)
		mustHold(t, results)
		if calls := int(results[0].Numbers["target.t.calls"]); calls != fate.Calls || fate.End != "dead" {
			t.Errorf("%s: %d calls, foretold %+v", c.step, calls, fate)
		}
		// A second for what the broker adds to each delay.
		if took := results[0].Virtual; took < fate.Takes.Min-time.Second || took > fate.Takes.Max+time.Second {
			t.Errorf("%s: took %s, foretold %s", c.step, took, fate.Takes)
		}
	}
}
