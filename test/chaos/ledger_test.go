package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// gentleID finds an id of the wanted mode.
func idOf(t *testing.T, m mode) string {
	t.Helper()
	for n := range 10_000 {
		if id := fmt.Sprintf("job-%d", n); modeOf(1, id) == m {
			return id
		}
	}
	t.Fatalf("no job of mode %s", m)
	return ""
}

func at(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }

func answered(id, replica string, began, ended int) call {
	return call{ID: id, Replica: replica, Began: at(began), Ended: at(ended), Status: 200, Done: true}
}

func said(sequence uint64, words ...string) map[uint64][]settlement {
	var all []settlement
	for _, w := range words {
		all = append(all, settlement{Said: w})
	}
	return map[uint64][]settlement{sequence: all}
}

// TestCheck_flagsWhatIsWrong_andOnlyThat feeds the books with what must not
// happen, and with what may.
func TestCheck_flagsWhatIsWrong_andOnlyThat(t *testing.T) {
	id, refused := idOf(t, modeFast), idOf(t, modeRefused)
	kill := fault{Kind: "kill", Whom: "w1.1", Began: at(105), Ended: at(106), Excuses: []string{"w1.1"}, Before: at(20)}
	sleep := fault{Kind: "stop", Whom: "w2.1", Began: at(50), Ended: at(4000), Wakes: true}
	awake := sleep
	awake.Excuses = []string{"w2.1"}
	frozen := fault{Kind: "frozen", Whom: "w2.1", Began: at(50), Ended: at(4000), Holds: true}
	three := []call{answered(id, "w1.1", 0, 100), answered(id, "w2.1", 3000, 3100), answered(id, "w3.1", 9000, 9100)}
	again := func(whom string, ms int) fault {
		return fault{Kind: "kill", Whom: whom, Began: at(ms), Ended: at(ms + 1), Excuses: []string{whom}, Before: at(20)}
	}
	for _, c := range []struct {
		name string
		b    books
		want string // in the only problem; empty: none
	}{
		{"done", books{Acked: []string{id}, Calls: []call{answered(id, "w1.1", 0, 100)}}, ""},
		{"left", books{Acked: []string{id}, Left: []string{id}}, "still in the stream"},
		{"left, but done", books{Acked: []string{id}, Left: []string{id}, Calls: []call{answered(id, "w1.1", 0, 100)}}, ""},
		{"dead", books{Acked: []string{refused}, Letters: []letter{{ID: refused}}}, ""},
		{"lost", books{Acked: []string{id}}, "is lost"},
		{"forgotten by the broker", books{Acked: []string{id, refused}, Letters: []letter{{ID: refused}}, Sequences: map[string]uint64{id: 7, refused: 7}}, ""},
		{"lost, its sequence its own", books{Acked: []string{id, refused}, Letters: []letter{{ID: refused}}, Sequences: map[string]uint64{id: 7, refused: 8}}, "is lost"},
		{"removed by the broker, though handed back", books{Acked: []string{id}, Sequences: map[string]uint64{id: 7}, Tapped: true, Settled: said(7, `-NAK {"delay":30}`, "-NAK")}, ""},
		{"terminated by the broker, though handed back", books{Acked: []string{id}, Sequences: map[string]uint64{id: 7}, Tapped: true, Settled: said(7, "-NAK", advisory+"x")}, ""},
		{"nobody said a word", books{Acked: []string{id}, Sequences: map[string]uint64{id: 7}, Tapped: true}, ""},
		{"nobody listened", books{Acked: []string{id}, Sequences: map[string]uint64{id: 7}}, "is lost"},
		{"handed back and acked", books{Acked: []string{id}, Sequences: map[string]uint64{id: 7}, Tapped: true, Settled: said(7, "-NAK", "+ACK")}, "is lost"},
		{"handed back and terminated", books{Acked: []string{id}, Sequences: map[string]uint64{id: 7}, Tapped: true, Settled: said(7, "-NAK", "+TERM")}, "is lost"},
		{"another acked", books{Acked: []string{id}, Sequences: map[string]uint64{id: 7}, Tapped: true, Settled: said(8, "+ACK")}, ""},
		{"called but not done", books{Acked: []string{id}, Calls: []call{{ID: id, Ended: 1, Status: 500}}}, "is lost"},
		{"unknown and done", books{Unknown: []string{id}, Calls: []call{answered(id, "w1.1", 0, 100)}}, ""},
		{"unknown and not there", books{Unknown: []string{id}}, ""},
		{"made up", books{Calls: []call{answered(id, "w1.1", 0, 100)}}, "never published"},
		{"a letter made up", books{Letters: []letter{{ID: refused}}}, "never published"},
		{"altered", books{Acked: []string{id}, Calls: []call{{ID: id, Ended: 1, Status: 200, Done: true, Altered: true}}}, "altered"},
		{"a letter altered", books{Acked: []string{refused}, Letters: []letter{{ID: refused, Altered: true}}}, "altered"},
		{"two letters", books{Acked: []string{refused}, Letters: []letter{{ID: refused}, {ID: refused}}}, "2 dead letters"},
		{"dead for nothing", books{Acked: []string{id}, Letters: []letter{{ID: id}}}, "although its mode is fast"},
		{"twice", books{Acked: []string{id}, Calls: []call{answered(id, "w1.1", 0, 100), answered(id, "w2.1", 3000, 3100)}}, "without a fault"},
		{"twice, killed", books{Acked: []string{id}, Faults: []fault{kill}, Calls: []call{answered(id, "w1.1", 0, 100), answered(id, "w2.1", 3000, 3100)}}, ""},
		{"twice, another killed", books{Acked: []string{id}, Faults: []fault{kill}, Calls: []call{answered(id, "w3.1", 0, 100), answered(id, "w2.1", 3000, 3100)}}, "without a fault"},
		{"twice, killed long after", books{Acked: []string{id}, Faults: []fault{kill}, Calls: []call{answered(id, "w1.1", 0, 60), answered(id, "w2.1", 3000, 3100)}}, "without a fault"},
		{"twice, killed before", books{Acked: []string{id}, Faults: []fault{kill}, Calls: []call{answered(id, "w1.1", 200, 300), answered(id, "w2.1", 3000, 3100)}}, "without a fault"},
		{"called again, failed", books{Acked: []string{id}, Calls: []call{answered(id, "w1.1", 0, 100), {ID: id, Replica: "w2.1", Began: at(200), Ended: at(201), Status: 500}}}, "without a fault"},
		{"killed within a call, and then repeated without a fault", books{Acked: []string{id}, Faults: []fault{kill}, Calls: []call{
			{ID: id, Replica: "w1.1", Began: at(100), Ended: at(105)}, answered(id, "w2.1", 3000, 3100), answered(id, "w3.1", 9000, 9100),
		}}, "at 9s by w3.1"},
		{"two repetitions, one fault", books{Acked: []string{id}, Faults: []fault{kill}, Calls: three}, "at 9s by w3.1"},
		{"two repetitions, two faults at the first run", books{Acked: []string{id}, Faults: []fault{kill, again("w1.1", 106)}, Calls: three}, "at 9s by w3.1"},
		{"two repetitions, two faults, the second too late", books{Acked: []string{id}, Faults: []fault{kill, again("w2.1", 9001)}, Calls: three}, "at 9s by w3.1"},
		{"two repetitions, two faults", books{Acked: []string{id}, Faults: []fault{kill, again("w2.1", 3105)}, Calls: three}, ""},
		{"one fault, one repetition that took two attempts", books{Acked: []string{id}, Faults: []fault{kill}, Calls: []call{
			three[0], {ID: id, Replica: "w2.1", Began: at(3000), Ended: at(3001), Status: 500}, answered(id, "w3.1", 3300, 3400),
		}}, ""},
		{"killed after the repetition began", books{Acked: []string{id}, Faults: []fault{kill}, Calls: []call{answered(id, "w1.1", 0, 100), answered(id, "w2.1", 101, 110)}}, "without a fault"},
		{"given up, but held back until another had done it", books{Acked: []string{id}, Faults: []fault{frozen}, Calls: []call{answered(id, "w1.1", 3500, 3600), answered(id, "w2.1", 3990, 3995)}}, ""},
		{"woken up with an old job twice", books{Acked: []string{id}, Faults: []fault{sleep}, Calls: []call{
			answered(id, "w1.1", 2000, 2100), answered(id, "w2.1", 4001, 4100), answered(id, "w2.1", 5000, 5100),
		}}, "at 5s by w2.1"},
		{"woken up with an old job", books{Acked: []string{id}, Faults: []fault{sleep}, Calls: []call{answered(id, "w1.1", 2000, 2100), answered(id, "w2.1", 4001, 4100)}}, ""},
		{"woken up, then done elsewhere", books{Acked: []string{id}, Faults: []fault{awake}, Calls: []call{answered(id, "w2.1", 4001, 4100), answered(id, "w1.1", 4050, 4150)}}, ""},
		{"woken up, job done before", books{Acked: []string{id}, Faults: []fault{sleep}, Calls: []call{answered(id, "w1.1", 0, 10), answered(id, "w2.1", 4001, 4100)}}, "without a fault"},
		{"woken up long ago", books{Acked: []string{id}, Faults: []fault{sleep}, Calls: []call{answered(id, "w1.1", 2000, 2100), answered(id, "w2.1", 9001, 9100)}}, "without a fault"},
		{"broken off in the calm", books{Strict: true, Acked: []string{id}, Calls: []call{{ID: id, Replica: "w1.1", Ended: 1}, answered(id, "w2.1", 200, 300)}}, "broken off"},
		{"too many at once", books{Limit: 1, Acked: []string{id, refused}, Calls: []call{answered(id, "w1.1", 0, 100), answered(refused, "w1.1", 99, 200)}}, "allowed are 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.b.Seed = 1
			if c.b.Limit == 0 {
				c.b.Limit = 10
			}
			v := c.b.check()
			switch {
			case c.want == "" && len(v.Problems) > 0:
				t.Errorf("found %q, there is nothing", v.Problems)
			case c.want != "" && (len(v.Problems) != 1 || !strings.Contains(v.Problems[0], c.want)):
				t.Errorf("found %q, want one that says %q", v.Problems, c.want)
			}
		})
	}
}

// TestJob_followsFromSeedAndID: books can be judged again, and modes are there
// in their shares.
func TestJob_followsFromSeedAndID(t *testing.T) {
	if first, again := payload(7, "job-1", 0), payload(7, "job-1", 0); !bytes.Equal(first, again) {
		t.Error("a payload changes")
	}
	modes := map[mode]int{}
	for n := range 10_000 {
		id := fmt.Sprintf("job-%d", n)
		modes[modeOf(7, id)]++
	}
	for m, atLeast := range map[mode]int{modeFast: 7000, modeSlow: 1000, modeLong: 200, modeFails: 200, modeThrottled: 8, modeHangs: 20, modeReset: 80, modeRefused: 120} {
		if modes[m] < atLeast {
			t.Errorf("%d jobs in 10000 are %s, want at least %d", modes[m], m, atLeast)
		}
	}
	if string(payload(7, "a", 100)) == string(payload(7, "b", 100)) || string(payload(7, "a", 100)) == string(payload(8, "a", 100)) {
		t.Error("payloads do not depend on id and seed")
	}
}
