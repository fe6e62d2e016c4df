package whatif

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		text     string
		duration bool
		holds    []float64
		not      []float64
	}{
		{"40", false, []float64{40}, []float64{39, 41}},
		{">=1", false, []float64{1, 2}, []float64{0}},
		{"> 1", false, []float64{2}, []float64{1}},
		{"<200", false, []float64{199}, []float64{200}},
		{"<=200", false, []float64{200, -1}, []float64{201}},
		{"!=0", false, []float64{1}, []float64{0}},
		{"1..3", false, []float64{1, 2, 3}, []float64{0, 4}},
		{"3m", true, []float64{180, 0}, []float64{181}},
		{">1m", true, []float64{61}, []float64{60}},
		{"1m..2m", true, []float64{60, 120}, []float64{59, 121}},
	} {
		b, err := parseBounds(c.text, c.duration)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
		}
		for _, v := range c.holds {
			if !b.hold(v) {
				t.Errorf("%s does not hold for %v", c.text, v)
			}
		}
		for _, v := range c.not {
			if b.hold(v) {
				t.Errorf("%s holds for %v", c.text, v)
			}
		}
	}
	for _, bad := range []string{"", "many", "1..", "3..1", ">", "NaN", ">=-Inf", "1m"} {
		if b, err := parseBounds(bad, false); err == nil {
			t.Errorf("%q is taken for %+v", bad, b)
		}
	}
}

func TestStepAt_theLastStays(t *testing.T) {
	steps := []Step{{For: time.Minute, Status: 503}, {For: time.Second, Status: 429}, {Status: 201}}
	for at, want := range map[time.Duration]int{0: 503, time.Minute - 1: 503, time.Minute: 429, 61 * time.Second: 201, time.Hour: 201} {
		if got := stepAt(steps, at).Status; got != want {
			t.Errorf("after %s: %d, want %d", at, got, want)
		}
	}
	if got := stepAt(nil, 0); got.Status != 200 {
		t.Errorf("without steps: %+v", got)
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		wide, narrow string
		want         bool
	}{
		{"a.b", "a.b", true},
		{"a.*", "a.b", true},
		{"a.>", "a.b.c", true},
		{"a.>", "a", false},
		{"a.*", "a.>", false},
		{"a.b", "a.*", false},
		{"a.*.c", "a.b", false},
		{">", "a.>", true},
		{"a", "a.b", false},
	} {
		if got := covers(c.wide, c.narrow); got != c.want {
			t.Errorf("%s covers %s: %v", c.wide, c.narrow, got)
		}
	}
}

// TestTakers_ofAStreamThatIsNotDescribed: it takes what its pools take, and two
// pools that want the same job each get it.
func TestTakers_ofAStreamThatIsNotDescribed(t *testing.T) {
	s := suite(t, `
targets: {t: {http: {url: "http://t.invalid/"}}}
pools:
  a: {target: t, stream: JOBS, subjects: {high: [jobs.a.high], low: [jobs.a.low]}}
  b: {target: t, stream: JOBS, subjects: {normal: ["jobs.a.*", jobs.b]}}`, `
- {name: one, jobs: {subject: jobs.a.high}, expect: {ok: 2, pool.a.ok: 1, pool.b.ok: 1}}
- {name: other, jobs: {subject: jobs.b}, expect: {ok: 1, pool.b.ok: 1}}
`)
	stream := absentStreams(s.Config)["JOBS"]
	if slices.Sort(stream.Subjects); stream.Retention != "limits" || strings.Join(stream.Subjects, " ") != "jobs.a.* jobs.b" {
		t.Errorf("the stream is %+v", stream)
	}
	mustHold(t, playAll(t, s))
}

func TestRun_aChildThatCrashesIsReportedWithItsLastWords(t *testing.T) {
	s := suite(t, `
targets: {t: {http: {url: "http://t.invalid/"}}}
pools: {a: {target: t, stream: JOBS, subjects: {high: [jobs]}}}`, `
- {name: one, jobs: {subject: jobs}, expect: {ok: 1}}
`)
	crash := func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=TestRun_lastWords", "-test.v")
		cmd.Env = append(os.Environ(), "WHATIF_CRASH=1")
		return cmd
	}
	_, err := Run(t.Context(), s, 0, Options{Command: crash, Limit: time.Minute})
	if err == nil || !strings.Contains(err.Error(), "ended without a result") || !strings.Contains(err.Error(), "panic: last words") {
		t.Errorf("got %v", err)
	}
}

// TestRun_lastWords is the child of the test above.
func TestRun_lastWords(*testing.T) {
	if os.Getenv("WHATIF_CRASH") != "" {
		panic("last words")
	}
}

func TestTimeline_isCutInTheMiddle(t *testing.T) {
	r := Result{Name: "x"}
	for range 100 {
		r.Timeline = append(r.Timeline, Event{time.Second, "something"})
	}
	var short, all bytes.Buffer
	_, _ = r.Text(&short, false), r.Text(&all, true)
	if n := strings.Count(short.String(), "something"); n != shortTimeline || !strings.Contains(short.String(), "… 76 events more, see them with -v") {
		t.Errorf("%d events are shown:\n%s", n, &short)
	}
	if n := strings.Count(all.String(), "something"); n != 100 {
		t.Errorf("%d events are shown of all", n)
	}
}
