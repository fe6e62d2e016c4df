package dlq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/queue"
)

// What is wrong with the stream, or with the choice of a letter.
var (
	// ErrNoStream: there is no dead-letter stream of that name.
	ErrNoStream = errors.New("the stream does not exist")
	// ErrNotLetters: the stream's retention is not limits. Reading a work queue
	// or an interest stream would take messages out of it.
	ErrNotLetters = errors.New("the stream does not keep dead letters")
	// ErrNoLetter: there is no letter of that sequence.
	ErrNoLetter = errors.New("no such dead letter")
)

// Box is a dead-letter stream with the letters that lay there when it was
// opened. Reading changes nothing. All methods may be called from any goroutine.
type Box struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	last   uint64

	mu    sync.Mutex          // guards takes
	takes map[string][]string // subjects of the streams jobs came from
}

// Open looks the stream up. It returns ErrNoStream or ErrNotLetters, wrapped.
func Open(ctx context.Context, js jetstream.JetStream, stream string) (*Box, error) {
	s, err := js.Stream(ctx, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("stream %s: %w", stream, ErrNoStream)
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	info := s.CachedInfo()
	if info.Config.Retention != jetstream.LimitsPolicy {
		return nil, fmt.Errorf("stream %s: %w: its retention is not limits", stream, ErrNotLetters)
	}
	return &Box{js: js, stream: s, last: info.State.LastSeq, takes: map[string][]string{}}, nil
}

// Stream is the name of the dead-letter stream.
func (b *Box) Stream() string { return b.stream.CachedInfo().Config.Name }

// Count is the number of letters chosen. It reads their heads.
func (b *Box) Count(ctx context.Context, f Filter) (n int, err error) {
	if f.IsZero() {
		return int(b.stream.CachedInfo().State.Msgs), nil
	}
	for _, err := range b.Heads(ctx, f) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// Get returns the letter of a sequence, or ErrNoLetter.
func (b *Box) Get(ctx context.Context, sequence uint64) (*Letter, error) {
	m, err := b.stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) || sequence == 0 {
		return nil, fmt.Errorf("%d: %w", sequence, ErrNoLetter)
	}
	if err != nil {
		return nil, fmt.Errorf("read dead letter %d: %w", sequence, err)
	}
	return newLetter(m), nil
}

// Remove deletes a letter. One that is not there is ErrNoLetter.
func (b *Box) Remove(ctx context.Context, sequence uint64) error {
	err := b.stream.DeleteMsg(ctx, sequence)
	if err == nil {
		return nil
	}
	// The server has no error of its own for a message that is not there.
	if _, gone := b.Get(ctx, sequence); errors.Is(gone, ErrNoLetter) {
		return gone
	}
	return fmt.Errorf("remove dead letter %d: %w", sequence, err)
}

// Purge deletes all letters at once that were there when the box was opened, or
// those of one pool.
func (b *Box) Purge(ctx context.Context, pool string) error {
	upTo := jetstream.WithPurgeSequence(b.last + 1)
	if pool == "" {
		return b.purge(ctx, upTo)
	}
	for _, subject := range b.subjects(pool) {
		if err := b.purge(ctx, upTo, jetstream.WithPurgeSubject(subject)); err != nil {
			return err
		}
	}
	return nil
}

// PurgesAtOnce tells whether Purge can do what the filter says.
func (b *Box) PurgesAtOnce(f Filter) bool {
	return f.IsZero() || f.onlyPool() && len(b.subjects(f.Pool)) > 0
}

func (b *Box) purge(ctx context.Context, opts ...jetstream.StreamPurgeOpt) error {
	if err := b.stream.Purge(ctx, opts...); err != nil {
		return fmt.Errorf("purge stream %s: %w", b.Stream(), err)
	}
	return nil
}

// subjects are those on which a pool's letters lie; none if the stream's own
// subjects do not tell.
func (b *Box) subjects(pool string) (filters []string) {
	for _, s := range b.stream.CachedInfo().Config.Subjects {
		for _, wildcard := range []string{".>", ".*"} {
			if prefix, ok := strings.CutSuffix(s, wildcard); ok && !strings.ContainsAny(prefix, "*>") {
				filters = append(filters, prefix+"."+pool)
			}
		}
	}
	slices.Sort(filters)
	return slices.Compact(filters)
}

// accepts tells whether a letter may be put on a subject.
func (b *Box) accepts(subject string) bool {
	return queue.CheckSubject(subject) == nil && !strings.ContainsAny(subject, "*>") && slices.ContainsFunc(b.stream.CachedInfo().Config.Subjects,
		func(s string) bool { return queue.SubjectsOverlap(s, subject) })
}
