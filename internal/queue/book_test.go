package queue

import (
	"testing"

	"pgregory.net/rapid"
)

// Whatever the broker does, credit is neither made nor lost: what was wanted is
// delivered, returned, outstanding or still wanted.
func TestBook_conservesCredit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b book
		var wanted, delivered, returned, stragglers int
		t.Repeat(map[string]func(*rapid.T){
			"want":      func(t *rapid.T) { n := rapid.IntRange(0, 50).Draw(t, "n"); b.want(n); wanted += n },
			"ask":       func(*rapid.T) { b.ask() },
			"void":      func(*rapid.T) { b.void() },
			"delivered": func(*rapid.T) { delivered += b.out; b.delivered(); delivered -= b.out },
			"straggler": func(*rapid.T) { stragglers += b.wanted; b.straggler(); stragglers -= b.wanted },
			"returned":  func(t *rapid.T) { returned += b.returned(rapid.IntRange(0, 60).Draw(t, "left")) },
			"": func(t *rapid.T) {
				if b.wanted < 0 || b.out < 0 || b.requests < 0 || b.requests > maxParked || b.requests > b.out {
					t.Fatalf("impossible book %+v", b)
				}
				if sum := b.wanted + b.out + delivered + returned + stragglers; sum != wanted {
					t.Fatalf("credit %d became %d: %+v", wanted, sum, b)
				}
			},
		})
	})
}

func TestBook_mergesCreditIntoOneRequest(t *testing.T) {
	var b book
	for range maxParked {
		b.want(1)
		if got := b.ask(); got != 1 {
			t.Fatalf("ask() = %d, want 1", got)
		}
	}
	b.want(7)
	if got := b.ask(); got != 0 {
		t.Fatalf("ask() = %d with %d requests waiting, want 0", got, maxParked)
	}
	b.delivered()
	if got := b.ask(); got != 7 {
		t.Fatalf("ask() = %d after a request was used up, want all 7", got)
	}
}
