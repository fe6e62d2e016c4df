package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// apiSubject returns the subject of a JetStream API call.
func (c *Conn) apiSubject(call string) string { return c.cfg.API(call) }

// EnsureStream creates a stream if it is absent. One that exists is left as it
// is; the differences that matter to a worker are returned as warnings.
func (c *Conn) EnsureStream(ctx context.Context, name string, cfg StreamConfig) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	// Several consumers may find their stream missing at once; one creates it.
	select {
	case c.ensuring <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("stream %s: somebody else looks for it: %w", name, context.Cause(ctx))
	}
	defer func() { <-c.ensuring }()
	want := streamConfig(name, cfg)
	s, err := c.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = c.js.CreateStream(ctx, want)
		if err == nil {
			c.log.Info("created the stream", "stream", name, "subjects", cfg.Subjects)
			want = s.CachedInfo().Config // it differs from nothing
		}
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // lost a race with another replica
			s, err = c.js.Stream(ctx, name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, c.explain(err))
	}
	if i := s.CachedInfo(); clustered(i) {
		c.adviseReplicas(i.Config, true)
	}
	return streamDrift(s.CachedInfo().Config, want), nil
}

func clustered(i *jetstream.StreamInfo) bool { return i.Cluster != nil && i.Cluster.Name != "" }

func streamConfig(name string, cfg StreamConfig) jetstream.StreamConfig {
	retention := map[string]jetstream.RetentionPolicy{
		"workqueue": jetstream.WorkQueuePolicy, "limits": jetstream.LimitsPolicy, "interest": jetstream.InterestPolicy,
	}[cfg.Retention]
	storage := jetstream.FileStorage
	if cfg.Storage == "memory" {
		storage = jetstream.MemoryStorage
	}
	maxBytes := cfg.MaxBytes
	if maxBytes == 0 {
		maxBytes = -1
	}
	return jetstream.StreamConfig{
		Name: name, Subjects: cfg.Subjects, Retention: retention, Storage: storage,
		Replicas: cfg.Replicas, MaxAge: cfg.MaxAge, MaxBytes: maxBytes, Duplicates: cfg.DuplicateWindow,
		// A full stream refuses new jobs; discarding old ones would drop running ones.
		Discard: jetstream.DiscardNew, Description: "created by workerd",
	}
}

// streamDrift tells how a stream differs from what the configuration says.
func streamDrift(is, want jetstream.StreamConfig) []string {
	var drift []string
	note := func(what string, is, want any) {
		if fmt.Sprint(is) != fmt.Sprint(want) {
			drift = append(drift, fmt.Sprintf("%s is %v, the configuration says %v", what, is, want))
		}
	}
	note("subjects", is.Subjects, want.Subjects)
	note("retention", is.Retention, want.Retention)
	note("storage", is.Storage, want.Storage)
	note("replicas", is.Replicas, want.Replicas)
	note("max_age", is.MaxAge, want.MaxAge)
	note("max_bytes", is.MaxBytes, want.MaxBytes)
	return drift
}

// ensure sees to it that the consumer exists, and that there is an inbox.
func (p *puller) ensure(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	err := p.ensureConsumer(ctx)
	if err == nil && p.sub == nil {
		err = p.subscribe()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		// That was wait enough: whoever asks late resumes late.
		p.silent++
		p.report(false, p.conn.explain(err).Error())
		return false
	}
	p.silent = 0
	if err != nil {
		p.report(false, p.conn.explain(err).Error())
		pause := p.nextBackoff()
		p.resumeAt = time.Now().Add(pause)
		p.newEpoch("consumer is not ready", pause) // nothing may come from a consumer that is not ours
		return false
	}
	p.ensured = true
	p.report(p.refusal == "", p.refusal)
	return true
}

// ensureConsumer binds to the durable consumer, creating it (and its stream,
// if that is ours to create) when it is absent. It never changes one that
// exists: its ack_wait becomes ours, other differences are warned of.
func (p *puller) ensureConsumer(ctx context.Context) error {
	c, err := p.lookUp(ctx)
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		if p.cfg.Create == nil {
			return fmt.Errorf("stream %s does not exist: create it, or describe it under streams", p.cfg.Stream)
		}
		if _, err := p.conn.EnsureStream(ctx, p.cfg.Stream, *p.cfg.Create); err != nil {
			return err
		}
		return p.createConsumer(ctx)
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return p.createConsumer(ctx)
	case err != nil:
		return fmt.Errorf("consumer %s of stream %s: %w", p.cfg.Consumer, p.cfg.Stream, err)
	}
	return p.adopt(ctx, c.CachedInfo())
}

// lookUp asks for the consumer, in vain if the cluster has no leader.
func (p *puller) lookUp(ctx context.Context) (jetstream.Consumer, error) {
	patience := lookupTimeout
	if p.silent >= hasty {
		patience = apiTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.conn.js.Consumer(ctx, p.cfg.Stream, p.cfg.Consumer)
}

func (p *puller) createConsumer(ctx context.Context) error {
	cfg := consumerConfig(p.cfg)
	if seq := p.resumeFrom(ctx); seq > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, seq
	}
	c, err := p.conn.js.CreateConsumer(ctx, p.cfg.Stream, cfg)
	if errors.Is(err, jetstream.ErrConsumerExists) { // lost a race with another replica
		if c, err = p.conn.js.Consumer(ctx, p.cfg.Stream, p.cfg.Consumer); err == nil {
			return p.adopt(ctx, c.CachedInfo())
		}
	}
	if err != nil {
		return fmt.Errorf("create consumer %s of stream %s: %w", p.cfg.Consumer, p.cfg.Stream, err)
	}
	p.sayCreated(cfg)
	return p.adopt(ctx, c.CachedInfo())
}

func (p *puller) sayCreated(cfg jetstream.ConsumerConfig) {
	log := p.conn.log.With("stream", p.cfg.Stream, "consumer", p.cfg.Consumer, "subjects", p.cfg.Subjects)
	if p.seen().created == 0 {
		log.Info("created the consumer")
		return
	}
	log.Warn("the consumer had gone and was made anew; the broker has forgotten what was delivered", "from_sequence", max(1, cfg.OptStartSeq))
}

// consumerConfig is what a consumer of ours looks like. The server counts no
// attempts (max_deliver) and times no retries (backoff): it would lose or
// delay jobs, so workerd does both.
func consumerConfig(cfg SourceConfig) jetstream.ConsumerConfig {
	c := jetstream.ConsumerConfig{
		Durable:       cfg.Consumer,
		Description:   "managed by workerd",
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       cfg.AckWait,
		MaxDeliver:    -1,
		MaxAckPending: -1,
		ReplayPolicy:  jetstream.ReplayInstantPolicy,
		Metadata:      map[string]string{"workerd.priority": cfg.Priority.String()},
	}
	if len(cfg.Subjects) == 1 {
		c.FilterSubject = cfg.Subjects[0]
	} else {
		c.FilterSubjects = cfg.Subjects
	}
	return c
}

// adopt checks a consumer that exists, takes over its ack_wait, and remembers
// what it is like.
func (p *puller) adopt(ctx context.Context, i *jetstream.ConsumerInfo) error {
	is := i.Config
	if why := unfit(is); why != "" {
		return fmt.Errorf("consumer %s of stream %s %s: delete it, and workerd makes it anew", p.cfg.Consumer, p.cfg.Stream, why)
	}
	notice, err := p.checkFilters(ctx, is)
	if err != nil {
		return err
	}
	if until := pausedUntil(i); until != "" {
		notice = fmt.Sprintf("consumer %s of stream %s is paused until %s: no job comes before", p.cfg.Consumer, p.cfg.Stream, until) // the filters matter later
	}
	if is.AckWait != p.AckWait() {
		p.ackWait.Store(int64(is.AckWait))
		p.recent.extendAll() // their leases may be shorter now
	}
	p.warnOfDrift(is)
	now := settingsOf(i)
	if was := p.seen().created; was != 0 && was != now.created {
		p.madeAnew()
	}
	p.turned = time.Time{}
	p.remember(now, notice)
	return nil
}

// pausedUntil is when somebody has said that a consumer goes on, "" if it does.
func pausedUntil(i *jetstream.ConsumerInfo) string {
	if !i.Paused || i.Config.PauseUntil == nil {
		return ""
	}
	return i.Config.PauseUntil.UTC().Format(time.RFC3339)
}

// unfit tells why a consumer that somebody has made or changed cannot be used.
func unfit(is jetstream.ConsumerConfig) string {
	switch {
	case is.AckPolicy != jetstream.AckExplicitPolicy:
		return fmt.Sprintf("has ack policy %v, workerd needs explicit", is.AckPolicy)
	case is.DeliverSubject != "":
		return "is a push consumer, workerd needs a pull consumer"
	case is.HeadersOnly:
		return "delivers headers only (headers_only), and jobs would be run without their payload"
	}
	return ""
}

// warnOfDrift says how a consumer differs from what workerd would make, each
// thing once.
func (p *puller) warnOfDrift(is jetstream.ConsumerConfig) {
	if is.AckWait != p.cfg.AckWait {
		p.differs("ack_wait", is.AckWait, p.cfg.AckWait)
	}
	if is.AckWait < leastAckWait {
		p.conn.sayOnce(slog.LevelInfo, fmt.Sprintf("consumer %s gives a lease (ack_wait) of %s only: an election or a restart of the broker takes 5 to 10 s and then repeats what is running; prefer 30s", p.cfg.Consumer, is.AckWait))
	}
	if is.MaxDeliver > 0 {
		p.differs("max_deliver", is.MaxDeliver, "unlimited; the server will strand jobs after that many deliveries")
	}
	if len(is.BackOff) > 0 {
		p.differs("backoff", is.BackOff, "none; it distorts the delays of redelivery")
	}
	if is.MaxAckPending > 0 && is.MaxAckPending < p.cfg.Limit {
		p.differs("max_ack_pending", is.MaxAckPending, p.cfg.Limit)
	}
}

func (p *puller) differs(what string, is, want any) {
	p.conn.sayOnce(slog.LevelWarn, "consumer differs from the configuration; it is left as it is",
		"stream", p.cfg.Stream, "consumer", p.cfg.Consumer, "setting", what, "is", is, "configured", want)
}
