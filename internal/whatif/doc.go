// Package whatif tries a configuration out: `workerd test` runs jobs through a
// whole workerd while its targets fail by script, in virtual time, and compares
// what became of the jobs with what somebody expects.
//
//	test file ──Load──▶ File ──Run──▶ a process per test ──▶ Result ──▶ text, JSON, JUnit
//	                                       │
//	                    a bubble of virtual time: the real broker,
//	                    the real workerd (app), scripted answers
//
// Guarantees:
//  1. Nothing is simulated but the network and the clock: broker, queue, pool,
//     gates, pipeline, breaker, retry, dead letters and each target's own
//     judgement of an answer are those of `workerd run`.
//  2. Nothing leaves the process: no address of the configuration is dialled, no
//     port is opened, what is stored lies in a directory that is removed.
//  3. A test ends: when every job has come to its end, at its limit of virtual
//     time, or at a limit of real time, which the result says.
//
// A bubble is made by testing/synctest, which wants a *testing.T. So each test
// runs in a process of its own, which is this program again (see [Serve]); that
// also keeps a crash of one from the others.
//
// What differs from a real run: streams have one replica, process pressure is
// off, and the credentials of nats are not used.
package whatif
