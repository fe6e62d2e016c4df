package breaker_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/workerd/workerd/internal/breaker"
)

var update = flag.Bool("update", false, "rewrite the stories in testdata")

// TestStories plays testdata/*.txt. Each line is a command; what follows "->"
// is what came of it, and a line with "!!" is a change that was told. With
// -update the outcomes are written anew.
//
//	config KEY=VALUE...      a new breaker (without jitter unless said)
//	set KEY=VALUE...         a live change of config, on top of what was said
//	N VERDICT [taking D] [retry-after D]    N calls, one after the other
//	start NAME               acquire a permit
//	end NAME VERDICT [retry-after D]        and end it later
//	wait D                   time passes
//	override STATE D TEXT    an operator takes over
//	reset                    and lets go
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := tell(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(text), got); diff != "" {
				t.Errorf("the story goes differently (-told +played), -update to rewrite:\n%s", diff)
			}
		})
	}
}

type teller struct {
	t       *testing.T
	b       *breaker.Breaker
	cfg     breaker.Config
	zero    time.Time
	now     time.Time
	permits map[string]*breaker.Permit
	changes []breaker.Change
}

func tell(t *testing.T, text string) string {
	zero := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	s := &teller{t: t, zero: zero, now: zero, permits: map[string]*breaker.Permit{}}
	var out strings.Builder
	for line := range strings.Lines(text) {
		command, _, _ := strings.Cut(strings.TrimRight(line, "\n"), "->")
		command = strings.TrimRight(command, " ")
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "!!"):
		case command == "" || command[0] == '#':
			out.WriteString(command + "\n")
		default:
			s.changes = nil
			outcome := s.play(strings.Fields(command))
			fmt.Fprintf(&out, "%-40s -> %s%s\n", command, outcome, s.state())
			for _, c := range s.changes {
				fmt.Fprintf(&out, "    !! %s\n", describe(c))
			}
		}
	}
	return out.String()
}

func describe(c breaker.Change) string {
	s := fmt.Sprintf("%v -> %v because of %s", c.From, c.To, c.Reason)
	if c.Total > 0 {
		s += fmt.Sprintf(", %d bad and %d slow of %d, %d in a row", c.Bad, c.Slow, c.Total, c.Consecutive)
	}
	if c.Wait > 0 {
		s += fmt.Sprintf(", for %v", c.Wait)
	}
	if c.Note != "" {
		s += fmt.Sprintf(", %q", c.Note)
	}
	return s
}

func (s *teller) state() string {
	st := s.b.Stats(s.now)
	text := fmt.Sprintf("%v %v", s.now.Sub(s.zero), st.State)
	switch st.State {
	case breaker.Closed, breaker.MetricsOnly:
		text += fmt.Sprintf(" bad=%d slow=%d of %d, %d in a row", st.Bad, st.Slow, st.Total, st.Consecutive)
	case breaker.HalfOpen:
		text += fmt.Sprintf(" probes=%d proven=%d", st.Probes, st.Proven)
	}
	if !st.Until.IsZero() {
		text += fmt.Sprintf(" until %v", st.Until.Sub(s.zero))
	}
	if st.Stale > 0 {
		text += fmt.Sprintf(" stale=%d", st.Stale)
	}
	if st.WouldOpen > 0 {
		text += fmt.Sprintf(" would-open=%d would-reject=%d", st.WouldOpen, st.WouldReject)
	}
	return text
}

func (s *teller) play(words []string) (outcome string) {
	args := words[1:]
	switch words[0] {
	case "config":
		s.cfg = breaker.Config{OpenJitter: -1}
		s.configure(args)
		s.b = breaker.New(s.cfg, func(c breaker.Change) { s.changes = append(s.changes, c) })
	case "set":
		s.configure(args)
		s.b.SetConfig(s.now, s.cfg)
	case "wait":
		s.now = s.now.Add(s.duration(args[0]))
	case "start":
		return s.start(args[0])
	case "end":
		s.permits[args[0]].Done(s.now, s.verdict(args[1]), s.option(args, "retry-after"))
	case "override":
		for _, state := range breaker.States() {
			if state.String() == args[0] {
				s.check(s.b.Override(state, s.duration(args[1]), strings.Join(args[2:], " "), s.now))
			}
		}
	case "reset":
		s.b.Reset(s.now)
	default:
		return s.calls(words)
	}
	return ""
}

func (s *teller) start(name string) string {
	p, err := s.b.Acquire(s.now)
	s.permits[name] = &p
	if err != nil {
		return "refused: " + err.Error() + "; "
	}
	return ""
}

// calls plays "20 bad taking 3s".
func (s *teller) calls(words []string) string {
	n, err := strconv.Atoi(words[0])
	s.check(err)
	for i := range n {
		if refused := s.start("call"); refused != "" {
			return fmt.Sprintf("%d of %d %s", n-i, n, refused)
		}
		s.now = s.now.Add(s.option(words, "taking"))
		s.permits["call"].Done(s.now, s.verdict(words[1]), s.option(words, "retry-after"))
	}
	return ""
}

func (s *teller) option(words []string, name string) time.Duration {
	for i := range len(words) - 1 {
		if words[i] == name {
			return s.duration(words[i+1])
		}
	}
	return 0
}

func (s *teller) verdict(word string) breaker.Verdict {
	for v := breaker.Good; v <= breaker.Ignored; v++ {
		if v.String() == word {
			return v
		}
	}
	s.t.Fatalf("no verdict: %q", word)
	return 0
}

func (s *teller) duration(word string) time.Duration {
	d, err := time.ParseDuration(word)
	s.check(err)
	return d
}

func (s *teller) check(err error) {
	if err != nil {
		s.t.Helper()
		s.t.Fatal(err)
	}
}

// configure sets fields by their names in the configuration file.
func (s *teller) configure(args []string) {
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		field := reflect.ValueOf(&s.cfg).Elem().FieldByNameFunc(func(name string) bool {
			f, _ := reflect.TypeFor[breaker.Config]().FieldByName(name)
			return f.Tag.Get("yaml") == key
		})
		switch field.Interface().(type) {
		case time.Duration:
			field.SetInt(int64(s.duration(value)))
		case breaker.ThrottledAs:
			field.SetString(value)
		case int:
			n, err := strconv.Atoi(value)
			s.check(err)
			field.SetInt(int64(n))
		case float64:
			x, err := strconv.ParseFloat(value, 64)
			s.check(err)
			field.SetFloat(x)
		}
	}
}
