package queue

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

var (
	// errForged: the message was not sent by the consumer it claims to be from.
	errForged = errors.New("forged delivery")
	// errNoStatus: nothing to settle, and nothing the broker would say.
	errNoStatus = errors.New("neither a delivery nor a status")
)

// origin reads where a message comes from, and refuses what did not come from
// the given consumer. Whoever knows an inbox can publish to it; acting on his
// reply subject would settle other people's jobs, or publish whatever subject
// he wrote there under our credentials. inbox is what we subscribe to, with its
// final dot: a real delivery has the job's subject, a message sent straight to
// the inbox has that one, whatever else it may imitate.
func origin(m *nats.Msg, inbox string, cfg SourceConfig) (*nats.MsgMetadata, error) {
	if strings.HasPrefix(m.Subject, inbox) {
		return nil, fmt.Errorf("%w: published to the inbox", errForged)
	}
	if strings.ContainsFunc(m.Reply, func(r rune) bool { return r <= ' ' || r == '*' || r == '>' || r == 0x7f }) {
		return nil, fmt.Errorf("%w: reply subject is none to publish to", errForged)
	}
	meta, err := m.Metadata()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errForged, err)
	case meta.Stream != cfg.Stream || meta.Consumer != cfg.Consumer:
		return nil, fmt.Errorf("%w: from consumer %.40q of stream %.40q", errForged, meta.Consumer, meta.Stream)
	case meta.Sequence.Stream == 0 || meta.NumDelivered == 0:
		return nil, fmt.Errorf("%w: no sequence", errForged)
	}
	return meta, nil
}

// forgeries counts what was ignored, and says so now and then: whoever can
// write to an inbox must not be able to fill the log.
type forgeries struct {
	ignored uint64 // since it was spoken of last
	said    time.Time
}

// note tells whether it is time to speak, and of how many.
func (f *forgeries) note(now time.Time) (ignored uint64, due bool) {
	f.ignored++
	if !f.said.IsZero() && now.Sub(f.said) < remindEvery {
		return 0, false
	}
	ignored = f.ignored
	f.ignored, f.said = 0, now
	return ignored, true
}

// ignore drops a message that is neither a delivery nor a word of the broker.
func (p *puller) ignore(err error) {
	if n, due := p.forged.note(time.Now()); due {
		p.conn.log.Warn("ignored messages in a delivery inbox that are not from the consumer: somebody publishes to it",
			"stream", p.cfg.Stream, "consumer", p.cfg.Consumer, "messages", n, "err", err)
	}
}
