package sim

import (
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fake is a model of a NATS server with JetStream, as far as workerd uses it:
// streams, work queues among them, their pull consumers, and all that makes
// these difficult. It is what the real server is taken to do, and
// conformance_test.go asks both whether that is so. It is fast, since it does
// everything under one lock in the goroutine of whoever asks; and it can do
// what the real one does only when it is in trouble.
type fake struct {
	seed seed

	mu      sync.Mutex // guards all below, and what belongs to it
	up      bool
	conns   map[*fakeConn]bool
	subs    map[string]subscription
	streams map[string]*fakeStream
	trouble map[trouble]time.Time  // until when
	dice    int                    // how often it was left to chance
	lost    map[trouble]int        // what was lost
	stolen  map[string][]time.Time // jobs, when they were given back by somebody who did not have them any more
}

// trouble is what a broker may do to a client without being gone.
type trouble string

const (
	noLeader          trouble = "no leader"          // nothing is done or answered
	lostConfirmations trouble = "lost confirmations" // things are done, and some answers lost
	lostRequests      trouble = "lost requests"      // some things are not done
	slowBucket        trouble = "slow bucket"        // key-value buckets confirm late: their leader is another one
)

func newFake(s seed) *fake {
	return &fake{
		seed: s, up: true, conns: make(map[*fakeConn]bool), subs: make(map[string]subscription), streams: make(map[string]*fakeStream),
		trouble: make(map[trouble]time.Time), lost: make(map[trouble]int), stolen: make(map[string][]time.Time),
	}
}

// InProcessConn implements nats.InProcessConnProvider.
func (f *fake) InProcessConn() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.up {
		return nil, errDown
	}
	c := &fakeConn{f: f, in: newFlow(), sids: make(map[string]string)}
	f.conns[c] = true
	c.in.write([]byte(`INFO {"server_id":"SIM","server_name":"sim","version":"2.15.2","proto":1,"headers":true,"max_payload":8388608,"jetstream":true}` + "\r\n"))
	return c, nil
}

func (f *fake) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up = false
	for c := range f.conns {
		c.end()
	}
	for _, c := range f.consumers() {
		c.waiting = nil
		c.timer.Stop()
		c.timerAt = time.Time{}
	}
}

func (f *fake) start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up = true
	for _, c := range f.consumers() {
		c.recall()
	}
}

func (f *fake) restart(ctx context.Context, down time.Duration) {
	f.stop()
	pause(ctx, down)
	f.start()
}

// kill is a restart of a broker that could write nothing down any more: what
// has happened in the last moments to its consumers has not.
func (f *fake) kill(ctx context.Context, down, forgotten time.Duration) {
	f.stop()
	f.mu.Lock()
	for _, c := range f.consumers() {
		c.forget(time.Now().Add(-forgotten))
	}
	f.mu.Unlock()
	pause(ctx, down)
	f.start()
}

// begin some trouble.
func (f *fake) begin(t trouble, lasts time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble[t] = time.Now().Add(lasts)
	if t != noLeader {
		return
	}
	for _, c := range f.consumers() {
		for _, r := range c.waiting {
			f.answer(r.reply, "409 Leadership Change", nil)
		}
		c.waiting = nil
		c.recall()
	}
}

// in tells whether there is a trouble now; some troubles come by chance.
func (f *fake) in(t trouble) bool {
	until, ok := f.trouble[t]
	if !ok || !time.Now().Before(until) {
		return false
	}
	f.dice++
	if t != noLeader && t != slowBucket && f.seed.chance(f.dice, string(t)) < 0.5 {
		return false
	}
	f.lost[t]++
	return true
}

// consumers in the order of their names, so that chance meets the same.
func (f *fake) consumers() (all []*fakeConsumer) {
	for _, s := range slices.Sorted(maps.Keys(f.streams)) {
		for _, name := range slices.Sorted(maps.Keys(f.streams[s].consumers)) {
			all = append(all, f.streams[s].consumers[name])
		}
	}
	return all
}

// publish deals with what a client sends.
func (f *fake) publish(from *fakeConn, m message) {
	if strings.HasPrefix(m.subject, "$JS.") || !strings.HasPrefix(m.subject, "_INBOX") {
		if f.in(noLeader) || f.in(lostRequests) {
			return
		}
	}
	if ack, ok := strings.CutPrefix(m.subject, "$JS.ACK."); ok {
		f.ack(from, strings.Split(ack, "."), m)
		return
	}
	if call, ok := strings.CutPrefix(m.subject, "$JS.API."); ok {
		f.call(call, m)
		return
	}
	for _, s := range f.streams {
		if s.takes(m.subject) {
			f.confirm(s, m.reply, s.put(m))
			return
		}
	}
	if !f.send(m.subject, m) {
		f.answer(m.reply, "503", nil)
	}
}

// confirm tells a publisher what became of a message.
func (f *fake) confirm(s *fakeStream, reply string, answer []byte) {
	switch {
	case f.in(lostConfirmations):
	case strings.HasPrefix(s.name, "KV_") && f.in(slowBucket):
		time.AfterFunc(slowness, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.answer(reply, "", answer)
		})
	default:
		f.answer(reply, "", answer)
	}
}

// awaitSlow waits, not for long, until a bucket lets somebody wait.
func (f *fake) awaitSlow(ctx context.Context, patience time.Duration) {
	slow := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.lost[slowBucket]
	}
	for before, until := slow(), time.Now().Add(patience); slow() == before && time.Now().Before(until) && ctx.Err() == nil; {
		pause(ctx, slowness/10)
	}
}

// slowness of a bucket: less than workerd has patience for.
const slowness = 1500 * time.Millisecond

// fakeStream is a stream.
type fakeStream struct {
	f         *fake
	name      string
	raw       json.RawMessage // its configuration as it came
	cfg       streamSettings
	last      uint64
	msgs      map[uint64]stored
	ids       map[string]uint64    // of messages, with the sequence each got
	idTimes   map[string]time.Time // when
	bySubject map[string]uint64    // the last message, if there is to be but one
	consumers map[string]*fakeConsumer
}

type streamSettings struct {
	Name       string        `json:"name"`
	Subjects   []string      `json:"subjects"`
	Retention  string        `json:"retention"`
	MaxMsgs    int           `json:"max_msgs"`
	PerSubject int           `json:"max_msgs_per_subject"`
	Duplicates time.Duration `json:"duplicate_window"`
}

// stored is a message in a stream.
type stored struct {
	message
	at time.Time
}

func (s *fakeStream) takes(subject string) bool {
	return slices.ContainsFunc(s.cfg.Subjects, func(pattern string) bool { return matches(pattern, subject) })
}

// matches tells whether a subject is one of those that a pattern means.
func matches(pattern, subject string) bool {
	for {
		p, pRest, pMore := strings.Cut(pattern, ".")
		w, wRest, wMore := strings.Cut(subject, ".")
		switch {
		case p == ">":
			return true
		case p != "*" && p != w:
			return false
		case !pMore || !wMore:
			return pMore == wMore
		}
		pattern, subject = pRest, wRest
	}
}

// put stores a message, and returns what the publisher is told.
func (s *fakeStream) put(m message) []byte {
	now := time.Now()
	if want := headerOf(m.header, "Nats-Expected-Stream"); want != "" && want != s.name {
		return fmt.Appendf(nil, `{"error":{"code":400,"err_code":10060,"description":"expected stream does not match"},"stream":%q,"seq":0}`, s.name)
	}
	id := headerOf(m.header, "Nats-Msg-Id")
	if id != "" {
		if seq, ok := s.ids[id]; ok && now.Sub(s.idTimes[id]) < s.cfg.Duplicates {
			return fmt.Appendf(nil, `{"stream":%q,"seq":%d,"duplicate":true}`, s.name, seq)
		}
	}
	if s.cfg.MaxMsgs > 0 && len(s.msgs) >= s.cfg.MaxMsgs {
		return fmt.Appendf(nil, `{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":%q,"seq":0}`, s.name)
	}
	s.last++
	m.header, m.data, m.reply = slices.Clone(m.header), slices.Clone(m.data), ""
	s.msgs[s.last] = stored{m, now}
	if id != "" {
		s.ids[id], s.idTimes[id] = s.last, now
	}
	if s.cfg.PerSubject == 1 {
		delete(s.msgs, s.bySubject[m.subject])
		s.bySubject[m.subject] = s.last
	}
	for _, c := range s.consumers {
		if c.wants(m.subject) {
			c.fresh = append(c.fresh, s.last)
			c.pump()
		}
	}
	return fmt.Appendf(nil, `{"stream":%q,"seq":%d}`, s.name, s.last)
}

// fakeConsumer is a durable pull consumer with explicit acks.
type fakeConsumer struct {
	s       *fakeStream
	name    string
	raw     json.RawMessage
	cfg     consumerSettings
	next    uint64   // all below were delivered to somebody, if they are wanted
	fresh   []uint64 // what was never delivered
	again   []uint64 // what is to be delivered again
	pending map[uint64]*pending
	waiting []*request
	dseq    uint64
	created time.Time
	recent  []acked // the last acks, for a broker that forgets them

	due     deadlines
	timer   *time.Timer
	timerAt time.Time
}

type consumerSettings struct {
	Durable        string        `json:"durable_name"`
	FilterSubject  string        `json:"filter_subject"`
	FilterSubjects []string      `json:"filter_subjects"`
	AckWait        time.Duration `json:"ack_wait"`
	MaxDeliver     int           `json:"max_deliver"`
	AckPolicy      string        `json:"ack_policy"`
}

// pending is a message that somebody was given and has not acknowledged.
type pending struct {
	dseq       uint64 // of the first delivery
	last       uint64 // of the last one
	to         *fakeConn
	deliveries int
	since      time.Time // the lease is since + ack_wait
	written    time.Time // the same as on disk: for a plain delivery the time of publication
	queued     bool      // to be delivered again
	first      time.Time // of its deliveries
	taken      time.Time // when somebody who was not the last to get it gave it back; zero: nobody did
	handed     []handed  // all its deliveries
}

// handed is a delivery, and when somebody who did not have the job any more gave
// it back for that; zero: nobody did.
type handed struct {
	n           int
	at, because time.Time
}

// acked is an acknowledgement that may not be on disk yet.
type acked struct {
	at    time.Time
	seq   uint64
	was   pending
	known bool
	m     stored
}

// request is a pull request that waits.
type request struct {
	reply     string
	left      int
	expires   time.Time
	heartbeat time.Duration
	beat      time.Time // the next sign of life
}

func (c *fakeConsumer) wants(subject string) bool {
	if c.cfg.FilterSubject != "" {
		return matches(c.cfg.FilterSubject, subject)
	}
	return len(c.cfg.FilterSubjects) == 0 || slices.ContainsFunc(c.cfg.FilterSubjects, func(p string) bool { return matches(p, subject) })
}

// pump delivers what there is to those who wait, each in turn.
func (c *fakeConsumer) pump() {
	f, now := c.s.f, time.Now()
	if !f.up {
		return
	}
	for len(c.waiting) > 0 {
		r := c.waiting[0]
		if _, interested := f.lookup(r.reply); !interested || !now.Before(r.expires) {
			if interested {
				c.timeout(r)
			}
			c.waiting = c.waiting[1:]
			continue
		}
		seq, ok := c.take()
		if !ok {
			return
		}
		c.deliver(r, seq, now)
		if c.waiting = c.waiting[1:]; r.left > 0 {
			c.waiting = append(c.waiting, r)
		}
	}
}

// take returns the next message: what has to be repeated comes first.
func (c *fakeConsumer) take() (uint64, bool) {
	for len(c.again) > 0 {
		seq := c.again[0]
		c.again = c.again[1:]
		p := c.pending[seq]
		if p == nil || !p.queued {
			continue
		}
		if p.queued = false; c.cfg.MaxDeliver > 0 && p.deliveries >= c.cfg.MaxDeliver {
			delete(c.pending, seq) // and lies in the stream for ever
			continue
		}
		return seq, true
	}
	for len(c.fresh) > 0 {
		seq := c.fresh[0]
		c.fresh = c.fresh[1:]
		if _, there := c.s.msgs[seq]; there {
			c.next = max(c.next, seq+1)
			return seq, true
		}
	}
	return 0, false
}

func (c *fakeConsumer) deliver(r *request, seq uint64, now time.Time) {
	m := c.s.msgs[seq]
	c.dseq++
	p := c.pending[seq]
	if p == nil {
		p = &pending{dseq: c.dseq, first: now}
		c.pending[seq] = p
	}
	p.deliveries++
	p.since, p.written, p.last = now, m.at, c.dseq
	p.handed, p.taken = append(slices.Clip(p.handed), handed{p.deliveries, now, p.taken}), time.Time{}
	if s, ok := c.s.f.lookup(r.reply); ok {
		p.to = s.conn
	}
	c.watch(seq, p)
	r.left--
	r.beat = now.Add(r.heartbeat)
	reply := make([]byte, 0, 96)
	reply = append(append(append(append(append(reply, "$JS.ACK."...), c.s.name...), '.'), c.name...), '.')
	for i, n := range []int64{int64(p.deliveries), int64(seq), int64(c.dseq), m.at.UnixNano(), int64(len(c.fresh))} {
		if i > 0 {
			reply = append(reply, '.')
		}
		reply = strconv.AppendInt(reply, n, 10)
	}
	c.s.f.send(r.reply, message{subject: m.subject, reply: string(reply), header: m.header, data: m.data})
}

func (c *fakeConsumer) timeout(r *request) {
	c.s.f.answer(r.reply, fmt.Sprintf("408 Request Timeout\r\nNats-Pending-Messages: %d\r\nNats-Pending-Bytes: 0", r.left), nil)
}

// ack deals with what a client says about a delivery: the words are stream,
// consumer, deliveries, sequence and so on.
func (f *fake) ack(from *fakeConn, words []string, m message) {
	var c *fakeConsumer
	if s := f.streams[words[0]]; s != nil && len(words) > 4 {
		c = s.consumers[words[1]]
	}
	if c == nil {
		f.answer(m.reply, "503", nil)
		return
	}
	seq, _ := strconv.ParseUint(words[3], 10, 64)
	dseq, _ := strconv.ParseUint(words[4], 10, 64)
	switch verb := string(m.data); {
	case verb == "+ACK", verb == "", strings.HasPrefix(verb, "+TERM"):
		if seq >= c.next {
			return // not delivered by this consumer, made anew meanwhile: no answer either
		}
		c.end(seq)
	case verb == "+WPI":
		if p := c.pending[seq]; p != nil {
			p.since = time.Now()
			p.written = p.since
			c.watch(seq, p)
		}
	case strings.HasPrefix(verb, "-NAK"):
		if dseq <= c.dseq {
			if p := c.pending[seq]; p != nil && (p.last != dseq || p.to != from) { // the numbers of another consumer may be the same
				p.taken = time.Now()
				id := idOf(c.s.msgs[seq].data)
				f.stolen[id] = append(f.stolen[id], p.taken)
			}
			c.nak(seq, strings.TrimSpace(verb[4:]))
		}
	}
	if m.reply != "" && !f.in(lostConfirmations) {
		f.answer(m.reply, "", nil)
	}
}

// end removes a message: in a work queue for all.
func (c *fakeConsumer) end(seq uint64) {
	a := acked{at: time.Now(), seq: seq, m: c.s.msgs[seq]}
	if p := c.pending[seq]; p != nil {
		a.was, a.known = *p, true
	}
	delete(c.pending, seq)
	if _, there := c.s.msgs[seq]; !there {
		return
	}
	if c.s.cfg.Retention == "workqueue" {
		delete(c.s.msgs, seq)
	}
	for len(c.recent) > 0 && a.at.Sub(c.recent[0].at) > longestForgotten {
		c.recent = c.recent[1:]
	}
	c.recent = append(c.recent, a)
}

// longestForgotten is how far a broker that is killed may fall behind; the real
// one writes ten times a second.
const longestForgotten = 150 * time.Millisecond

func (c *fakeConsumer) nak(seq uint64, argument string) {
	p := c.pending[seq]
	if p == nil {
		return
	}
	if argument != "" {
		var asked struct{ Delay time.Duration }
		if json.Unmarshal([]byte(argument), &asked) == nil {
			p.queued = false
			p.since = time.Now().Add(asked.Delay - c.cfg.AckWait)
			p.written = p.since
			c.watch(seq, p)
			return
		}
	}
	c.repeat(seq, p)
	c.pump()
}

func (c *fakeConsumer) repeat(seq uint64, p *pending) {
	if !p.queued {
		p.queued = true
		c.again = append(c.again, seq)
	}
}

// recall is what a consumer does when it starts: it knows what is on disk.
func (c *fakeConsumer) recall() {
	c.again = nil
	for _, seq := range slices.Sorted(maps.Keys(c.pending)) {
		p := c.pending[seq]
		p.queued = false
		p.since = p.written
		c.watch(seq, p)
	}
}

// forget undoes what has happened since.
func (c *fakeConsumer) forget(since time.Time) {
	for _, a := range c.recent {
		if a.at.Before(since) {
			continue
		}
		c.s.msgs[a.seq] = a.m
		if a.known {
			c.pending[a.seq] = &a.was
		}
	}
	c.recent = nil
	for seq, p := range c.pending {
		if p.first.After(since) {
			delete(c.pending, seq)
			c.fresh = append(c.fresh, seq)
		}
	}
	slices.Sort(c.fresh)
	if len(c.fresh) > 0 {
		c.next = min(c.next, c.fresh[0])
	}
}

// tick does what time has brought: leases that are over, requests that have
// expired, signs of life.
func (c *fakeConsumer) tick() {
	f := c.s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	c.timerAt = time.Time{}
	if !f.up || c.s.consumers[c.name] != c {
		return
	}
	for len(c.due) > 0 && !c.due[0].at.After(now) {
		d := heap.Pop(&c.due).(deadline)
		if p := c.pending[d.seq]; p != nil && !p.queued && !now.Before(p.since.Add(c.cfg.AckWait)) {
			c.repeat(d.seq, p)
			p.since = now
		}
	}
	c.waiting = slices.DeleteFunc(c.waiting, func(r *request) bool {
		if !now.Before(r.expires) {
			c.timeout(r)
			return true
		}
		if _, interested := f.lookup(r.reply); !interested {
			return true
		}
		if r.heartbeat > 0 && !now.Before(r.beat) {
			r.beat = now.Add(r.heartbeat)
			if !f.in(noLeader) {
				f.answer(r.reply, fmt.Sprintf("100 Idle Heartbeat\r\nNats-Last-Consumer: %d\r\nNats-Last-Stream: %d", c.dseq, c.next-1), nil)
			}
		}
		return false
	})
	c.pump()
	c.wake()
}

// watch sees to it that the end of a lease is noticed.
func (c *fakeConsumer) watch(seq uint64, p *pending) {
	heap.Push(&c.due, deadline{p.since.Add(c.cfg.AckWait), seq})
	c.wake()
}

// wake sets the timer to the next thing to do.
func (c *fakeConsumer) wake() {
	var next time.Time
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if len(c.due) > 0 {
		sooner(c.due[0].at)
	}
	for _, r := range c.waiting {
		sooner(r.expires)
		if r.heartbeat > 0 {
			sooner(r.beat)
		}
	}
	if next.IsZero() || !c.timerAt.IsZero() && !next.Before(c.timerAt) {
		return
	}
	c.timerAt = next
	c.timer.Reset(max(0, time.Until(next)))
}

// deadlines are a heap. One that has moved stays in it and does nothing.
type deadlines []deadline

type deadline struct {
	at  time.Time
	seq uint64
}

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(deadline)) }
func (d *deadlines) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}
