package queue

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// leastAckWait is the least lease that outlives the election of a leader.
const leastAckWait = 10 * time.Second

// advise says once what the settings of a stream mean for its jobs.
func (c *Conn) advise(s streamState, cfg SourceConfig) {
	for _, text := range streamAdvice(s, cfg) {
		c.sayOnce(slog.LevelWarn, text)
	}
	c.adviseReplicas(s.cfg, s.clustered)
}

// adviseReplicas says once that there is one copy only. It is much said already, so
// it is said quietly where there is no choice.
func (c *Conn) adviseReplicas(cfg jetstream.StreamConfig, clustered bool) {
	switch {
	case cfg.Replicas > 1:
	case clustered:
		c.sayOnce(slog.LevelWarn, "stream "+cfg.Name+" has one replica on a cluster: it stands still while its server is away, and is gone with its disk; a crash may undo what was confirmed last (acks, dead letters); prefer replicas 3")
	default:
		c.sayOnce(slog.LevelInfo, "stream "+cfg.Name+" has one replica: a crash of the server may repeat jobs whose acks were confirmed; prefer 3 on a cluster, or sync_interval always")
	}
}

// streamAdvice lists what may lose jobs, or do them twice: consequence and cure.
func streamAdvice(s streamState, cfg SourceConfig) []string {
	var all []string
	say := func(format string, args ...any) {
		all = append(all, "stream "+s.cfg.Name+" "+fmt.Sprintf(format, args...))
	}
	switch s.cfg.Retention {
	case jetstream.LimitsPolicy:
		say("keeps jobs that are done (retention limits): a consumer that is deleted and made anew while no workerd runs does all of them again; prefer workqueue")
	case jetstream.InterestPolicy:
		say("keeps jobs only while a consumer wants them (retention interest): deleting a consumer deletes its jobs; prefer workqueue")
	case jetstream.WorkQueuePolicy:
	}
	if s.cfg.Discard == jetstream.DiscardOld && (s.cfg.MaxMsgs > 0 || s.cfg.MaxBytes > 0 || s.cfg.MaxMsgsPerSubject > 0) {
		say("drops its oldest jobs, running ones included, when it is full (discard old); prefer discard new, which refuses new ones")
	}
	if s.cfg.MaxAge > 0 && cfg.MaxAge > 0 && s.cfg.MaxAge < cfg.MaxAge {
		say("drops jobs after %s, though pool %s would try them for %s (redelivery.max_age): they vanish without a dead letter; raise max_age of the stream", s.cfg.MaxAge, cfg.Pool, cfg.MaxAge)
	}
	return all
}

// serverAdvice is about the version of a server, "" if there is nothing to say.
func serverAdvice(version string) string {
	major, minor, patch := parseVersion(version)
	switch {
	case major < 2 || major == 2 && minor < 10:
		return "nats-server " + version + " is old: a consumer takes one subject only, and faults are noticed later; prefer 2.12 or newer"
	case major == 2 && minor == 10 && patch >= 20 && patch <= 22:
		return "nats-server " + version + " may lose a whole stream when it is killed (2.10.20 to 2.10.22): upgrade it"
	case major == 2 && minor == 12 && (patch == 3 || patch == 4):
		return "nats-server " + version + " may lose jobs of a replicated stream whose consumer has max_deliver (2.12.3 and 2.12.4): upgrade it"
	}
	return ""
}

// parseVersion reads 2.10.27-beta.1; what is no number is 0.
func parseVersion(version string) (major, minor, patch int) {
	version, _, _ = strings.Cut(strings.TrimPrefix(version, "v"), "-")
	numbers := append(strings.Split(version, "."), "0", "0", "0")
	at := func(i int) int {
		n, err := strconv.Atoi(numbers[i])
		if err != nil {
			return 0
		}
		return n
	}
	return at(0), at(1), at(2)
}

// sayOnce logs a line unless just that was logged before.
func (c *Conn) sayOnce(level slog.Level, text string, attrs ...any) {
	key := text + fmt.Sprint(attrs...)
	c.mu.Lock()
	said := c.once[key]
	if len(c.once) < maxOnce {
		c.once[key] = true
	}
	c.mu.Unlock()
	if !said {
		c.log.Log(c.life, level, text, attrs...) //nolint:sloglint // the text is one of ours, with the names it is about
	}
}

// maxOnce bounds what is remembered to have been said.
const maxOnce = 1000
