package queue

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/job"
)

// SubjectCovers tells whether every subject that matches the inner filter
// matches the outer one, too.
func SubjectCovers(outer, inner string) bool {
	for {
		o, moreOuter, outerGoesOn := strings.Cut(outer, ".")
		i, moreInner, innerGoesOn := strings.Cut(inner, ".")
		switch {
		case o == ">":
			return true
		case i == ">" || o != "*" && o != i:
			return false
		case !outerGoesOn || !innerGoesOn:
			return outerGoesOn == innerGoesOn
		}
		outer, inner = moreOuter, moreInner
	}
}

// coveredBy tells whether one of the filters covers a subject.
func coveredBy(filters []string, subject string) bool {
	return slices.ContainsFunc(filters, func(f string) bool { return SubjectCovers(f, subject) })
}

// notCovered returns the subjects that none of the filters covers.
func notCovered(filters, subjects []string) []string {
	return slices.DeleteFunc(slices.Clone(subjects), func(s string) bool { return coveredBy(filters, s) })
}

// takes tells whether jobs of a subject are ours. A source that names no
// subjects takes all.
func (s *Source) takes(subject string) bool {
	return len(s.cfg.Subjects) == 0 || coveredBy(s.cfg.Subjects, subject)
}

// checkFilters compares what a consumer takes with what it is to take. Jobs of
// other subjects would run in the wrong pool: that is an error. Jobs that are
// not taken only wait: that is worth a notice.
func (p *puller) checkFilters(ctx context.Context, is jetstream.ConsumerConfig) (notice string, err error) {
	filters := filtersOf(is)
	if len(p.cfg.Subjects) == 0 {
		return "", nil
	}
	if len(filters) == 0 { // it takes whatever the stream has
		s, ok := p.conn.streamState(ctx, p.cfg.Stream)
		if !ok {
			return "", fmt.Errorf("consumer %s takes all jobs of stream %s, and what these are cannot be seen: permit %s, or give it the filter %s",
				p.cfg.Consumer, p.cfg.Stream, p.conn.apiSubject("STREAM.INFO."+p.cfg.Stream), strings.Join(p.cfg.Subjects, ", "))
		}
		filters = s.cfg.Subjects
	}
	if others := notCovered(p.cfg.Subjects, filters); len(others) > 0 {
		return "", fmt.Errorf("consumer %s of stream %s also takes %s, which would run in the wrong pool: delete it, and workerd makes it anew for %s",
			p.cfg.Consumer, p.cfg.Stream, strings.Join(others, ", "), strings.Join(p.cfg.Subjects, ", "))
	}
	if waiting := notCovered(filters, p.cfg.Subjects); len(waiting) > 0 && len(filtersOf(is)) > 0 {
		notice = fmt.Sprintf("consumer %s of stream %s does not take %s: these jobs wait until its filter is changed, or it is deleted and workerd makes it anew",
			p.cfg.Consumer, p.cfg.Stream, strings.Join(waiting, ", "))
	}
	return notice, nil
}

// beheadedPause is the time until a job without its payload is looked at again.
const beheadedPause = 30 * time.Second

// beheaded tells whether the broker may have kept the payload back: it says how large
// that is, after what the publisher may have written.
func beheaded(m *nats.Msg) bool {
	size := m.Header[nats.MsgSize]
	return len(m.Data) == 0 && len(size) > 0 && size[len(size)-1] != "0"
}

// deliversAll asks whether the consumer does, and who wrote that header.
func (p *puller) deliversAll() bool {
	c, err := p.lookUp(p.conn.life)
	return err == nil && !c.CachedInfo().Config.HeadersOnly
}

// refuse gives back a job that must not be run as it is: somebody has changed the
// consumer, or made it anew.
func (p *puller) refuse(d *delivery, why string, after time.Duration) {
	p.conn.sayOnce(slog.LevelWarn, why, "stream", p.cfg.Stream, "consumer", p.cfg.Consumer, "subject", d.job.Subject)
	_ = d.Settle(job.Nak, after) // a lost lease needs no hand-back
	p.to.Returned(1)
	p.suspect.Store(true)
}
