package dlq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of reading.
const (
	readBatch  = 500              // letters asked for at once
	readBytes  = 4 << 20          // bytes asked for at once, or the largest message if that is more
	readWait   = 2 * time.Second  // for letters that were said to be there
	readIdle   = 10 * time.Minute // after which the server forgets a consumer nobody reads from
	readTries  = 4                // without a single letter, before reading has failed
	apiTimeout = 5 * time.Second
)

// sizeHeader is where the server puts the size of a payload it leaves out.
const sizeHeader = "Nats-Msg-Size"

// Letters reads the letters chosen, oldest first, with their payload. However
// many there are, a few megabytes of them are held. The first error ends it.
func (b *Box) Letters(ctx context.Context, f Filter) iter.Seq2[*Letter, error] {
	return b.read(ctx, f, false, 0)
}

// Heads is Letters without payloads, and so much faster.
func (b *Box) Heads(ctx context.Context, f Filter) iter.Seq2[*Letter, error] {
	return b.read(ctx, f, true, 0)
}

// Newest returns the heads of the last letters chosen, the newest first, and how
// many are chosen in all. Limit of the filter does not count. Up to twice as
// many as returned are held.
func (b *Box) Newest(ctx context.Context, f Filter, most int) (letters []*Letter, total int, err error) {
	f.Limit = 0
	state := b.stream.CachedInfo().State
	for span := uint64(max(1, most)); ; span *= 8 {
		from := b.last - min(span, b.last) + 1
		all := !f.IsZero() || from <= state.FirstSeq // else it is enough to look at the end
		if all {
			from = 0
		}
		letters, total = letters[:0], 0
		for l, err := range b.read(ctx, f, true, from) {
			if err != nil {
				return nil, 0, err
			}
			total++
			if letters = append(letters, l); len(letters) == 2*most {
				letters = append(letters[:0], letters[most:]...)
			}
		}
		if letters = letters[max(0, len(letters)-most):]; all || len(letters) == most {
			slices.Reverse(letters)
			if f.IsZero() {
				total = int(state.Msgs)
			}
			return letters, total, nil
		}
	}
}

// read begins at a sequence, 0 for the first.
func (b *Box) read(ctx context.Context, f Filter, heads bool, from uint64) iter.Seq2[*Letter, error] {
	return func(yield func(*Letter, error) bool) {
		subjects := b.subjects(f.Pool)
		if f.Pool == "" {
			subjects = nil
		}
		r := &reader{box: b, bytes: max(readBytes, 2*int(b.js.Conn().MaxPayload())), cfg: jetstream.ConsumerConfig{
			Description: "workerd reads dead letters", AckPolicy: jetstream.AckNonePolicy, MaxDeliver: 1, MemoryStorage: true, Replicas: 1,
			FilterSubjects: subjects, HeadersOnly: heads, InactiveThreshold: readIdle, DeliverPolicy: jetstream.DeliverAllPolicy,
		}}
		if !f.Since.IsZero() {
			r.cfg.DeliverPolicy, r.cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &f.Since
		}
		if from > 0 {
			r.seen = from - 1
		}
		defer r.forget(ctx)
		n, wanted := 0, true
		err := r.run(ctx, func(l *Letter) bool {
			if l.Sequence > b.last || !f.Before.IsZero() && !l.Stored.Before(f.Before) {
				return false // later ones were stored later
			}
			if !f.has(l, len(subjects) > 0) {
				return true
			}
			n++
			wanted = yield(l, nil)
			return wanted && (f.Limit == 0 || n < f.Limit)
		})
		if err != nil && wanted {
			yield(nil, fmt.Errorf("read stream %s: %w", b.Stream(), err))
		}
	}
}

// reader reads a stream through an ephemeral consumer without acks. Should
// anything be missing, or the consumer be gone, it goes on with a new one after
// the last letter it has seen.
type reader struct {
	box      *Box
	cfg      jetstream.ConsumerConfig
	bytes    int
	consumer jetstream.Consumer // nil: make one
	seen     uint64             // sequence of the last letter, in the stream
	got      uint64             // and from this consumer
	pending  uint64             // letters this consumer has left
}

// errGap: the consumer has sent a letter that did not arrive.
var errGap = errors.New("a letter did not arrive")

// run calls take with each letter until it says no.
func (r *reader) run(ctx context.Context, take func(*Letter) bool) error {
	for tries := 0; tries < readTries; tries++ {
		if err := r.ready(ctx); err != nil {
			return err
		}
		if r.pending == 0 {
			return nil
		}
		before := r.seen
		more, err := r.batch(ctx, take)
		switch {
		case !more:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !restarts(err):
			return err
		case err != nil:
			r.forget(ctx)
		case r.seen == before:
			// Letters went away meanwhile, or the next is larger than the batch.
			r.pending, r.bytes = 0, 2*r.bytes
			r.forget(ctx)
		}
		if r.seen != before {
			tries = -1
		}
	}
	return fmt.Errorf("%d letters after sequence %d do not come", r.pending, r.seen)
}

// restarts tells errors that a new consumer may cure.
func restarts(err error) bool {
	return errors.Is(err, errGap) || errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrConsumerNotFound) ||
		errors.Is(err, jetstream.ErrNoHeartbeat) || errors.Is(err, jetstream.ErrConsumerLeadershipChanged) || errors.Is(err, jetstream.ErrServerShutdown) || errors.Is(err, nats.ErrNoResponders)
}

// ready makes the consumer if there is none.
func (r *reader) ready(ctx context.Context) (err error) {
	if r.consumer != nil {
		return nil
	}
	if r.seen > 0 {
		r.cfg.DeliverPolicy, r.cfg.OptStartTime, r.cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, nil, r.seen+1
	}
	r.consumer, err = r.box.stream.CreateConsumer(ctx, r.cfg)
	if err != nil {
		r.consumer = nil
		return err
	}
	r.got, r.pending = 0, r.consumer.CachedInfo().NumPending
	return nil
}

// forget deletes the consumer. The server would do it later.
func (r *reader) forget(ctx context.Context) {
	if r.consumer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTimeout)
	defer cancel()
	_ = r.box.stream.DeleteConsumer(ctx, r.consumer.CachedInfo().Name)
	r.consumer = nil
}

// batch asks for no more than is there, and so does not wait for more.
func (r *reader) batch(ctx context.Context, take func(*Letter) bool) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	batch, err := r.consumer.Fetch(int(min(r.pending, readBatch)), jetstream.FetchMaxBytes(r.bytes), jetstream.FetchContext(ctx))
	if err != nil {
		return true, err
	}
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			return true, err
		}
		if meta.Sequence.Consumer != r.got+1 {
			return true, errGap
		}
		r.got, r.pending, r.seen = meta.Sequence.Consumer, meta.NumPending, meta.Sequence.Stream
		if !take(r.letter(m, meta)) {
			return false, nil
		}
	}
	if err := batch.Error(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return true, err
	}
	return true, nil
}

func (r *reader) letter(m jetstream.Msg, meta *jetstream.MsgMetadata) *Letter {
	raw := &jetstream.RawStreamMsg{Subject: m.Subject(), Sequence: meta.Sequence.Stream, Header: m.Headers(), Data: m.Data(), Time: meta.Timestamp}
	if !r.cfg.HeadersOnly {
		return newLetter(raw)
	}
	size, _ := strconv.Atoi(raw.Header.Get(sizeHeader))
	raw.Header = maps.Clone(raw.Header)
	delete(raw.Header, sizeHeader)
	l := newLetter(raw)
	l.Size = size
	return l
}
