package dlq

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/queue"
)

// maxBase is the longest part of a job's old id in its new one, in bytes, so
// that the new one still names the job (see job.MaxID).
const maxBase = job.MaxID - 40

// maxOrigins bounds how many streams are remembered.
const maxOrigins = 100

// earlierReplay is what a replay before has put behind an id.
var earlierReplay = regexp.MustCompile(`\.r[0-9]+-[0-9a-z]+$`)

// Refusal is why one letter cannot be replayed or imported, while others may be.
type Refusal struct{ err error }

func (r *Refusal) Error() string { return r.err.Error() }

// Unwrap returns what the broker said, if it was the broker.
func (r *Refusal) Unwrap() error { return r.err }

func refuse(format string, args ...any) error { return &Refusal{fmt.Errorf(format, args...)} }

// Replayed says where a job is now.
type Replayed struct {
	Stream   string
	Sequence uint64
	// Duplicate: it was there already, from a replay that was cut short.
	Duplicate bool
}

// Replay publishes the job of a letter to where it came from, or to the subject
// given, and once its stream has it on record removes the letter. It may be cut
// short at any instant and be done again: a letter that is still there has a job
// that was not published, or whose second publishing the stream recognises for
// as long as its duplicate window. An error that is no [Refusal] will probably
// meet other letters, too.
func (b *Box) Replay(ctx context.Context, l *Letter, to string) (Replayed, error) {
	r, err := b.Publish(ctx, l, to)
	if err != nil {
		return r, err
	}
	if err := b.Remove(ctx, l.Sequence); err != nil && !errors.Is(err, ErrNoLetter) {
		return r, fmt.Errorf("the job is in stream %s again, but: %w", r.Stream, err)
	}
	return r, nil
}

// Publish is the first half of Replay: it leaves the letter where it is.
func (b *Box) Publish(ctx context.Context, l *Letter, to string) (Replayed, error) {
	stream, err := b.Destination(ctx, l, to)
	if err != nil {
		return Replayed{}, err
	}
	m := restored(l)
	if to != "" {
		m.Subject = to
	}
	ack, err := b.js.PublishMsg(ctx, m, jetstream.WithMsgID(replayID(l)), jetstream.WithExpectStream(stream))
	_, api := errors.AsType[*jetstream.APIError](err)
	switch {
	case api, errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadHeaderMsg), errors.Is(err, jetstream.ErrNoStreamResponse):
		return Replayed{}, refuse("stream %s does not take the job on %s: %w", stream, m.Subject, err)
	case err != nil:
		return Replayed{}, fmt.Errorf("publish to %s: %w", m.Subject, err)
	case ack.Stream != stream:
		return Replayed{}, refuse("the job on %s went to stream %s, not to %s", m.Subject, ack.Stream, stream)
	}
	return Replayed{ack.Stream, ack.Sequence, ack.Duplicate}, nil
}

// Destination is the stream a replay would go to, or a [Refusal]. A letter is not
// trusted: under our credentials a subject of its choice could be an order to
// the broker. So the subject must be one that the stream the job came from takes.
func (b *Box) Destination(ctx context.Context, l *Letter, to string) (string, error) {
	if to != "" {
		stream, err := b.js.StreamNameBySubject(ctx, to)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return "", refuse("no stream takes %s", to)
		}
		return stream, err
	}
	switch {
	case l.JobSubject == "" || l.JobStream == "":
		return "", refuse("the letter does not say where the job came from")
	case queue.CheckSubject(l.JobSubject) != nil || strings.ContainsAny(l.JobSubject, "*>") || strings.HasPrefix(l.JobSubject, "$"):
		return "", refuse("%q is no subject for a job", l.JobSubject)
	case l.JobStream == b.Stream():
		return "", refuse("the letter says that the job came from this stream of dead letters")
	}
	subjects, err := b.origin(ctx, l.JobStream)
	if err != nil {
		return "", err
	}
	for _, s := range subjects {
		if queue.SubjectsOverlap(s, l.JobSubject) {
			return l.JobStream, nil
		}
	}
	return "", refuse("stream %s does not take %s any more", l.JobStream, l.JobSubject)
}

// origin returns the subjects of a stream, which it remembers.
func (b *Box) origin(ctx context.Context, stream string) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if subjects, ok := b.takes[stream]; ok {
		return subjects, nil
	}
	s, err := b.js.Stream(ctx, stream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrInvalidStreamName):
		return nil, refuse("stream %q, where the job came from, does not exist", stream)
	case err != nil:
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	if len(b.takes) >= maxOrigins {
		clear(b.takes)
	}
	b.takes[stream] = s.CachedInfo().Config.Subjects
	return b.takes[stream], nil
}

// restored is the job as it was published: subject, payload and header.
//
// Of the header everything comes back but what begins with Nats-, however it is
// written. Those are orders to the broker, given once by the publisher and
// obeyed then. Given again, by us, they would purge the stream (Nats-Rollup),
// let the job expire unseen (Nats-TTL), schedule it anew (Nats-Schedule…), be
// refused for ever (Nats-Expected-…, Nats-Batch-…), count (Nats-Incr) or have
// the broker write elsewhere (Nats-Trace-Dest); and those that only inform
// (Nats-Stream, Nats-Sequence…) would inform wrongly. So there is no safe subset
// but one: the id, Nats-Msg-Id, which lives on in the new one (see replayID).
//
// One header is added where the publisher gave none: the idempotency key the
// job had before. The target may have done the work after all (a time-out), and
// would do it twice under a new key.
//
// What the client could not write was escaped when the letter was written, and
// stays so.
func restored(l *Letter) *nats.Msg {
	h := make(nats.Header, len(l.Header))
	for key, values := range l.Header {
		lower := strings.ToLower(key)
		if strings.HasPrefix(lower, "nats-") || strings.HasPrefix(lower, strings.ToLower(job.HeaderOrigPrefix)+"nats-") ||
			strings.HasPrefix(lower, strings.ToLower(job.HeaderDLQPrefix)) {
			continue
		}
		name := writable(key)
		h[name] = append(h[name], values...)
	}
	if job.Header(h).Get(job.HeaderIdempotencyKey) == "" && l.Key() != "" {
		h[job.HeaderIdempotencyKey] = []string{idempotencyKey(l)}
	}
	return &nats.Msg{Subject: l.JobSubject, Header: h, Data: l.Payload}
}

// idempotencyKey is the one that targets were called with, the job's place.
func idempotencyKey(l *Letter) string {
	return l.JobStream + "-" + strconv.FormatUint(l.JobSequence, 10)
}

// replayID is the new dedupe id of a job: not the old one, or the stream might
// take it for a copy of what it had, but always the same for this very letter.
// It is the old id (or place) with the letter's sequence, and the time at which
// the letter was stored, because a stream that is made anew starts its sequences
// anew.
func replayID(l *Letter) string {
	base := job.Header(l.Header).Get(job.HeaderOrigPrefix + job.HeaderMsgID)
	if !isID(base) {
		base = l.Key()
	}
	base = earlierReplay.ReplaceAllString(base, "")
	return base[:min(len(base), maxBase)] + ".r" + strconv.FormatUint(l.Sequence, 10) + "-" + strconv.FormatInt(l.Stored.UnixMilli(), 36)
}
