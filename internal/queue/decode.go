package queue

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/job"
)

// maxHeader is the most bytes of header a job may carry. The server's own bound
// is a byte less, with line ends and colons counted.
const maxHeader = 64 << 10

// decode makes a job of a message. Nothing in the message is trusted: what
// cannot be understood is noted in Job.Invalid, and the job goes to the dead
// letters with that sentence instead of being guessed at.
func decode(m *nats.Msg, meta *nats.MsgMetadata, cfg SourceConfig) *job.Job {
	j := &job.Job{
		Stream:     meta.Stream,
		Consumer:   meta.Consumer,
		Sequence:   meta.Sequence.Stream,
		Subject:    m.Subject,
		Header:     job.Header(m.Header),
		Payload:    m.Data,
		Priority:   cfg.Priority,
		Deliveries: int(min(meta.NumDelivered, 1<<31-1)),
		Enqueued:   meta.Timestamp,
	}
	if wish, err := job.ParsePriority(j.Header.Get(job.HeaderPriority)); err == nil {
		j.Priority = wish
	}
	j.ID = jobID(j)
	j.Invalid = validate(j, cfg.MaxMessage)
	if n := unreadHeader(m); n > 0 && j.Invalid == nil {
		j.Invalid = fmt.Errorf("header block of %d bytes cannot be read, so what it says is unknown", n)
	}
	if j.Invalid == nil {
		j.Deadline, j.Invalid = deadline(j)
	}
	return j
}

// unreadHeader is the size of a header block the client could not read. It
// passes such a message on without a header, as if it had none; only its size
// tells.
func unreadHeader(m *nats.Msg) int {
	if m.Header != nil {
		return 0
	}
	return m.Size() - len(m.Subject) - len(m.Reply) - len(m.Data)
}

func jobID(j *job.Job) string {
	id := j.Header.Get(job.HeaderMsgID)
	if id == "" || len(id) > job.MaxID || strings.ContainsFunc(id, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		return j.Key()
	}
	return id
}

func validate(j *job.Job, maxMessage int64) error {
	if int64(len(j.Payload)) > maxMessage {
		return fmt.Errorf("payload of %d bytes is larger than max_message (%d)", len(j.Payload), maxMessage)
	}
	size := 0
	for key, values := range j.Header {
		for _, v := range values {
			size += len(key) + len(v)
		}
	}
	if size > maxHeader {
		return fmt.Errorf("headers of %d bytes are larger than allowed (%d)", size, maxHeader)
	}
	return nil
}

// deadline is the earlier of Workerd-Deadline and publication + Workerd-TTL.
func deadline(j *job.Job) (time.Time, error) {
	var at time.Time
	if v := j.Header.Get(job.HeaderDeadline); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return at, fmt.Errorf("header %s: %.40q is not a time like 2026-01-31T12:00:00Z", job.HeaderDeadline, v)
		}
		at = t
	}
	if v := j.Header.Get(job.HeaderTTL); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			return at, fmt.Errorf("header %s: %.40q is not a duration like 90s", job.HeaderTTL, v)
		}
		if until := j.Enqueued.Add(d); at.IsZero() || until.Before(at) {
			at = until
		}
	}
	return at, nil
}
