package main

import (
	"context"
	"math/rand/v2"
	"time"
)

// answerOnItsWay is how long a request or an answer may be on its way between a
// replica and the downstream: what was held back still arrives afterwards.
const answerOnItsWay = 200 * time.Millisecond

// networkStorm does to the connections of each replica what networks do, one
// after the other, of all replicas at the same time.
func networkStorm(low, high time.Duration) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		return w.each(ctx, func(ctx context.Context, k *worker, r *rand.Rand) error {
			faults := []func(context.Context, *worker, *rand.Rand){
				w.resetUp, w.freezeUp, w.slowUp, w.resetUp, w.resetDown, w.freezeDown, w.cutDown, w.slowDown, w.halfOpenUp,
			}
			for pause(ctx, between(r, low, high)) {
				faults[r.IntN(len(faults))](ctx, k, r)
			}
			return nil
		})
	}
}

// resetUp cuts the connection to the broker. workerd sends what was not
// confirmed again, so that this explains nothing.
func (w *world) resetUp(_ context.Context, k *worker, _ *rand.Rand) {
	if k.up.reset() > 0 {
		w.did(fault{Kind: "link to broker reset", Whom: k.replica(), Began: w.clock()})
	}
}

// freezeUp holds everything between a replica and the broker back. Leases
// outlive half of their time.
func (w *world) freezeUp(ctx context.Context, k *worker, r *rand.Rand) {
	f := fault{Kind: "link to broker frozen", Whom: k.replica(), Began: w.clock()}
	k.up.freeze()
	pause(ctx, between(r, w.ackWait/8, 2*w.ackWait))
	k.up.thaw()
	w.lapsed(&f)
	w.did(f)
}

// lapsed ends a fault that kept a replica from the broker, which explains
// something if it was long enough for leases to end.
func (w *world) lapsed(f *fault) {
	f.Ended = w.clock()
	if f.Ended-f.Began > w.ackWait/2 {
		f.lapses()
	}
}

// lapses makes a fault explain what a lapsed lease does.
func (f *fault) lapses() {
	f.Excuses, f.Before, f.Wakes = []string{f.Whom}, ackOnItsWay, true
}

// slowUp delays each piece, and explains nothing.
func (w *world) slowUp(ctx context.Context, k *worker, r *rand.Rand) {
	f := fault{Kind: "link to broker slow", Whom: k.replica(), Began: w.clock()}
	k.up.shape(between(r, 5*time.Millisecond, 50*time.Millisecond), 0, 0)
	pause(ctx, between(r, 200*time.Millisecond, 2*time.Second))
	k.up.shape(0, 0, 0)
	f.Ended = w.clock()
	w.did(f)
}

// noticed is how long a replica may take to notice that its peer has vanished:
// it asks every 5 s, and gives up at the third answer that it misses.
const noticed = 16 * time.Second

// halfOpenUp makes the peer of the connection to the broker vanish. It lasts
// until the replica has noticed and connects anew. There must be time for that.
func (w *world) halfOpenUp(ctx context.Context, k *worker, _ *rand.Rand) {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < noticed {
		return
	}
	f := fault{Kind: "link to broker half-open", Whom: k.replica(), Began: w.clock()}
	before := k.up.accepted.Load()
	if k.up.halfOpen() == 0 {
		return
	}
	if err := until(context.WithoutCancel(ctx), 25*time.Second, "a half-open connection is noticed", func() bool { return k.up.accepted.Load() > before }); err != nil {
		w.problem("%s: %v", k.replica(), err)
	}
	w.lapsed(&f)
	w.did(f)
}

// resetDown cuts the connections to the downstream: what it has answered may
// not have arrived.
func (w *world) resetDown(_ context.Context, k *worker, _ *rand.Rand) {
	f := fault{Kind: "links to downstream reset", Whom: k.replica(), Began: w.clock(), Excuses: []string{k.replica()}, Before: answerOnItsWay}
	if k.down.reset() > 0 {
		f.Ended = w.clock() + answerOnItsWay
		w.did(f)
	}
}

// freezeDown holds answers back, some until the call has timed out.
func (w *world) freezeDown(ctx context.Context, k *worker, r *rand.Rand) {
	f := fault{Kind: "links to downstream frozen", Whom: k.replica(), Began: w.clock(), Excuses: []string{k.replica()}, Before: answerOnItsWay, Holds: true}
	k.down.freeze()
	pause(ctx, between(r, 100*time.Millisecond, 4*time.Second))
	k.down.thaw()
	f.Ended = w.clock() + answerOnItsWay
	w.did(f)
}

// cutDown cuts connections to the downstream after some bytes: in the middle
// of a request or an answer.
func (w *world) cutDown(ctx context.Context, k *worker, r *rand.Rand) {
	f := fault{Kind: "links to downstream cut within", Whom: k.replica(), Began: w.clock(), Excuses: []string{k.replica()}, Before: answerOnItsWay}
	before := k.down.cuts.Load()
	k.down.shape(0, 100+r.IntN(400), 200+r.Int64N(8000))
	pause(ctx, between(r, 100*time.Millisecond, 500*time.Millisecond))
	k.down.shape(0, 0, 0)
	if f.Ended = w.clock() + answerOnItsWay; k.down.cuts.Load() > before {
		w.did(f)
	}
}

// slowDown passes 100 bytes at a time, a while between them: big payloads do
// not arrive in time.
func (w *world) slowDown(ctx context.Context, k *worker, r *rand.Rand) {
	f := fault{Kind: "links to downstream slow", Whom: k.replica(), Began: w.clock(), Excuses: []string{k.replica()}, Before: answerOnItsWay, Holds: true}
	k.down.shape(between(r, time.Millisecond, 20*time.Millisecond), 200, 0)
	pause(ctx, between(r, 200*time.Millisecond, 2*time.Second))
	k.down.shape(0, 0, 0)
	f.Ended = w.clock() + answerOnItsWay
	w.did(f)
}
