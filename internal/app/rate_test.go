package app

import (
	"testing"
	"time"
)

func TestRate_isThatOfTheLastSeconds(t *testing.T) {
	var r rate
	now := time.Now()
	r.note(now, 5)
	if got := r.perSecond(); got != nil {
		t.Errorf("%v per second after one sample, want none", *got)
	}
	r.note(now.Add(2*time.Second), 25)
	if got := r.perSecond(); got == nil || *got != 10 {
		t.Errorf("got %v, want 10 per second", got)
	}
	for i := range 20 { // stands still
		r.note(now.Add(time.Duration(3+i)*time.Second), 25)
	}
	if got := r.perSecond(); got == nil || *got != 0 {
		t.Errorf("got %v, want 0 per second: what was longer ago does not count", got)
	}
}
