package queue

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/job"
)

// SourceConfig describes the durable consumer of one priority of one pool.
type SourceConfig struct {
	// Pool the jobs are for, to be spoken of.
	Pool string
	// Stream and Consumer by name.
	Stream, Consumer string
	// Subjects the consumer is to filter, if it has to be created.
	Subjects []string
	// Create describes the stream if it may be created. Nil: it must exist.
	Create *StreamConfig
	// Priority of the jobs.
	Priority job.Priority
	// AckWait of the consumer, if it has to be created.
	AckWait time.Duration
	// MaxMessage is the largest payload in bytes that is run.
	MaxMessage int64
	// MaxAge up to which a job is tried. 0: for ever.
	MaxAge time.Duration
	// Limit is the most deliveries ever asked for at once.
	Limit int
}

// Source pulls jobs from one consumer, exactly as many as it was asked for.
//
// It speaks the pull protocol itself: the client library's own loops buffer
// beyond what was asked for, now and then miss a wake-up, and strand what they
// hold when stopped. One goroutine, that of Run, owns all counters.
//
//	           ask                 delivered
//	Request ─────────► pull request ─────────► job.Receiver
//	                    │ expired → Receiver.Returned
//	                    │ refused, silent, reconnected → new epoch (new inbox), asked again
type Source struct {
	conn   *Conn
	cfg    SourceConfig
	recent *recent

	wanted  atomic.Int64
	wake    chan struct{}
	ackWait atomic.Int64
	suspect atomic.Bool // the consumer is to be looked at anew

	mu     sync.Mutex
	stats  SourceStats
	known  settings // of the consumer that was adopted last
	mark   mark     // by which losses are counted
	floor  floor    // how far everything was acknowledged
	unsaid uint64   // lost jobs nobody was told of yet
	said   time.Time
}

// SourceStats is what a source has done so far and how it is.
type SourceStats struct {
	// Consumer as it is called in NATS.
	Stream, Consumer string
	// Ready: the consumer exists and requests are answered.
	Ready bool
	// Problem says in a sentence why the source is not ready, Notice what there
	// is to know though it is.
	Problem, Notice string
	// Outstanding deliveries were asked for and have not come.
	Outstanding int
	// Backlog is the number of jobs the consumer had left at the last delivery.
	Backlog uint64
	// Delivered jobs, of these Redelivered ones, and Suppressed ones that were
	// in hand or finished here already.
	Delivered, Redelivered, Suppressed uint64
	// Lost jobs left the stream undelivered: too old, too many, purged. It is a
	// lower bound, of all replicas together; see losses.go.
	Lost uint64
	// Pulls is the number of requests sent, Epochs the number of times they
	// were given up and sent anew.
	Pulls, Epochs uint64
}

// Source returns a source for the given consumer. It does nothing until Run.
func (c *Conn) Source(cfg SourceConfig) *Source {
	s := &Source{conn: c, cfg: cfg, recent: newRecent(), wake: make(chan struct{}, 1)}
	s.ackWait.Store(int64(cfg.AckWait))
	s.stats = SourceStats{Stream: cfg.Stream, Consumer: cfg.Consumer, Problem: "not started"}
	return s
}

// AckWait is the lease the broker gives: that of the consumer as it is, or as
// it is to be created.
func (s *Source) AckWait() time.Duration { return time.Duration(s.ackWait.Load()) }

// Request asks for n more deliveries. It does not block.
func (s *Source) Request(n int) {
	s.wanted.Add(int64(n))
	s.nudge()
}

func (s *Source) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Stats returns a copy of the counters.
func (s *Source) Stats() SourceStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Run pulls until ctx ends. Then it stops asking, waits shortly for what is
// under way, gives that back and returns; after that nothing of this consumer
// is on its way to this process.
func (s *Source) Run(ctx context.Context, to job.Receiver) {
	p := &puller{
		Source: s, to: to, msgs: make(chan *nats.Msg, 2*s.cfg.Limit+1024),
		subject: s.conn.apiSubject("CONSUMER.MSG.NEXT." + s.cfg.Stream + "." + s.cfg.Consumer),
	}
	p.run(ctx)
}
