package dlq

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/job"
)

// maxCopies bounds how often a letter may have come and gone within one
// duplicate window and still be imported.
const maxCopies = 100

// earlierImport is what an import before has put behind an id.
var earlierImport = regexp.MustCompile(`\.i[0-9]+$`)

// exported is a letter as a line of JSON.
type exported struct {
	Sequence uint64              `json:"sequence,omitempty"`
	Subject  string              `json:"subject"`
	Stored   time.Time           `json:"stored,omitzero"`
	Headers  map[string][]string `json:"headers,omitempty"`
	// Base64Headers are those that are not UTF-8, which JSON must be.
	Base64Headers []exportedHeader `json:"base64_headers,omitempty"`
	Payload       []byte           `json:"payload"` // in base64
}

type exportedHeader struct {
	Key    []byte   `json:"key"`
	Values [][]byte `json:"values"`
}

// Export returns a letter as one line of JSON, without the line's end. Nothing
// of it is lost.
func Export(l *Letter) ([]byte, error) {
	e := exported{Sequence: l.Sequence, Subject: l.Subject, Stored: l.Stored.UTC(), Headers: map[string][]string{}, Payload: l.Payload}
	if e.Payload == nil {
		e.Payload = []byte{} // "" and not null
	}
	for _, key := range slices.Sorted(maps.Keys(l.Header)) {
		values := l.Header[key]
		if utf8.ValidString(key) && !slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) }) {
			e.Headers[key] = values
			continue
		}
		raw := exportedHeader{Key: []byte(key)}
		for _, v := range values {
			raw.Values = append(raw.Values, []byte(v))
		}
		e.Base64Headers = append(e.Base64Headers, raw)
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(e)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Parse reads a line that Export wrote. The error says what is wrong with it.
func Parse(line []byte) (*Letter, error) {
	var e exported
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil {
		return nil, explainJSON(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the letter")
	}
	switch {
	case e.Subject == "":
		return nil, errors.New(`"subject" is missing`)
	case e.Payload == nil:
		return nil, errors.New(`"payload" is missing`)
	}
	h := make(nats.Header, len(e.Headers)+len(e.Base64Headers))
	maps.Copy(h, e.Headers)
	for _, raw := range e.Base64Headers {
		for _, v := range raw.Values {
			h[string(raw.Key)] = append(h[string(raw.Key)], string(v))
		}
	}
	return newLetter(&jetstream.RawStreamMsg{Sequence: e.Sequence, Subject: e.Subject, Time: e.Stored, Header: h, Data: e.Payload}), nil
}

// explainJSON words the library's errors for people.
func explainJSON(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%q is a %s", wrong.Field, wrong.Value)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("the JSON ends too early")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// Import puts a letter back and tells whether it was not there yet. It is known
// by its dedupe id, so importing it again within the stream's duplicate window
// changes nothing, while one that was removed meanwhile does come back. A letter
// the stream refuses is a [Refusal].
func (b *Box) Import(ctx context.Context, l *Letter) (added bool, err error) {
	id := importID(l)
	for range maxCopies {
		ack, err := b.put(ctx, l, id)
		if err != nil || !ack.Duplicate {
			return err == nil, err
		}
		// The stream remembers ids of letters it has no more.
		if _, err := b.Get(ctx, ack.Sequence); err == nil {
			return false, nil
		} else if !errors.Is(err, ErrNoLetter) {
			return false, err
		}
		id = importID(l) + ".i" + strconv.FormatUint(ack.Sequence, 10)
	}
	return false, refuse("it was imported and removed %d times within the stream's duplicate window", maxCopies)
}

func (b *Box) put(ctx context.Context, l *Letter, id string) (*jetstream.PubAck, error) {
	m := &nats.Msg{Subject: l.Subject, Header: imported(l), Data: l.Payload}
	if !b.accepts(l.Subject) {
		return nil, refuse("stream %s does not take %q", b.Stream(), l.Subject)
	}
	ack, err := b.js.PublishMsg(ctx, m, jetstream.WithMsgID(id), jetstream.WithExpectStream(b.Stream()))
	_, api := errors.AsType[*jetstream.APIError](err)
	switch {
	case api, errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadHeaderMsg):
		return nil, refuse("stream %s does not take it: %w", b.Stream(), err)
	case err != nil:
		return nil, fmt.Errorf("publish to %s: %w", l.Subject, err)
	}
	return ack, nil
}

// imported is the header of a letter, made harmless once more: whoever wrote the
// line may have put orders to the broker into it.
func imported(l *Letter) nats.Header {
	h := make(nats.Header, len(l.Header))
	for _, key := range slices.Sorted(maps.Keys(l.Header)) {
		name := writable(key)
		switch {
		case strings.EqualFold(key, job.HeaderMsgID), strings.EqualFold(key, jetstream.ExpectedStreamHeader): // the letter's own
			continue
		case strings.HasPrefix(strings.ToLower(key), "nats-"):
			name = job.HeaderOrigPrefix + name
		}
		h[name] = append(h[name], l.Header[key]...)
	}
	return h
}

// importID is the dedupe id the letter had, or one made of what it says.
func importID(l *Letter) string {
	if id := job.Header(l.Header).Get(job.HeaderMsgID); isID(id) {
		return earlierImport.ReplaceAllString(id, "")
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %d ", l.Subject, l.Header, l.Stored.UnixNano()) // maps are printed in the order of their keys
	sum.Write(l.Payload)
	return "import-" + hex.EncodeToString(sum.Sum(nil)[:12])
}
