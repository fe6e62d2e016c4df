package main

import (
	"testing"
	"unicode/utf8"

	"github.com/workerd/workerd/internal/admin"
)

func TestView_aPoolSaysWhatItDoesInFewWords(t *testing.T) {
	for want, got := range map[string]string{
		"████░░░░":          bar(4, 8),
		"█░░░░░░░":          bar(1, 1000), // something runs
		"████████":          bar(9, 8),
		"░░░░░░░░":          bar(0, 0),
		", 7 left":          pending(admin.Pool{Consumers: []admin.Consumer{{Pending: 3}, {Pending: 4}}}),
		"":                  pending(admin.Pool{}),
		" +2 retry +1 dead": trouble(admin.Jobs{Retry: 5, Dead: 1, Deferred: 4}, admin.Jobs{Retry: 3, Deferred: 4}),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if n := utf8.RuneCountInString(bar(3, 7)); n != 8 {
		t.Errorf("a bar of %d cells", n)
	}
}
