// Package queue is NATS JetStream as workerd sees it: a connection that never
// gives up, streams and consumers that are created if absent and never changed,
// sources that pull exactly as many jobs as they are asked for, and deliveries
// that are settled until the broker has confirmed it.
//
//	Conn ──► Source ──► job.Receiver          one Source per pool and priority
//	  ▲         │ book      │ Deliver(delivery)
//	  │         └ recent    ▼
//	  └── settler ◄── Settle, Extend          acks, naks and signs of life
//
// It guarantees:
//
//  1. A source asks for exactly as many deliveries as were requested. More come
//     only if a request that was given up after a fault is answered after all.
//  2. What it is asked for it asks for again after any fault: a silent broker
//     is noticed within three seconds, a lost connection at once.
//  3. A job in hand is not delivered a second time, and one that was settled
//     for good is not run again by this process; the broker is told again.
//  4. A settlement is sent until it is confirmed, over any number of broken
//     connections, or until its lease is over. Acks are sent even then.
//  5. After Run has returned nothing of its consumer is on its way to this
//     process; what arrived too late has been handed back.
//  6. A message is never believed: what cannot be read is still delivered, as a
//     job whose Invalid says what is wrong, so that it is settled.
//
// To others it leaves whether a job may run, what becomes of it, and how often
// it may fail. It logs about connections and consumers only.
package queue
