// Package retry decides whether and when a failed call is worth another one,
// and waits for it.
//
//	        ┌──────────── the wait is over ─────────────┐
//	        ▼                                           │
//	──►  ┌─────┐ again  ┌────────┐ worth it,  ┌─────────┴┐
//	     │ try ├───────►│ decide ├───────────►│ sleeping │
//	     └──┬──┘        └───┬────┘ paid for   └────┬─────┘
//	        │ final         │ attempts, pushback,  │ draining, cancelled
//	        │               │ handoff, deadline,   │ (the token goes back)
//	        │               │ draining, open,      │
//	        ▼               ▼ budget               ▼
//	     tries made · why it ended · what was left of the wait
//
// This is the fast tier: a few tries within seconds, while the job keeps its
// permit. The slow tier is the broker's, which takes the job back for minutes;
// it uses the same [Policy] for its delays, and the wait this tier did not
// make as their lower bound.
//
// Guarantees:
//
//  1. The first try is always made, and asks neither budget nor breaker.
//  2. Never more than max_attempts tries, one sleep between two of them, none
//     after the last.
//  3. A delay lies within 0 and the cap for any n, and jitter takes away from
//     it, so that many clients spread out below the cap and do not meet at it.
//  4. The next try does not start before a Retry-After has passed.
//  5. No sleep starts that would end less than 10ms before the deadline.
//  6. A cancelled context or a drain ends a sleep at once, and no try follows.
//  7. All retries of a target together cost no more than budget_max tokens,
//     plus budget for each success, plus budget_min_per_second. A retry after
//     throttling costs half a token, any other a whole one.
//  8. A sleep that was interrupted costs nothing.
//
// To others it leaves: what a result means ([Verdict]), bounding Retry-After,
// keeping errors, giving the job back, and a panic in the try.
package retry
