package main

import "time"

// scenarios is the plan. The load of each is given for CI; in a full run it
// takes longer by the factor below, but for those that CI leaves out.
func scenarios(full bool) []scenario {
	plan := []scenario{
		{
			name: "calm", about: "no fault: nothing is repeated",
			replicas: 4, rate: 300, concurrency: 32, ackWait: 5 * time.Second, drain: 10 * time.Second, load: 10 * time.Second, strict: true,
		},
		{
			name: "rolling", about: "four replicas restarted by SIGTERM, one after the other: nothing is repeated",
			replicas: 4, rate: 300, concurrency: 32, ackWait: 5 * time.Second, drain: 10 * time.Second, load: 14 * time.Second, strict: true,
			faults: rolling,
		},
		{
			name: "kill", about: "kill -9 of replicas at random times; one job in ten means harm",
			replicas: 6, rate: 200, concurrency: 16, ackWait: 3 * time.Second, drain: 4 * time.Second, load: 22 * time.Second,
			hostile: true, faults: killStorm(200*time.Millisecond, 1500*time.Millisecond),
		},
		{
			name: "term", about: "SIGTERM of replicas at random times, some twice; long jobs are interrupted",
			replicas: 6, rate: 200, concurrency: 16, ackWait: 3 * time.Second, drain: 2 * time.Second, load: 22 * time.Second,
			faults: termStorm(200*time.Millisecond, 1500*time.Millisecond), bounds: map[string]float64{"hand-back on SIGTERM median": 1},
		},
		{
			name: "stop", about: "SIGSTOP of replicas for longer than their leases, then SIGCONT",
			replicas: 5, rate: 150, concurrency: 16, ackWait: 2 * time.Second, drain: 4 * time.Second, load: 20 * time.Second,
			faults: stopStorm(300*time.Millisecond, 2*time.Second),
		},
		{
			name: "broker", about: "kill -9 and SIGSTOP of a single broker",
			replicas: 3, rate: 200, concurrency: 16, ackWait: 3 * time.Second, drain: 4 * time.Second, load: 20 * time.Second,
			orphans: true, faults: brokerStorm(300*time.Millisecond, 2*time.Second),
		},
		{
			name: "rescue", about: "one replica after the other, by kill -9 and by SIGTERM, and a single broker: how soon the jobs run elsewhere",
			replicas: 3, rate: 100, concurrency: 16, ackWait: 2 * time.Second, drain: 4 * time.Second, load: 20 * time.Second,
			good: true, orphans: true, faults: oneByOne, bounds: map[string]float64{"rescue after SIGKILL max": 3, "hand-back on SIGTERM max": 1, "resume after broker kill max": 2},
		},
		{
			name: "cluster", about: "three nodes: leaders and followers killed, stopped, ended or made lame ducks, all killed",
			nodes: 3, replicas: 3, rate: 100, concurrency: 16, ackWait: 15 * time.Second, drain: 4 * time.Second, load: 35 * time.Second,
			orphans: true, faults: clusterStorm, bounds: map[string]float64{"resume after broker kill max": 1},
		},
		{
			name: "network", about: "links to broker and downstream reset, cut within, frozen, slow, half-open",
			replicas: 5, rate: 150, concurrency: 16, ackWait: 3 * time.Second, drain: 4 * time.Second, load: 22 * time.Second, links: true,
			faults: networkStorm(50*time.Millisecond, time.Second),
		},
		{
			name: "partition", about: "three nodes in network namespaces: leaders and followers cut off, in one direction or both",
			nodes: 3, replicas: 3, rate: 100, concurrency: 16, ackWait: 15 * time.Second, drain: 4 * time.Second, load: 40 * time.Second,
			apartNodes: true, fullOnly: true, orphans: true, faults: partitionStorm, needs: needsLab,
		},
		{
			name: "disk", about: "the disk of a single broker full, and room again",
			replicas: 3, rate: 100, concurrency: 16, ackWait: 3 * time.Second, drain: 4 * time.Second, load: 20 * time.Second,
			fullOnly: true, orphans: true, dlq: "replicas: 1, max_bytes: 8MiB", store: smallDisk, faults: diskStorm, needs: needsTmpfs,
		},
		{
			name: "starve", about: "1 % of a core for longer than a lease; for less, and with 5 %, nothing is repeated",
			replicas: 4, rate: 400, concurrency: 16, ackWait: 1500 * time.Millisecond, drain: 4 * time.Second, load: 20 * time.Second,
			fullOnly: true, prepare: grouped("cpu"), faults: starve, needs: needsGroup("cpu"),
		},
		{
			name: "memory", about: "no memory left: the kernel kills replicas",
			replicas: 4, rate: 100, concurrency: 16, ackWait: 3 * time.Second, drain: 4 * time.Second, load: 15 * time.Second,
			fullOnly: true, prepare: grouped("memory"), faults: outOfMemory, needs: needsGroup("memory"),
		},
		{
			name: "files", about: "no descriptors left, of replicas and in front of the downstream",
			replicas: 4, rate: 100, concurrency: 16, ackWait: 3 * time.Second, drain: 4 * time.Second, load: 20 * time.Second,
			links: true, fullOnly: true, prepare: behindFront, faults: fileStorm, needs: needsPrlimit,
		},
	}
	if full {
		for i := range plan {
			if !plan[i].fullOnly {
				plan[i].load *= 5
			}
		}
	}
	return plan
}
