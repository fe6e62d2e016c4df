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
// the downstream behaves, and a schedule of faults. Brokers are restarted or
// killed, connections cut, left half open, gone for longer than a lease, or stand
// still; consumers are deleted; replicas crash, at points of their choice too, are
// stopped for longer than their leases, and drain. In half of the scenarios one kind
// of fault happens alone, again and again: among many kinds something else mostly
// explains what comes of it. Then everything is healed, and the checkers look at
// the books:
//
//	I1  every acknowledged job was done, is a dead letter, or was dropped by a policy;
//	    and no source says that one was lost                                             checkEnds, check
//	I2  no ack before the end of the call                                                checkEnds
//	I3  what is called was published, byte for byte                                      door.Call, checkEnds
//	I4  attempts as many as allowed, and not before their time                           charge, checkAttempts, checkSpacing
//	I5  no more at once than allowed                                                     lane.check, balance
//	I6  the breaker: waits, probes, no call while it is open                             checkBreaker
//	I7  no call begins after the job's deadline                                          door.Call
//	I8  nobody starts while somebody more important waits, but in turn                   checkOrder
//	I9  signs of life in time; a lease is lost for a reason only, and ends the call;
//	    nothing is called for that is somebody else's by now; who gives back what is
//	    another's could not know                                                         pulse.beat, checkLease(s), checkTaken, mistaken
//	I10 nothing starts in a drain, and it ends in time                                   checkDrains, replica.drain
//	I11 received is settled and in hand, at every look                                   balance
//	I12 one dead letter, which is the job, with none of its commands; poison has reasons checkEnds, checkLetter, checkPoison
//	I13 what was done twice has a fault that explains it                                 explanations, twiceBySame
//	I14 no more in hand than there is room for, jobs and bytes                           lane.checkRoom
//	I15 within a priority nobody overtakes                                               checkOrder
//	I16 the stream is empty some minutes after everything was healed                     heal
//	I17 no goroutine is left: the bubble would not end                                   synctest
//
// Nor may anybody be refused again and again while no time passes. There is no
// reload in it, as workerd has none.
//
// Some are looser than they read. I8 allows two less important starts more than
// their turns, and a third more turns: who starts at one instant has no order. I14 allows
// twice the room of each priority and eight: jobs that an adaptive limit refused wait in
// hand, and count as running. I13 excuses what was done while a fault was under
// way that could have given the job to somebody else, not only what it did; a
// lost confirmation, a cut, also in a drain, and a bucket that is slow excuse
// nothing. I9 excuses who got a job at the end of a stand-still of less than three
// seconds, with a lease of less than six: nobody can notice. Poison
// needs max_crashes - 1 runs that may have died or could not be written down, as
// the first delivery is not.
//
// Some pools have more: tenants that share them, targets whose late calls are
// made twice, that are probed, or that have a fallback. Two calls of one attempt,
// of which one is late, count as one; a fixed answer counts as done; and within a
// tenant nobody overtakes.
//
// All choices are hashes of the seed and of what they are about, never draws
// from a shared source, so that a scenario stays nearly the same when something
// else changes. It is not the same to the bit: goroutines and the broker's own
// randomness remain. SIM_LAYER=fake|real runs one of the two, SIM_SEED=n one
// scenario, SIM_JOBS=n about so many jobs with the model and a twentieth of it with the real
// one. SIM_FIRST=n is the seed of the first; a scenario may take
// SIM_PATIENCE=n seconds of real time, 300 if not said.
package sim
