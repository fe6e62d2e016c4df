// Package sim holds the real core (queue, pool, pipeline, breaker, retry,
// attempts, dlq) against a broker in bubbles of virtual time. It consists of
// tests.
//
// There are two brokers. One is the real nats-server. The other is a model of
// it that speaks the same protocol to the same client library: it is many times
// faster, and it can lose requests and confirmations, lose its leader, or be
// killed before it has written down what it did. Whatever the model claims, a
// conformance test asks of both.
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
// randomness remain. SIM_LAYER=fake|real runs one of the two, SIM_SEED=n one
// scenario, SIM_JOBS=n about so many jobs with the model and a tenth of it with the real
// one.
package sim
