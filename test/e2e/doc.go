// Package e2e holds workerd to its promises from outside: the real binary, a
// real broker in a process of its own, a real HTTP downstream, real signals.
//
// Every test keeps a ledger: what the stream acknowledged, what the downstream
// saw and answered, and what lies among the dead letters.
package e2e
