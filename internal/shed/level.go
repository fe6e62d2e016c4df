package shed

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Levels is the number of levels within a priority.
const Levels = 128

// turn is how long a level lasts.
const turn = time.Hour

// Level of a tenant within its priority, 0 to Levels-1, 0 the most important:
// where not all of a priority can be served, those of a low level are first, so
// that some are served well and not all badly. It is the same for each of the
// tenant's jobs, on each delivery and in each replica, and another one in each
// hour of the clock, so that nobody is last for longer.
//
// It is drawn and says nothing of the tenant: who can choose a name can choose
// a level.
func Level(tenant string, now time.Time) int {
	hour := binary.LittleEndian.AppendUint64(nil, uint64(now.Unix()/int64(turn/time.Second)))
	sum := sha256.Sum256(append(hour, tenant...))
	return int(sum[0]) % Levels
}
