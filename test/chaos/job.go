package main

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"time"
)

// Everything about a job follows from the seed and its id, so that nothing
// has to be remembered, and a run can be judged again from its books.

// mode says how the downstream treats a job.
type mode string

const (
	modeFast      mode = "fast"
	modeSlow      mode = "slow"      // up to half a second
	modeLong      mode = "long"      // one to two seconds
	modeFails     mode = "fails"     // 500 the first time
	modeThrottled mode = "throttled" // 429 the first time, which holds the whole target of that replica: few
	modeHangs     mode = "hangs"     // no answer the first time
	modeReset     mode = "reset"     // half an answer the first time, then a reset
	modeRefused   mode = "refused"   // 422: dead letter
	modeInvalid   mode = "invalid"   // never called: dead letter
)

// chance is a number below n that depends on the seed, a name and a purpose.
func chance(seed uint64, name, purpose string, n int) int {
	h := fnv.New64a()
	_ = binary.Write(h, binary.LittleEndian, seed)
	fmt.Fprintf(h, "/%s/%s", name, purpose)
	return int(rand.New(rand.NewPCG(h.Sum64(), seed)).Uint64N(uint64(n)))
}

// good is how the ids of jobs begin that never fail, for latencies: a target
// that asks for time (429) holds back what its replica has in hand.
const good = "good-"

func modeOf(seed uint64, id string) mode {
	if strings.HasPrefix(id, broken) || evil(seed, id) == "lies" {
		return modeInvalid
	}
	switch n := chance(seed, id, "mode", 1000); {
	case n < 760, n >= 920 && strings.HasPrefix(id, good):
		return modeFast
	case n < 890:
		return modeSlow
	case n < 920:
		return modeLong
	case n < 958:
		return modeFails
	case n < 960:
		return modeThrottled
	case n < 965:
		return modeHangs
	case n < 980:
		return modeReset
	default:
		return modeRefused
	}
}

// gentle jobs succeed at their first call.
func gentle(seed uint64, id string) bool {
	m := modeOf(seed, id)
	return m == modeFast || m == modeSlow || m == modeLong
}

// takes is how long the downstream works on a job.
func takes(seed uint64, id string) time.Duration {
	switch modeOf(seed, id) {
	case modeSlow:
		return time.Duration(50+chance(seed, id, "takes", 450)) * time.Millisecond
	case modeLong:
		return time.Duration(1000+chance(seed, id, "takes", 1000)) * time.Millisecond
	case modeFast:
		return time.Duration(chance(seed, id, "takes", 10)) * time.Millisecond
	default:
		return 0
	}
}

// payload is what a job carries: mostly little, now and then 64 KiB;
// hostile ones nothing or a MiB.
func payload(seed uint64, id string, fixed int) []byte {
	size := chance(seed, id, "size", 2<<10)
	if chance(seed, id, "big", 100) == 0 {
		size = 64 << 10
	}
	if strings.HasPrefix(id, hostile) {
		switch chance(seed, id, "extreme", 20) {
		case 0:
			size = 1<<20 - 1
		case 1, 2:
			size = 0
		}
	}
	if fixed > 0 {
		size = fixed
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	copy(key[8:], id)
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}
