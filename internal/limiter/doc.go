// Package limiter bounds how much a target is asked to do: how many calls at
// once, how many per second, and none before the time it has asked for.
//
//	           ┌ not before   Retry-After, the longest that was heard
//	           │ stall        it has stopped answering: hardly any more
//	Acquire ───┤ rate         a token bucket
//	           │ ramp         after an outage 1, 2, 4, … at once
//	           └ limit        fixed, or follows what the target can take
//	   │
//	 Seat ── call ── Done(what it says of the load)
//
// The limit moves once in a window of a second or two typical calls:
//
//	        1 % of the calls throttled, or 5 % timed out: × 0.7
//	        ┌──────────────────────────────────────────────────┐
//	min ◄───┤                       limit                      ├───► max
//	        └──────────────────────────────────────────────────┘
//	        aimd: + 1 or 5 % if the limit was used
//	        gradient: towards what keeps calls within 1.5 × their usual time
//
// An outage makes calls time out, too. When the target is back, and its ramp
// has begun, the limit is what it was before, unless that was not proven since
// the last outage: then it was the load.
//
// Guarantees:
//
//  1. Never more than limit and ramp calls have a seat at once. A limit that
//     sinks interrupts nobody.
//  2. The limit stays within min and max; it sinks at most once per window, and
//     does not rise while it is not used.
//  3. A seat is given exactly when [Limiter.Credit] is not zero at that instant.
//  4. A second Done does nothing, nor does Done on a zero seat.
//  5. Time that stands still or runs backwards does no harm.
//
// It reads no clock, starts no goroutine and logs nothing. To others it leaves
// waiting for a seat (pool) and saying what a result means (pipeline).
package limiter
