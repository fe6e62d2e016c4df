package dlq

import (
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/job"
)

// Letter is a dead letter as it lies in its stream. Whoever may publish there
// can write whatever they like, so nothing in it is trusted: what is missing or
// cannot be read is the zero value. A letter is not written to after it was made.
type Letter struct {
	// Sequence and Subject in the dead-letter stream, and when it was stored there.
	Sequence uint64
	Subject  string
	Stored   time.Time
	// Header of the letter: the job's own and what is said about it.
	Header nats.Header
	// Payload of the job, and its size; without a payload where only heads are read.
	Payload []byte
	Size    int

	// ID of the job: the publisher's, or its place in its stream, or "".
	ID string
	// Pool that gave up, by the header or by the subject.
	Pool string
	// Reason, Error and Fingerprint say why.
	Reason, Error, Fingerprint string
	// Target that was called.
	Target string
	// JobSubject, JobStream and JobSequence say where the job lay.
	JobSubject, JobStream string
	JobSequence           uint64
	// Attempts and Deliveries the job had, and the last protocol status.
	Attempts, Deliveries, LastStatus int
	// Enqueued is when the job was published, At when workerd gave up.
	Enqueued, At time.Time
	// History has the errors before, the oldest first.
	History []string
}

// newLetter reads what a message says.
func newLetter(m *jetstream.RawStreamMsg) *Letter {
	h := job.Header(m.Header)
	l := &Letter{
		Sequence: m.Sequence, Subject: m.Subject, Stored: m.Time, Header: m.Header, Payload: m.Data, Size: len(m.Data),
		Pool: h.Get(job.HeaderDLQPool), Target: h.Get(job.HeaderDLQTarget),
		Reason: h.Get(job.HeaderDLQReason), Error: h.Get(job.HeaderDLQError), Fingerprint: h.Get(job.HeaderDLQFingerprint),
		JobSubject: h.Get(job.HeaderDLQSubject), JobStream: h.Get(job.HeaderDLQStream),
		Attempts: number(h, job.HeaderDLQAttempts), Deliveries: number(h, job.HeaderDLQDeliveries), LastStatus: number(h, job.HeaderDLQLastStatus),
		Enqueued: instant(h, job.HeaderDLQEnqueued), At: instant(h, job.HeaderDLQAt),
		History: m.Header[job.HeaderDLQHistory],
	}
	l.JobSequence, _ = strconv.ParseUint(h.Get(job.HeaderDLQSequence), 10, 64)
	if l.Pool == "" {
		l.Pool = m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	}
	if !IsFingerprint(l.Fingerprint) {
		l.Fingerprint = Fingerprint(l.Reason, l.Error)
	}
	if l.At.IsZero() {
		l.At = m.Time
	}
	l.ID = l.Key()
	if id := h.Get(job.HeaderOrigPrefix + job.HeaderMsgID); isID(id) {
		l.ID = id
	}
	return l
}

// number is a count in a header: 0 if it is none, or a negative one.
func number(h job.Header, key string) int {
	n, err := strconv.ParseInt(h.Get(key), 10, 32)
	if err != nil {
		return 0
	}
	return int(max(n, 0))
}

func instant(h job.Header, key string) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, h.Get(key)) // the zero time otherwise
	return t
}

// isID tells whether a publisher's id is one that names the job everywhere.
func isID(id string) bool {
	return id != "" && len(id) <= job.MaxID && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })
}

// Key is the job's place in its stream, "JOBS:42", or "" if that is not known.
func (l *Letter) Key() string {
	if l.JobStream == "" || l.JobSequence == 0 {
		return ""
	}
	return (&job.Job{Stream: l.JobStream, Sequence: l.JobSequence}).Key()
}

// Printable makes a text safe to be shown on a terminal: what would move the
// cursor, change colours, hide or reorder text is escaped as in Go strings.
// Line ends and tabs are kept if lines is true.
func Printable(text string, lines bool) string {
	var b strings.Builder
	for i, r := range text { // a byte that is no UTF-8 comes as RuneError
		switch {
		case lines && (r == '\n' || r == '\t'), unicode.IsPrint(r) && r != unicode.ReplacementChar:
			b.WriteRune(r)
		case r == unicode.ReplacementChar && !strings.HasPrefix(text[i:], string(unicode.ReplacementChar)):
			b.WriteString(`\x` + strconv.FormatUint(uint64(text[i])|0x100, 16)[1:])
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}
