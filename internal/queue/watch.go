package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Lag is how far a consumer is behind.
type Lag struct {
	// Pending jobs nobody was given, AckPending ones that somebody holds or
	// that wait for their delay, Redelivered ones among them.
	Pending    uint64
	AckPending int
	// Redelivered jobs among AckPending, Waiting pull requests of all replicas.
	Redelivered, Waiting int
	At                   time.Time
}

// Lag asks the broker; once per some seconds is fine. What it answers is
// heeded, too: a consumer that has gone or is another one than before is looked
// at anew within a second, and jobs that left the stream undelivered are counted.
func (s *Source) Lag(ctx context.Context) (Lag, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	stream, ok := s.conn.streamState(ctx, s.cfg.Stream)
	r := reading{at: time.Now(), again: s.Stats().Redelivered, reconnects: s.conn.nc.Stats().Reconnects}
	c, err := s.conn.js.Consumer(ctx, s.cfg.Stream, s.cfg.Consumer)
	if err != nil {
		if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
			s.lookAnew()
		}
		return Lag{}, fmt.Errorf("consumer %s: %w", s.cfg.Consumer, s.conn.explain(err))
	}
	i := c.CachedInfo()
	if settingsOf(i) != s.seen() {
		s.lookAnew()
	}
	if ok {
		s.heed(r.with(stream, i), stream, i)
	}
	return Lag{Pending: i.NumPending, AckPending: i.NumAckPending, Redelivered: i.NumRedelivered, Waiting: i.NumWaiting, At: time.Now()}, nil
}

// heed notes what the broker says of the jobs themselves.
func (s *Source) heed(r reading, stream streamState, i *jetstream.ConsumerInfo) {
	s.conn.advise(stream, s.cfg)
	s.mu.Lock()
	lost := s.mark.note(r)
	s.stats.Lost += lost
	s.unsaid += lost
	s.floor = floor{stream.created, i.AckFloor.Stream}
	unsaid, due := s.unsaid, s.unsaid > 0 && r.at.Sub(s.said) >= remindEvery
	if due {
		s.unsaid, s.said = 0, r.at
	}
	s.mu.Unlock()
	if due {
		s.conn.log.Error("jobs left the stream before anybody took them: too old, too many, or purged",
			"stream", s.cfg.Stream, "consumer", s.cfg.Consumer, "jobs", unsaid, "limits", stream.limits())
	}
}

// lookAnew makes the puller look at its consumer before it asks for more.
func (s *Source) lookAnew() {
	s.suspect.Store(true)
	s.nudge()
}

// settings are what matters of a consumer, fit to be compared.
type settings struct {
	created                   int64 // nanoseconds; 0: none was seen
	ack                       jetstream.AckPolicy
	ackWait                   time.Duration
	maxDeliver, maxAckPending int
	deliver, backoff, filters string
	headersOnly               bool
	paused                    string
}

func settingsOf(i *jetstream.ConsumerInfo) settings {
	return settings{
		created: i.Created.UnixNano(), ack: i.Config.AckPolicy, ackWait: i.Config.AckWait, deliver: i.Config.DeliverSubject,
		maxDeliver: i.Config.MaxDeliver, maxAckPending: i.Config.MaxAckPending, backoff: fmt.Sprint(i.Config.BackOff),
		filters: strings.Join(filtersOf(i.Config), " "), headersOnly: i.Config.HeadersOnly, paused: pausedUntil(i),
	}
}

func filtersOf(c jetstream.ConsumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return slices.Sorted(slices.Values(c.FilterSubjects))
}

func (s *Source) seen() settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

func (s *Source) remember(k settings, notice string) {
	s.mu.Lock()
	s.known, s.stats.Notice = k, notice
	s.mu.Unlock()
	if notice != "" {
		s.conn.sayOnce(slog.LevelWarn, notice)
	}
}

// floor is up to where a consumer has everything acknowledged, in a stream made
// at the given time.
type floor struct {
	stream   int64
	sequence uint64
}

// resumeFrom is the sequence a consumer that is made again begins with. 0: all.
// In a stream that keeps what is done a new consumer would do all of it again;
// in a work queue there is nothing but what is to be done.
func (p *puller) resumeFrom(ctx context.Context) uint64 {
	p.mu.Lock()
	f := p.floor
	p.mu.Unlock()
	s, ok := p.conn.streamState(ctx, p.cfg.Stream)
	if !ok || s.cfg.Retention == jetstream.WorkQueuePolicy || s.created != f.stream || f.sequence == 0 {
		return 0
	}
	return f.sequence + 1
}

// streamState is a stream as the broker told last.
type streamState struct {
	at          time.Time // when it was asked
	created     int64
	first, last uint64
	cfg         jetstream.StreamConfig
	clustered   bool
}

// servesFor is how long an answer about a stream serves all its consumers.
const servesFor = time.Second

// streamState asks for a stream, unless it was asked for just now. It is false
// if that is not permitted or there is no answer; nothing depends on it but
// what is counted and warned of.
func (c *Conn) streamState(ctx context.Context, name string) (streamState, bool) {
	c.mu.Lock()
	known, ok := c.streams[name]
	c.mu.Unlock()
	if ok && time.Since(known.at) < servesFor {
		return known, true
	}
	if c.forbidden(c.apiSubject("STREAM.INFO." + name)) {
		return streamState{}, false
	}
	now := streamState{at: time.Now()}
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return streamState{}, false
	}
	i := s.CachedInfo()
	now.created, now.first, now.last = i.Created.UnixNano(), i.State.FirstSeq, i.State.LastSeq
	now.cfg, now.clustered = i.Config, clustered(i)
	c.mu.Lock()
	c.streams[name] = now
	c.mu.Unlock()
	return now, true
}

// limits are what makes a stream drop jobs, as a text for people.
func (s streamState) limits() string {
	var all []string
	note := func(set bool, text string) {
		if set {
			all = append(all, text)
		}
	}
	note(s.cfg.MaxAge > 0, "max_age "+s.cfg.MaxAge.String())
	old := s.cfg.Discard == jetstream.DiscardOld
	note(old && s.cfg.MaxMsgs > 0, fmt.Sprintf("max_msgs %d", s.cfg.MaxMsgs))
	note(old && s.cfg.MaxBytes > 0, fmt.Sprintf("max_bytes %d", s.cfg.MaxBytes))
	note(s.cfg.MaxMsgsPerSubject > 0, fmt.Sprintf("max_msgs_per_subject %d", s.cfg.MaxMsgsPerSubject))
	note(s.cfg.AllowMsgTTL, "Nats-TTL of the messages")
	return strings.Join(all, ", ")
}
