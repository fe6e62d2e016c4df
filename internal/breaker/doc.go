// Package breaker refuses calls to a target that keeps failing, and finds out
// carefully when it has recovered.
//
//	            ┌───────────── half_open_calls probes in a row were good ─────────────┐
//	            ▼                                                                     │
//	       ┌────────┐  failure_rate, slow_call_rate or   ┌──────┐ wait over  ┌────────┴──┐
//	──────►│ closed ├──────────────────────────────────► │ open ├──────────► │ half_open │
//	       └────────┘  consecutive_failures reached      └──────┘            └────────┬──┘
//	            ▲                                            ▲                        │
//	            │                                            └─── any probe bad, slow,┘
//	            │ ttl over, or Reset                              throttled or overdue
//	┌───────────┴─────────────────────────────┐
//	│ forced_open · disabled · metrics_only   │◄── Override, from any state
//	└─────────────────────────────────────────┘
//
// Every arrow starts a new epoch: an empty window, zero counters, a higher
// generation. A [Permit] remembers the epoch it was granted in, and a result
// counts in that epoch or nowhere.
//
// The time spent open grows from opening to opening (open_for,
// open_multiplier, max_open_for), is jittered downwards so that replicas do
// not probe in step, and is never shorter than the capped Retry-After of the
// result that opened the breaker. It falls back to open_for once the breaker
// has been closed for as long as the window or the last wait, whichever is
// longer.
//
// Guarantees:
//
//  1. A permit is granted exactly when [Breaker.Credit] is not zero at that
//     instant, so never while open or forced open.
//  2. While half open, at most half_open_concurrent probes run, and probes
//     running plus probes succeeded never exceed half_open_calls.
//  3. A result of another epoch is counted as stale and changes nothing else:
//     a late success cannot close the breaker, a late failure cannot keep it
//     open.
//  4. A probe that never returns does not wedge the breaker. It reopens when
//     the probe's lease (probe_timeout) ends and probes again after the wait.
//  5. A wait is at most max_open_for and at least open_for less the jitter.
//  6. A second Done, and Done on a zero permit, do nothing. See [Permit].
//  7. An ignored result changes no count and gives its probe permit back.
//  8. Window totals are those of the calls that completed within the last
//     window, to a tenth of it, or of the last window_calls.
//  9. Changes are told in order, one at a time, each starting where the one
//     before ended, with strictly increasing generations.
//  10. What the listener does (take long, panic, call the breaker) has no
//     influence on the state.
//  11. Time that stands still, runs backwards or jumps never panics and never
//     lengthens a wait by more than ten seconds.
//  12. Disabled and metrics_only never refuse. In metrics_only a complete
//     breaker runs in the shadow and counts what it would have done.
//  13. Rates are compared as integers per mille: 57 of 100 reaches 0.57.
//  14. Override and Reset make all earlier permits stale. Overrides end.
//  15. After [Breaker.Reserve] the first probe of a half-open is not for jobs:
//     their credit is 0 until it was good, but no longer than probe_timeout
//     after it was due or has begun. Never two reserved probes run at once.
//
// The package reads no clock, starts no goroutine and logs nothing: callers
// pass the time in, and every method first does what time has brought due.
// So an idle breaker stays open past its wait until somebody asks, which is
// the same to everybody who asks.
//
// To others it leaves: judging what a result means for the target's health
// (the [Verdict]), not pulling jobs while there is no credit, and telling
// whether the target answers at all when nothing calls it.
package breaker
