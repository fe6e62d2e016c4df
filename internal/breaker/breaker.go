package breaker

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Breaker guards one target. All its methods may be called from any
// goroutine, the listener included. The times passed in should come from
// time.Now, read as late as possible.
type Breaker struct {
	// cur is the machine's epoch, nil before the first call. Acquire reads it
	// without the lock; it is written under it.
	cur      atomic.Pointer[epoch]
	onChange func(Change)

	mu             sync.Mutex // guards what follows
	m              machine
	changed        chan struct{} // nil: nobody has asked
	telling        bool          // somebody is calling onChange
	listenerPanics uint64
}

// New returns a closed breaker. It fills in defaults; cfg should have been
// validated. onChange may be nil. It is told every change of state, in order
// and one at a time, by whichever caller brought it about or is already
// telling, with no lock held: it must not block for long, and it may use the
// breaker. If it panics, the panic is counted and goes no further.
func New(cfg Config, onChange func(Change)) *Breaker {
	if onChange == nil {
		onChange = func(Change) {}
	}
	return &Breaker{onChange: onChange, m: machine{rules: newRules(cfg), u: rand.Float64()}}
}

// Permit to make one call. It must be ended with Done, also if the call
// panics or its goroutine exits. The zero Permit permits nothing.
//
// A Permit is a small value that costs no allocation. Done voids the variable
// it is called on, so calling it again does nothing. A copy made before does
// not know: its Done is recognised too if the permit was for a probe, and
// counts the call twice if not. So do not copy permits.
type Permit struct {
	breaker *Breaker
	grant   grant
}

// Acquire asks to make a call now. The error is an [*OpenError] that is
// ErrOpen or ErrHalfOpenFull. While closed it takes no lock.
func (b *Breaker) Acquire(now time.Time) (Permit, error) {
	if e := b.cur.Load(); e != nil && e.state == Closed {
		return Permit{b, grant{epoch: e, start: now}}, nil
	}
	return b.acquire(now)
}

// Probe tells whether the call finds out for a half-open breaker whether the target
// is back.
func (p *Permit) Probe() bool { return p.grant.probe != 0 && p.grant.epoch.state == HalfOpen }

func (b *Breaker) acquire(now time.Time) (Permit, error) {
	now = b.lock(now)
	defer b.unlock()
	g, ok := b.m.acquire(now)
	if !ok {
		return Permit{}, b.m.refusal(now)
	}
	return Permit{b, g}, nil
}

// Done reports how the call ended. Whether it was slow follows from now and
// the time of Acquire. retryAfter is how long the target asked to be left
// alone, 0 if it did not; it matters only if this result opens the breaker,
// and no further than max_open_for.
func (p *Permit) Done(now time.Time, v Verdict, retryAfter time.Duration) {
	b := p.breaker
	if b == nil {
		return
	}
	p.breaker = nil
	now = b.lock(now)
	b.m.done(now, &p.grant, result{v, retryAfter})
	b.unlock()
}

// Credit returns how many calls may start now: math.MaxInt if it does not
// matter, 0 while open, the free probes while half open. It changes at until
// by itself; a zero until means: not before Changed says so.
func (b *Breaker) Credit(now time.Time) (n int, until time.Time) {
	b.lock(now)
	defer b.unlock()
	return b.m.credit()
}

// Changed returns a channel that is closed at the next transition, and when a
// probe or a new config frees credit. Take the channel first and ask for
// Credit then, so that nothing is missed in between.
func (b *Breaker) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}

// Stats returns a consistent snapshot.
func (b *Breaker) Stats(now time.Time) Stats {
	now = b.lock(now)
	defer b.unlock()
	s := b.m.stats(now)
	s.ListenerPanics = b.listenerPanics
	return s
}

// DefaultTTL of an override.
const DefaultTTL = time.Hour

// Override puts the breaker into ForcedOpen, Disabled or MetricsOnly for ttl,
// whatever its state, after which it is closed. A ttl of 0 means DefaultTTL:
// no override is forgotten for ever. reason is for people. An error means that
// state is none of the three or ttl is negative; nothing has happened then.
func (b *Breaker) Override(state State, ttl time.Duration, reason string, now time.Time) error {
	if !state.isOverride() {
		return fmt.Errorf("override breaker: state %v is not allowed, use %v, %v or %v", state, ForcedOpen, Disabled, MetricsOnly)
	}
	if ttl < 0 {
		return fmt.Errorf("override breaker: ttl %v is not allowed, use more than 0, or 0 for %v", ttl, DefaultTTL)
	}
	if ttl == 0 {
		ttl = DefaultTTL
	}
	now = b.lock(now)
	defer b.unlock()
	b.m.override(now, state, ttl, reason)
	return nil
}

// Reset closes the breaker, ends any override and forgets what was counted.
func (b *Breaker) Reset(now time.Time) {
	now = b.lock(now)
	defer b.unlock()
	b.m.close(now, WasReset)
}

// SetConfig changes the config of a live breaker. It fills in defaults; cfg
// should have been validated. Thresholds apply from the next result on. While
// closed, another window starts empty. A wait that is running is cut to the
// new max_open_for and never made longer. Probes that are running keep
// their permits and leases.
func (b *Breaker) SetConfig(now time.Time, cfg Config) {
	now = b.lock(now)
	defer b.unlock()
	b.m.configure(now, newRules(cfg))
}

// lock takes the lock and brings the machine up to date.
func (b *Breaker) lock(now time.Time) time.Time {
	b.mu.Lock()
	return b.m.advance(now)
}

// unlock publishes what has happened since lock, and releases it.
func (b *Breaker) unlock() {
	if b.m.moved {
		b.publish()
	}
	if len(b.m.changes) == 0 || b.telling {
		b.mu.Unlock()
		return
	}
	b.tell()
}

func (b *Breaker) publish() {
	b.m.moved = false
	b.m.u = rand.Float64()
	b.cur.Store(b.m.cur)
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// tell hands the pending changes to the listener, and releases the lock.
// Changes that come up meanwhile, even by the listener itself, are left for
// this loop, so there is one teller and one order. A listener that ends its
// goroutine leaves the rest to the next caller.
func (b *Breaker) tell() {
	b.telling = true
	defer func() {
		b.telling = false
		b.mu.Unlock()
	}()
	for len(b.m.changes) > 0 {
		c := b.m.changes[0]
		b.m.changes = b.m.changes[1:]
		b.call(c)
	}
	b.m.changes = nil
}

func (b *Breaker) call(c Change) {
	b.mu.Unlock()
	defer func() {
		p := recover()
		b.mu.Lock()
		if p != nil {
			b.listenerPanics++
		}
	}()
	b.onChange(c)
}
