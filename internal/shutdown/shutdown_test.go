package shutdown_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/workerd/workerd/internal/shutdown"
)

// work is a phase that takes d, unless its context ends before.
func work(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// told is a report in a form that can be compared.
type told struct {
	name    string
	took    time.Duration
	err     string
	hurried bool
}

func record(into *[]told) func(shutdown.Report) {
	return func(r shutdown.Report) {
		text := ""
		if r.Err != nil {
			text = r.Err.Error()
		}
		*into = append(*into, told{r.Name, r.Took, text, r.Hurried})
	}
}

func expect(t *testing.T, got, want []told) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRun_aPhaseThatFailsSkipsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errBroken := errors.New("broken")
		hang := make(chan struct{})
		defer close(hang)
		var got []told
		err := shutdown.Run(t.Context(), []shutdown.Phase{
			{Name: "good", Timeout: time.Minute, Run: work(3 * time.Second)},
			{Name: "bad", Timeout: time.Minute, Run: func(context.Context) error { return errBroken }},
			{Name: "slow", Timeout: time.Second, Run: work(time.Hour)},
			{Name: "panics", Timeout: time.Minute, Run: func(context.Context) error { panic("boom") }},
			{Name: "exits", Timeout: time.Minute, Run: func(context.Context) error { runtime.Goexit(); return nil }},
			{Name: "nothing to run", Timeout: time.Minute},
			{Name: "hangs", Timeout: 2 * time.Second, Run: func(context.Context) error { <-hang; return nil }},
			{Name: "last", Timeout: time.Minute, Run: work(time.Second)},
		}, record(&got))
		expect(t, got, []told{
			{"good", 3 * time.Second, "", false},
			{"bad", 0, "broken", false},
			{"slow", time.Second, "phase timed out", false},
			{"panics", 0, "panic: boom", false},
			{"exits", 0, "ended its goroutine without returning", false},
			{"nothing to run", 0, "panic: runtime error: invalid memory address or nil pointer dereference", false},
			{"hangs", 3 * time.Second, "did not return when its time was up, left behind", false},
			{"last", time.Second, "", false},
		})
		var boom *shutdown.PanicError
		if !errors.Is(err, errBroken) || !errors.Is(err, shutdown.ErrTimeout) || !errors.Is(err, shutdown.ErrLeftBehind) || !errors.As(err, &boom) {
			t.Errorf("an error is missing: %v", err)
		} else if !strings.Contains(string(boom.Stack), "shutdown_test") {
			t.Errorf("the stack does not lead here: %s", boom.Stack)
		}
		if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 6 || lines[0] != "bad: broken" {
			t.Errorf("joined to %q", lines)
		}
	})
}

func TestRun_withoutErrorsIsNil(t *testing.T) {
	phases := []shutdown.Phase{{Name: "x", Timeout: time.Minute, Run: work(0)}}
	if err := shutdown.Run(t.Context(), phases, nil); err != nil {
		t.Error(err)
	}
	if err := shutdown.Run(t.Context(), nil, nil); err != nil {
		t.Error(err)
	}
}

func TestRun_hurryCutsShortOnlyWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errHurry := errors.New("hurry")
		hurry, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(5*time.Second, func() { cancel(errHurry) })
		var got []told
		err := shutdown.Run(hurry, []shutdown.Phase{
			{Name: "before", Timeout: time.Minute, Waits: true, Run: work(2 * time.Second)},
			{Name: "drain", Timeout: time.Minute, Waits: true, Run: work(20 * time.Second)},
			{Name: "interrupt", Timeout: time.Minute, Run: work(4 * time.Second)},
			{Name: "another wait", Timeout: time.Minute, Waits: true, Run: work(time.Second)},
			{Name: "flush", Timeout: 3 * time.Second, Run: work(time.Hour)},
		}, record(&got))
		expect(t, got, []told{
			{"before", 2 * time.Second, "", false},
			{"drain", 3 * time.Second, "hurry", true},
			{"interrupt", 4 * time.Second, "", false},
			{"another wait", 0, "hurry", true},
			{"flush", 3 * time.Second, "phase timed out", false},
		})
		if !errors.Is(err, errHurry) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRun_waitThatTimesOutIsNotHurried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []told
		_ = shutdown.Run(t.Context(), []shutdown.Phase{{Name: "drain", Timeout: time.Second, Waits: true, Run: work(time.Hour)}}, record(&got))
		expect(t, got, []told{{"drain", time.Second, "phase timed out", false}})
	})
}

func TestRun_phaseWithoutTimeStillRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ran := false
		var got []told
		_ = shutdown.Run(t.Context(), []shutdown.Phase{{Name: "announce", Run: func(ctx context.Context) error {
			ran = ctx.Err() != nil
			return nil
		}}}, record(&got))
		if !ran {
			t.Error("did not run, or under a context that had not ended")
		}
		expect(t, got, []told{{"announce", 0, "", false}})
	})
}

func TestRun_phasesSeeTheValuesOfHurry(t *testing.T) {
	type key struct{}
	hurry, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	cancel()
	for _, waits := range []bool{false, true} {
		_ = shutdown.Run(hurry, []shutdown.Phase{{Timeout: time.Minute, Waits: waits, Run: func(ctx context.Context) error {
			if ctx.Value(key{}) != "value" || (ctx.Err() != nil) != waits {
				t.Errorf("waits %v: value %v, err %v", waits, ctx.Value(key{}), ctx.Err())
			}
			return nil
		}}}, nil)
	}
}

func TestRun_reportComesBeforeTheNextPhaseAndMayPanic(t *testing.T) {
	var order []string
	phase := func(name string) shutdown.Phase {
		return shutdown.Phase{Name: name, Timeout: time.Minute, Run: func(context.Context) error {
			order = append(order, "run "+name)
			return nil
		}}
	}
	err := shutdown.Run(t.Context(), []shutdown.Phase{phase("a"), phase("b")}, func(r shutdown.Report) {
		order = append(order, "report "+r.Name)
		panic("full disk")
	})
	if want := []string{"run a", "report a", "run b", "report b"}; !slices.Equal(order, want) {
		t.Errorf("got %v", order)
	}
	if want := "report of a: panic: full disk\nreport of b: panic: full disk"; fmt.Sprint(err) != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

// TestInvariant41_shutdownTakesAtMostItsTimeouts, plus the second in which an
// obstinate phase is waited for.
func TestInvariant41_shutdownTakesAtMostItsTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(r *rapid.T) {
			release := make(chan struct{})
			hurry, cancel := context.WithCancel(t.Context())
			defer cancel()
			defer close(release)
			seconds := func(label string) time.Duration {
				return time.Duration(rapid.IntRange(0, 30).Draw(r, label)) * time.Second
			}
			var phases []shutdown.Phase
			var bound time.Duration
			for range rapid.IntRange(0, 6).Draw(r, "phases") {
				p := shutdown.Phase{Timeout: seconds("timeout"), Waits: rapid.Bool().Draw(r, "waits"), Run: work(seconds("work"))}
				bound += p.Timeout
				if rapid.IntRange(0, 3).Draw(r, "kind") == 0 {
					p.Run = func(context.Context) error { <-release; return nil }
					bound += time.Second
				}
				phases = append(phases, p)
			}
			stop := time.AfterFunc(seconds("hurry"), cancel)
			defer stop.Stop()
			began, reports := time.Now(), 0
			_ = shutdown.Run(hurry, phases, func(rep shutdown.Report) { reports++ })
			if took := time.Since(began); took > bound || reports != len(phases) {
				r.Fatalf("took %s, at most %s allowed; %d reports of %d phases", took, bound, reports, len(phases))
			}
		})
	})
}

// inBubble hides a test's deadline from rapid, which must not be asked for in
// a bubble.
type inBubble struct{ rapid.TB }

func ExampleRun() {
	hurry := context.Background()
	err := shutdown.Run(hurry, []shutdown.Phase{
		{Name: "drain", Timeout: 20 * time.Second, Waits: true, Run: func(context.Context) error { return nil }},
		{Name: "flush", Timeout: 3 * time.Second, Run: func(context.Context) error { return errors.New("2 acks unconfirmed") }},
		{Name: "close", Timeout: time.Second, Run: func(context.Context) error { return nil }},
	}, func(r shutdown.Report) { fmt.Println(r.Name, "ended, error:", r.Err) })
	fmt.Println(err)
	// Output:
	// drain ended, error: <nil>
	// flush ended, error: 2 acks unconfirmed
	// close ended, error: <nil>
	// flush: 2 acks unconfirmed
}
