package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestCheck_findsWhatIsMissingRepeatedOrMutilated(t *testing.T) {
	all := books{Done: 10, Hanging: 2}
	for name, c := range map[string]struct {
		done, after books
		want        string // "" for none
	}{
		"all done":             {all, books{Done: 10}, ""},
		"missing":              {books{Done: 9, Hanging: 2}, all, "9 of 10 jobs were done"},
		"repeated in the end":  {all, books{Done: 10, Twice: 3}, "3 calls were repeated"},
		"jobs of nobody":       {all, books{Done: 11}, "1 for jobs that do not exist"},
		"without a whole body": {all, books{Done: 10, Wrong: 4}, "4 calls without the whole body"},
		"nobody hangs":         {books{Done: 10}, all, "0 calls were hanging"},
	} {
		err := check(side{jobs: 10, hanging: 2}, c.done, c.after)
		if (err == nil) != (c.want == "") || !strings.Contains(fmt.Sprint(err), c.want) && c.want != "" {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestBooks_measurement(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	b := books{First: at(0), Tenth: at(2), Ninetieth: at(6), Last: at(10), Busy: 5 * time.Second, Pause: time.Second}
	m := b.measurement(100)
	if m.perSecond != 10 || m.middle != 20 || m.service != 50*time.Millisecond || m.pause != time.Second {
		t.Errorf("got %.1f/s, middle %.1f/s, service %s, pause %s; want 10, 20, 50ms, 1s", m.perSecond, m.middle, m.service, m.pause)
	}
	if m := (books{}).measurement(0); m.perSecond != 0 || m.middle != 0 {
		t.Errorf("of nothing: got %+v", m)
	}
}

func TestDownstream_keepsTheBooks(t *testing.T) {
	d := &downstream{}
	d.expect(10)
	began := time.Now()
	for i := range 10 {
		d.enter(fmt.Sprint(i), payload, began)
	}
	select {
	case <-d.enough:
	default:
		t.Fatal("all are done, and nobody is told")
	}
	d.enter("3", payload, began)
	d.enter("new", payload-1, began)
	got := d.books
	if got.Done != 11 || got.Twice != 1 || got.Wrong != 1 || got.Tenth.IsZero() || got.Ninetieth.IsZero() {
		t.Errorf("got %+v, want 11 done, 1 twice, 1 wrong, and the times", got)
	}
}
