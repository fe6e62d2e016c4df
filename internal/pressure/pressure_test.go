package pressure

import (
	"math"
	"runtime"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(d time.Duration) time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(d) }

// use lets a process use a share of two CPUs for so many seconds.
func use(m *Meter, from int, share float64, seconds int, r *Reading) int {
	for range seconds {
		from++
		r.CPU += time.Duration(2 * share * float64(time.Second))
		r.At, r.CPUs = at(time.Duration(from)*time.Second), 2
		m.Note(*r)
	}
	return from
}

func TestMeter_pressureBeginsAboveItsShareOfTheCPU(t *testing.T) {
	m, r := New(Config{}.WithDefaults()), Reading{Limit: math.MaxInt64}
	second := use(m, 0, 0.8, 20, &r)
	if s := m.State(); s.Pressure != 0 || s.Of != "" || s.CPU < 0.79 || s.CPU > 0.81 {
		t.Errorf("at 80 %%: %+v", s)
	}
	second = use(m, second, 1, 20, &r)
	if s := m.State(); s.Pressure < 0.99 || s.Of != "cpu" {
		t.Errorf("at 100 %%: %+v", s)
	}
	use(m, second, 0.1, 20, &r)
	if s := m.State(); s.Pressure != 0 {
		t.Errorf("and then at 10 %%: %+v", s)
	}
}

func TestMeter_memoryIsMeasuredAgainstItsLimit(t *testing.T) {
	m := New(Config{}.WithDefaults())
	m.Note(Reading{At: at(0), CPUs: 2, Heap: 1 << 40, Limit: math.MaxInt64})
	if s := m.State(); s.Pressure != 0 {
		t.Errorf("without a limit: %+v", s)
	}
	m.Note(Reading{At: at(time.Second), CPUs: 2, Heap: 85 << 20, Limit: 100 << 20})
	if s := m.State(); s.Pressure < 0.99 || s.Of != "memory" || s.Memory != 0.85 {
		t.Errorf("at 85 %%: %+v", s)
	}
}

func TestMeter_off(t *testing.T) {
	m, r := New(Config{CPU: off, Memory: off}), Reading{Limit: 1, Heap: 1}
	use(m, 0, 1, 20, &r)
	if s := m.State(); s.Pressure != 0 {
		t.Errorf("switched off: %+v", s)
	}
}

func TestMeter_clocksThatStandStillOrRunBackwardsDoNoHarm(t *testing.T) {
	m := New(Config{}.WithDefaults())
	for _, r := range []Reading{{At: at(time.Second), CPU: 1, CPUs: 1}, {At: at(time.Second), CPU: 2, CPUs: 1}, {At: at(0), CPU: 3, CPUs: 0}, {}} {
		m.Note(r)
	}
	if s := m.State(); s.Pressure != 0 || math.IsNaN(s.CPU) {
		t.Errorf("got %+v", s)
	}
}

func TestLimit_isNeverMoreNorNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := State{Pressure: rapid.Float64Range(0, 1).Draw(t, "pressure")}
		limit, cpus := rapid.IntRange(1, 10000).Draw(t, "limit"), rapid.IntRange(1, 64).Draw(t, "cpus")
		if got := s.Limit(limit, cpus); got < 1 || got > limit || s.Pressure == 0 && got != limit {
			t.Fatalf("limit %d of %d", got, limit)
		}
	})
	if got := (State{Pressure: 1}).Limit(100, 2); got != 10 {
		t.Errorf("under full pressure %d of 100, want 10", got)
	}
}

func TestRead_thisProcess(t *testing.T) {
	runtime.GC()
	if r := Read(); r.CPU <= 0 || r.CPUs < 1 || r.Heap <= 0 || r.Limit <= 0 || r.At.IsZero() {
		t.Errorf("got %+v", r)
	}
}

func TestConfig_saysEveryProblem(t *testing.T) {
	var problems []string
	note := func(field, message string) { problems = append(problems, field+": "+message) }
	Config{CPU: math.NaN(), Memory: 2}.Validate(note)
	if len(problems) != 2 {
		t.Errorf("got %q", problems)
	}
	problems = nil
	Config{}.WithDefaults().Validate(note)
	if len(problems) > 0 {
		t.Errorf("defaults: %q", problems)
	}
}
