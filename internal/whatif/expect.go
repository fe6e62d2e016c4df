package whatif

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/job"
)

// bounds are what a number must be.
type bounds struct {
	low, high         float64
	lowOpen, highOpen bool // the end itself is not allowed
	not               bool // anything but low
}

// parseBounds reads "40", ">=1", "<200", "!=0" or "1..3"; for durations, "3m" is
// at most that.
func parseBounds(text string, duration bool) (bounds, error) {
	number := parseNumber
	if duration {
		number = parseSeconds
	}
	if from, to, ok := strings.Cut(text, ".."); ok {
		low, err := number(from)
		high, err2 := number(to)
		if err != nil || err2 != nil || low > high {
			return bounds{}, fmt.Errorf("%q is not a range", text)
		}
		return bounds{low: low, high: high}, nil
	}
	for _, op := range []string{">=", "<=", "!=", ">", "<", "="} {
		rest, ok := strings.CutPrefix(text, op)
		if !ok {
			continue
		}
		v, err := number(rest)
		return bound(op, v), err
	}
	v, err := number(text)
	if duration {
		return bound("<=", v), err
	}
	return bound("=", v), err
}

const most = 1e300

func bound(op string, v float64) bounds {
	switch op {
	case ">=":
		return bounds{low: v, high: most}
	case ">":
		return bounds{low: v, high: most, lowOpen: true}
	case "<=":
		return bounds{low: -most, high: v}
	case "<":
		return bounds{low: -most, high: v, highOpen: true}
	case "!=":
		return bounds{low: v, not: true}
	}
	return bounds{low: v, high: v}
}

func (b bounds) hold(v float64) bool {
	if b.not {
		return v != b.low
	}
	return (v > b.low || v == b.low && !b.lowOpen) && (v < b.high || v == b.high && !b.highOpen)
}

func parseNumber(s string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || v != v || v < -most || v > most {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return v, nil
}

func parseSeconds(s string) (float64, error) {
	d, err := time.ParseDuration(strings.TrimSpace(s))
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 30s or 1h30m", s)
	}
	return d.Seconds(), nil
}

// isDuration tells whether a number is a time.
func isDuration(name string) bool { return name == "within" || strings.HasSuffix(name, ".held") }

// expectable lists what a test of a configuration may expect something of.
func expectable(cfg *config.File) []string {
	names := []string{"within", "left", "expired"}
	for _, a := range job.Actions() {
		names = append(names, a.String())
		for _, name := range sorted(cfg.Pools) {
			names = append(names, "pool."+name+"."+a.String())
		}
	}
	for _, r := range job.Reasons() {
		for _, a := range []job.Action{job.DeadLetter, job.Drop, job.Retry, job.Defer, job.Release} {
			names = append(names, a.String()+".reason."+string(r))
		}
	}
	for _, name := range sorted(cfg.Pools) {
		names = append(names, "pool."+name+".held")
	}
	for _, name := range sorted(cfg.Targets) {
		names = append(names, "target."+name+".calls", "target."+name+".max_in_flight", "breaker."+name+".opened", "breaker."+name+".closed")
	}
	return names
}

// Failure is an expectation that does not hold.
type Failure struct {
	// What it is about, for example "dead".
	What string `json:"what"`
	// Want and Got as one would write them.
	Want string `json:"want"`
	Got  string `json:"got"`
}

// compare lists what does not hold, in the order of names.
func (t Test) compare(numbers map[string]float64) (failed []Failure) {
	for _, name := range sorted(t.Expect) {
		b, err := parseBounds(t.Expect[name], isDuration(name))
		if err != nil {
			continue // said when the file was read
		}
		if got := numbers[name]; !b.hold(got) {
			failed = append(failed, Failure{name, wanted(t.Expect[name], name), value(got, name)})
		}
	}
	if _, said := t.Expect["left"]; !said && numbers["left"] > 0 {
		failed = append(failed, Failure{"left", "0, as nothing else is said", value(numbers["left"], "left")})
	}
	return failed
}

func wanted(text, name string) string {
	if isDuration(name) && !strings.ContainsAny(text, "<>=.") {
		return "at most " + text
	}
	return text
}

func value(v float64, name string) string {
	if isDuration(name) {
		return short(time.Duration(v * float64(time.Second)))
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// knownName finds out whether something can be expected of a name.
func knownName(names []string, name string) (hint string, ok bool) {
	if slices.Contains(names, name) {
		return "", true
	}
	if near := config.Nearest(name, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near), false
	}
	prefix, _, dotted := strings.Cut(name, ".")
	if !dotted {
		return "see docs/testing-your-config.md for what can be expected", false
	}
	var some []string
	for _, n := range names {
		if strings.HasPrefix(n, prefix+".") {
			some = append(some, n)
		}
	}
	if len(some) == 0 {
		return "see docs/testing-your-config.md for what can be expected", false
	}
	return "known here: " + strings.Join(some[:min(len(some), 8)], ", "), false
}
