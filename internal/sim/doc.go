// Package sim holds the real core (queue, pool, pipeline, breaker, retry,
// attempts, dlq) against the real nats-server in bubbles of virtual time. It
// consists of tests.
//
// A scenario is made from a seed: pools, priorities, payloads, arrivals, how
// the downstream behaves, and a schedule of faults. Brokers are restarted,
// connections cut, or left half open; consumers are deleted; replicas crash,
// and drain. Then everything is healed, and the checkers look at the books:
// every acknowledged job was done or is a dead letter, one at most; no more
// calls ran at once than allowed; what was done twice has a fault that
// explains it; the stream is empty and no goroutine is left.
//
// All choices are hashes of the seed and of what they are about, never draws
// from a shared source, so that a scenario stays nearly the same when something
// else changes. It is not the same to the bit: goroutines and the broker's own
// randomness remain. SIM_SEED=n runs one scenario, SIM_JOBS=n about so many jobs.
package sim
