package limiter

import "testing"

// TestAcquireSpare_bindsTheOthersOnlyWhileItLasts: the pools alone cannot go
// beyond the limit, but one call more could.
func TestAcquireSpare_bindsTheOthersOnlyWhileItLasts(t *testing.T) {
	l := limiterOf(Config{}, Rate{}, 4)
	spare, ok := l.AcquireSpare(at(0))
	if !ok {
		t.Fatal("no seat, though all are free")
	}
	if n, _, _ := l.Credit(at(0)); n != 3 {
		t.Errorf("credit %d beside a spare call, want 3 of 4", n)
	}
	spare.Done(at(0), Answered)
	if n, _, _ := l.Credit(at(0)); n != Unlimited {
		t.Errorf("credit %d after it, want no bound", n)
	}
}
