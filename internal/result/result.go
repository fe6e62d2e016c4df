// Package result tells whoever a job names how the job ended.
//
// Guarantees:
//  1. Nothing is published to a subject that the configuration does not allow,
//     whatever the job says.
//  2. A result for a stream is on record before Send returns without error, and
//     once however often it is sent within the stream's duplicate window.
//  3. What would not fit is left out and said to be, never cut.
//
// When it is sent, and what becomes of a job whose result cannot be, is pool's part.
package result

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/oneline"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
)

const (
	longestSubject = 255
	// maxError is the longest error text sent, in bytes.
	maxError = 1024
	inbox    = "_INBOX."
)

// Sender sends the results of one pool. Any number of goroutines may use it.
type Sender struct {
	conn *queue.Conn
	cfg  pool.Results
}

// New returns the sender of a pool.
func New(conn *queue.Conn, cfg pool.Results) *Sender { return &Sender{conn, cfg} }

// Send implements pool.Sender.
func (s *Sender) Send(ctx context.Context, j *job.Job, o job.Outcome) (pool.Answer, error) {
	to := j.Header.Get(job.HeaderReplyTo)
	switch {
	case to == "":
		return "", nil
	case !allowed(to, s.cfg.Subjects):
		return pool.Refused, nil
	}
	m := s.message(to, j, o)
	if s.cfg.Stream == "" || strings.HasPrefix(to, inbox) {
		return s.tell(m), nil
	}
	return s.store(ctx, m, j)
}

// tell publishes a result to whoever listens.
func (s *Sender) tell(m *nats.Msg) pool.Answer {
	if s.conn.JetStream().Conn().PublishMsg(m) != nil {
		return pool.Lost
	}
	return pool.Sent
}

// store publishes a result that a stream must have. What the server says no to
// it would refuse again, and running the job again would not help.
func (s *Sender) store(ctx context.Context, m *nats.Msg, j *job.Job) (pool.Answer, error) {
	err := s.conn.AwaitConnected(ctx)
	if err == nil {
		id := j.Key() + ":" + strconv.FormatInt(j.Enqueued.UnixNano(), 36) + ":result"
		_, err = s.conn.JetStream().PublishMsg(ctx, m, jetstream.WithMsgID(id), jetstream.WithExpectStream(s.cfg.Stream))
	}
	_, refused := errors.AsType[*jetstream.APIError](err)
	switch {
	case err == nil:
		return pool.Sent, nil
	case refused, errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadHeaderMsg):
		return pool.Lost, nil
	}
	return pool.Unsent, err
}

// allowed tells whether a result may be published to a subject. The subject is
// what a publisher wrote, and we would publish with our own rights.
func allowed(subject string, filters []string) bool {
	if len(subject) > longestSubject || strings.HasPrefix(subject, "$") || strings.ContainsAny(subject, "*>") || queue.CheckSubject(subject) != nil {
		return false
	}
	if strings.ContainsFunc(subject, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return false
	}
	for _, f := range filters {
		if queue.SubjectsOverlap(f, subject) {
			return true
		}
	}
	return false
}

// message says how the job ended, with the reply if there is one that fits.
func (s *Sender) message(to string, j *job.Job, o job.Outcome) *nats.Msg {
	h := nats.Header{}
	set := func(key, value string) {
		if value != "" {
			h[key] = []string{value}
		}
	}
	set(job.HeaderJobID, j.ID)
	set(job.HeaderOutcome, o.Action.String())
	set(job.HeaderSource, string(o.Source))
	set(job.HeaderReason, string(o.Reason))
	set(job.HeaderStatus, strconv.Itoa(o.Last.Status))
	if o.Last.Age > 0 {
		set(job.HeaderAgeSeconds, strconv.FormatFloat(o.Last.Age.Round(time.Millisecond).Seconds(), 'f', -1, 64))
	}
	if o.Action != job.Done && o.Err != nil {
		set(job.HeaderError, oneline.Of(o.Err.Error(), maxError))
	}
	m := &nats.Msg{Subject: to, Header: h}
	if r := o.Last.Reply; r != nil {
		s.attach(m, r)
	}
	return m
}

// headerRoom is kept for the header when the server's limit is what bounds a body.
const headerRoom = 8 << 10

// attach adds the reply's body, or says that there was one.
func (s *Sender) attach(m *nats.Msg, r *job.Reply) {
	most := s.cfg.MaxBody
	if payload := s.conn.JetStream().Conn().MaxPayload(); payload > 0 {
		most = min(most, payload-headerRoom)
	}
	if r.Truncated || int64(len(r.Body)) > most {
		m.Header[job.HeaderOmitted] = []string{"the reply is larger than " + strconv.FormatInt(max(0, most), 10) + " bytes"}
		return
	}
	m.Data = r.Body
	if r.ContentType != "" {
		m.Header["Content-Type"] = []string{r.ContentType}
	}
}
