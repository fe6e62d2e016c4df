package main

import "time"

// scenarios is the plan. The load of each is given for CI; a full run takes
// longer by the factor below.
func scenarios(full bool) []scenario {
	plan := []scenario{
		{
			name: "calm", about: "no fault: nothing is repeated",
			replicas: 4, rate: 300, concurrency: 32, ackWait: 5 * time.Second, drain: 10 * time.Second, load: 10 * time.Second, strict: true,
		},
		{
			name: "rolling", about: "four replicas restarted by SIGTERM, one after the other: nothing is repeated",
			replicas: 4, rate: 300, concurrency: 32, ackWait: 5 * time.Second, drain: 10 * time.Second, load: 20 * time.Second, strict: true,
			faults: rolling,
		},
		{
			name: "kill", about: "kill -9 of replicas at random times",
			replicas: 5, rate: 200, concurrency: 16, ackWait: 3 * time.Second, drain: 4 * time.Second, load: 25 * time.Second,
			faults: killStorm(500*time.Millisecond, 4*time.Second),
		},
		{
			name: "term", about: "SIGTERM of replicas at random times, some twice; long jobs are interrupted",
			replicas: 5, rate: 200, concurrency: 16, ackWait: 3 * time.Second, drain: 2 * time.Second, load: 25 * time.Second,
			faults: termStorm(500*time.Millisecond, 4*time.Second), bounds: map[string]float64{"hand-back on SIGTERM p99": 1},
		},
		{
			name: "stop", about: "SIGSTOP of replicas for longer than their leases, then SIGCONT",
			replicas: 5, rate: 150, concurrency: 16, ackWait: 2 * time.Second, drain: 4 * time.Second, load: 25 * time.Second,
			faults: stopStorm(500*time.Millisecond, 3*time.Second),
		},
		{
			name: "broker", about: "kill -9 and SIGSTOP of a single broker",
			replicas: 3, rate: 200, concurrency: 16, ackWait: 3 * time.Second, drain: 4 * time.Second, load: 30 * time.Second,
			faults: brokerStorm(500*time.Millisecond, 3*time.Second),
		},
		{
			name: "rescue", about: "kill -9 of one replica after the other, and of a single broker: how soon its jobs run elsewhere",
			replicas: 3, rate: 100, concurrency: 16, ackWait: 2 * time.Second, drain: 4 * time.Second, load: 20 * time.Second,
			faults: oneByOne, bounds: map[string]float64{"rescue after SIGKILL max": 3, "resume after broker kill max": 2},
		},
		{
			name: "cluster", about: "three nodes: leaders killed, nodes stopped, all killed",
			nodes: 3, replicas: 3, rate: 100, concurrency: 16, ackWait: 15 * time.Second, drain: 4 * time.Second, load: 45 * time.Second,
			faults: clusterStorm, bounds: map[string]float64{"resume after broker kill max": 1},
		},
		{
			name: "network", about: "links to broker and downstream reset, cut within, frozen, slow, half-open",
			replicas: 5, rate: 150, concurrency: 16, ackWait: 3 * time.Second, drain: 4 * time.Second, load: 30 * time.Second, links: true,
			faults: networkStorm(200*time.Millisecond, 2*time.Second),
		},
	}
	if full {
		for i := range plan {
			plan[i].load *= 5
		}
	}
	return plan
}
