package queue

import (
	"testing"
	"time"
)

func TestOutage_isSpokenOfNowAndThen(t *testing.T) {
	var o outage
	began := time.Now()
	for _, c := range []struct {
		after time.Duration
		text  string
		want  bool
	}{
		{0, "refused", true},
		{time.Second, "refused", false},
		{2 * time.Second, "no such host", false},
		{6 * time.Second, "no such host", true},
		{35 * time.Second, "no such host", false},
		{36 * time.Second, "no such host", true},
	} {
		due, lasts := o.speak(began.Add(c.after), c.text)
		if due != c.want || due && lasts != c.after {
			t.Errorf("after %s %q: %v, %s; want %v", c.after, c.text, due, lasts, c.want)
		}
	}
}
