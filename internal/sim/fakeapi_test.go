package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// call answers a call of the JetStream API.
func (f *fake) call(call string, m message) {
	words := strings.Split(call, ".")
	if call, ok := strings.CutPrefix(call, "CONSUMER.MSG.NEXT."); ok {
		stream, consumer, _ := strings.Cut(call, ".")
		f.next(stream, consumer, m)
		return
	}
	if subject, ok := strings.CutPrefix(call, "DIRECT.GET."); ok {
		f.direct(subject, m)
		return
	}
	if call == "INFO" {
		f.answer(m.reply, "", []byte(`{"memory":0,"storage":0,"streams":1,"consumers":1,"limits":{},"api":{"level":4,"total":1,"errors":0}}`))
		return
	}
	var answer []byte
	switch kind := words[0] + "." + words[1]; {
	case kind == "STREAM.CREATE":
		answer = f.createStream(m.data)
	case kind == "STREAM.UPDATE":
		answer = f.updateStream(words[2], m.data)
	case f.streams[words[2]] == nil:
		answer = apiError(404, 10059, "stream not found")
	case kind == "STREAM.INFO":
		answer = f.streams[words[2]].info()
	case kind == "STREAM.MSG" && len(words) == 4 && words[2] == "GET":
		answer = apiError(404, 10037, "no message found")
	case kind == "CONSUMER.CREATE":
		answer = f.streams[words[2]].createConsumer(m.data)
	case kind == "CONSUMER.INFO":
		answer = f.streams[words[2]].consumerInfo(words[3])
	case kind == "CONSUMER.DELETE":
		answer = f.streams[words[2]].deleteConsumer(words[3])
	default:
		f.answer(m.reply, "503", nil)
		return
	}
	f.answer(m.reply, "", answer)
}

func apiError(code, number int, text string) []byte {
	return fmt.Appendf(nil, `{"error":{"code":%d,"err_code":%d,"description":%q}}`, code, number, text)
}

func (f *fake) createStream(data []byte) []byte {
	var cfg streamSettings
	if err := json.Unmarshal(data, &cfg); err != nil {
		return apiError(400, 10025, err.Error())
	}
	if s := f.streams[cfg.Name]; s != nil {
		if !bytes.Equal(s.raw, data) {
			return apiError(400, 10058, "stream name already in use with a different configuration")
		}
		return s.info()
	}
	if cfg.Duplicates == 0 {
		cfg.Duplicates = 2 * time.Minute
	}
	s := &fakeStream{
		f: f, name: cfg.Name, raw: slices.Clone(data), cfg: cfg, msgs: make(map[uint64]stored), ids: make(map[string]uint64),
		idTimes: make(map[string]time.Time), bySubject: make(map[string]uint64), consumers: make(map[string]*fakeConsumer),
	}
	f.streams[cfg.Name] = s
	return s.info()
}

func (f *fake) updateStream(name string, data []byte) []byte {
	s := f.streams[name]
	if s == nil {
		return apiError(404, 10059, "stream not found")
	}
	var cfg streamSettings
	if err := json.Unmarshal(data, &cfg); err != nil {
		return apiError(400, 10025, err.Error())
	}
	s.raw, s.cfg.MaxMsgs = slices.Clone(data), cfg.MaxMsgs
	return s.info()
}

func (s *fakeStream) info() []byte {
	first := s.last + 1
	for seq := range s.msgs {
		first = min(first, seq)
	}
	return fmt.Appendf(nil, `{"config":%s,"created":"2000-01-01T00:00:00Z","state":{"messages":%d,"first_seq":%d,"last_seq":%d,"consumer_count":%d}}`,
		s.raw, len(s.msgs), first, s.last, len(s.consumers))
}

func (s *fakeStream) createConsumer(data []byte) []byte {
	var asked struct {
		Config json.RawMessage `json:"config"`
		Action string          `json:"action"`
	}
	var cfg consumerSettings
	err := json.Unmarshal(data, &asked)
	if err == nil {
		err = json.Unmarshal(asked.Config, &cfg)
	}
	if err != nil {
		return apiError(400, 10025, err.Error())
	}
	if c := s.consumers[cfg.Durable]; c != nil {
		if asked.Action == "create" && !bytes.Equal(c.raw, asked.Config) {
			return apiError(400, 10148, "consumer already exists")
		}
		return c.info()
	}
	if s.cfg.Retention == "workqueue" && cfg.AckPolicy != "explicit" {
		return apiError(400, 10084, "workqueue stream requires explicit ack")
	}
	c := &fakeConsumer{s: s, name: cfg.Durable, raw: slices.Clone(asked.Config), cfg: cfg, created: time.Now(), pending: make(map[uint64]*pending)}
	c.timer = time.AfterFunc(time.Hour, c.tick)
	c.timer.Stop()
	for _, seq := range slices.Sorted(maps.Keys(s.msgs)) {
		if c.wants(s.msgs[seq].subject) {
			c.fresh = append(c.fresh, seq)
		}
	}
	c.next = 1
	s.consumers[c.name] = c
	return c.info()
}

func (s *fakeStream) consumerInfo(name string) []byte {
	if c := s.consumers[name]; c != nil {
		return c.info()
	}
	return apiError(404, 10014, "consumer not found")
}

func (s *fakeStream) deleteConsumer(name string) []byte {
	c := s.consumers[name]
	if c == nil {
		return apiError(404, 10014, "consumer not found")
	}
	c.timer.Stop()
	delete(s.consumers, name)
	for _, r := range c.waiting {
		s.f.answer(r.reply, "409 Consumer Deleted", nil)
	}
	return []byte(`{"success":true}`)
}

func (c *fakeConsumer) info() []byte {
	again := 0
	for _, p := range c.pending {
		if p.deliveries > 1 {
			again++
		}
	}
	return fmt.Appendf(nil, `{"stream_name":%q,"name":%q,"created":%q,"config":%s,"delivered":{"consumer_seq":%d,"stream_seq":%d},"num_ack_pending":%d,"num_redelivered":%d,"num_waiting":%d,"num_pending":%d}`,
		c.s.name, c.name, c.created.UTC().Format(time.RFC3339Nano), c.raw, c.dseq, c.next-1, len(c.pending), again, len(c.waiting), len(c.fresh))
}

// next is a pull request.
func (f *fake) next(stream, consumer string, m message) {
	var c *fakeConsumer
	if s := f.streams[stream]; s != nil {
		c = s.consumers[consumer]
	}
	if c == nil {
		f.answer(m.reply, "503", nil)
		return
	}
	asked := struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
		NoWait    bool          `json:"no_wait"`
	}{Batch: 1}
	if len(m.data) > 0 && json.Unmarshal(m.data, &asked) != nil {
		f.answer(m.reply, "400 Bad Request", nil)
		return
	}
	now := time.Now()
	r := &request{reply: m.reply, left: asked.Batch, expires: now.Add(asked.Expires), heartbeat: asked.Heartbeat, beat: now.Add(asked.Heartbeat)}
	if asked.Expires == 0 {
		r.expires = now.Add(24 * time.Hour)
	}
	c.waiting = append(c.waiting, r)
	c.pump()
	if asked.NoWait && r.left == asked.Batch {
		c.waiting = slices.DeleteFunc(c.waiting, func(o *request) bool { return o == r })
		f.answer(m.reply, "404 No Messages", nil)
	}
	c.wake()
}

// direct reads the last message of a subject.
func (f *fake) direct(call string, m message) {
	stream, subject, _ := strings.Cut(call, ".")
	s := f.streams[stream]
	if s == nil {
		f.answer(m.reply, "503", nil)
		return
	}
	seq, ok := s.bySubject[subject]
	if !ok {
		f.answer(m.reply, "404 Message Not Found", nil)
		return
	}
	found := s.msgs[seq]
	header := fmt.Appendf(nil, "NATS/1.0\r\nNats-Stream: %s\r\nNats-Subject: %s\r\nNats-Sequence: %d\r\nNats-Time-Stamp: %s\r\n",
		s.name, subject, seq, found.at.UTC().Format(time.RFC3339Nano))
	if _, own, ok := bytes.Cut(found.header, []byte("\r\n")); ok {
		header = append(header, own...)
	} else {
		header = append(header, "\r\n"...)
	}
	f.send(m.reply, message{subject: m.reply, header: header, data: found.data})
}
