package valve

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(d time.Duration) time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(d) }

func closedBy(t *testing.T, v *Valve, finals int) {
	t.Helper()
	for n := range finals {
		moved := v.Final(at(time.Duration(n)*time.Millisecond), true, "HTTP 401")
		if moved != (n == finals-1) {
			t.Fatalf("final %d: moved %v", n+1, moved)
		}
	}
}

func TestValve_closesAtHalfOfTwentyAndNotBefore(t *testing.T) {
	closedBy(t, New(Config{}.WithDefaults()), 20)
	v := New(Config{}.WithDefaults())
	for n := range 1000 {
		if v.Final(at(time.Duration(n)*time.Millisecond), n%5 < 2, "") {
			t.Fatalf("closed at final %d with 40 %% bad", n)
		}
	}
}

func TestValve_forgetsWhatIsOlderThanItsWindow(t *testing.T) {
	v := New(Config{}.WithDefaults())
	for n := range 19 {
		v.Final(at(time.Duration(n)*time.Millisecond), true, "")
	}
	if v.Final(at(2*time.Minute), true, "") {
		t.Error("closed by what was long ago")
	}
}

func TestValve_probesOneByOneAndOpensAfterThreeGoodOnes(t *testing.T) {
	v := New(Config{}.WithDefaults())
	if n, _ := v.Credit(at(0), 7); n != -1 {
		t.Fatalf("open, and its credit is %d", n)
	}
	closedBy(t, v, 20)
	closed := v.Stats()
	if !closed.Closed || closed.Last != "HTTP 401" || closed.Closes != 1 {
		t.Fatalf("got %+v", closed)
	}
	if n, until := v.Credit(at(time.Second), 0); n != 0 || !until.Equal(closed.Until) {
		t.Errorf("closed: %d until %v", n, until)
	}
	if v.Final(at(2*time.Second), false, "") || !v.Stats().Until.Equal(closed.Until) {
		t.Error("a job that was running when it closed counts as a probe")
	}
	now := closed.Until
	if n, _ := v.Credit(now, 0); n != 1 {
		t.Errorf("probing: %d, want 1", n)
	}
	if n, _ := v.Credit(now, 1); n != 0 {
		t.Errorf("probing with one running: %d, want 0", n)
	}
	v.Final(now, true, "HTTP 401")
	if s := v.Stats(); !s.Until.Equal(now.Add(2 * time.Minute)) {
		t.Errorf("after a bad probe: until %v, want two minutes later", s.Until)
	}
	now = v.Stats().Until
	for n := range 3 {
		if moved := v.Final(now, false, ""); moved != (n == 2) {
			t.Errorf("good probe %d: moved %v", n+1, moved)
		}
	}
	if n, _ := v.Credit(now, 99); n != -1 {
		t.Error("did not open")
	}
}

func TestValve_anOperatorOpensIt(t *testing.T) {
	v := New(Config{}.WithDefaults())
	closedBy(t, v, 20)
	changed := v.Changed()
	v.Reset()
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	if v.Stats().Closed {
		t.Error("still closed")
	}
}

func TestValve_off(t *testing.T) {
	v := New(Config{Ratio: off}.WithDefaults())
	for range 100 {
		if v.Final(at(0), true, "") {
			t.Fatal("closed")
		}
	}
}

// TestValve_alwaysProbesAgain: from any state, after a bounded time one job may
// start; and it closes only with enough finals.
func TestValve_alwaysProbesAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Min: rapid.IntRange(1, 30).Draw(t, "min")}.WithDefaults()
		v := New(cfg)
		now, finals := at(0), 0
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "step")))
			was := v.Stats().Closed
			if n, _ := v.Credit(now, 0); n == 0 && was && !now.Before(v.Stats().Until) {
				t.Fatal("no probe although the pause is over")
			}
			moved := v.Final(now, rapid.Bool().Draw(t, "bad"), "")
			if finals++; !was && moved && finals < cfg.Min {
				t.Fatalf("closed after %d finals", finals)
			}
			if moved {
				finals = 0
			}
			if s := v.Stats(); s.Closed && s.Until.Sub(now) > longest*cfg.Pause {
				t.Fatalf("pauses for %v", s.Until.Sub(now))
			}
		}
	})
}

func TestConfig_saysEveryProblem(t *testing.T) {
	var problems []string
	note := func(field, message string) { problems = append(problems, field+": "+message) }
	Config{Ratio: math.NaN(), Min: -1, Window: 1, Pause: 1}.Validate(note)
	if len(problems) != 4 {
		t.Errorf("got %q", problems)
	}
	problems = nil
	Config{}.WithDefaults().Validate(note)
	if len(problems) > 0 {
		t.Errorf("defaults: %q", problems)
	}
}
