package dlq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/dlq"
	"github.com/workerd/workerd/internal/job"
)

// put stores n dead letters of jobs JOBS:<from>….
func (k *kit) put(from, n int, change func(*job.Job, *job.Outcome)) {
	k.t.Helper()
	for i := range n {
		j, out, record := failedJob()
		j.Sequence = uint64(from + i)
		j.Header = job.Header{"Nats-Msg-Id": {"order-" + strconv.Itoa(from+i)}}
		j.Payload = []byte("body " + strconv.Itoa(from+i))
		if change != nil {
			change(j, &out)
		}
		if err := k.store.Put(k.t.Context(), j, out, record); err != nil {
			k.t.Fatal(err)
		}
	}
}

func (k *kit) open() *dlq.Box {
	k.t.Helper()
	b, err := dlq.Open(k.t.Context(), k.js, k.cfg.Stream)
	if err != nil {
		k.t.Fatal(err)
	}
	return b
}

// sequences of the letters chosen.
func (k *kit) sequences(f dlq.Filter) (all []uint64) {
	k.t.Helper()
	for l, err := range k.open().Heads(k.t.Context(), f) {
		if err != nil {
			k.t.Fatal(err)
		}
		all = append(all, l.Sequence)
	}
	return all
}

func TestBox_readsWhatPutWrote(t *testing.T) {
	k := newKit(t, nil)
	j, out, record := failedJob()
	if err := k.store.Put(t.Context(), j, out, record); err != nil {
		t.Fatal(err)
	}
	for l, err := range k.open().Letters(t.Context(), dlq.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if l.Sequence != 1 || l.ID != "order-1" || l.Key() != "JOBS:42" || l.Pool != "email" || l.Target != "mailer" || l.Reason != "max_attempts" ||
			l.Error != out.Err.Error() || l.JobSubject != j.Subject || l.JobStream != "JOBS" || l.JobSequence != 42 || l.Attempts != 3 ||
			l.Deliveries != 5 || l.LastStatus != 503 || !l.Enqueued.Equal(j.Enqueued) || l.At.IsZero() || len(l.History) != 2 ||
			!bytes.Equal(l.Payload, j.Payload) || l.Size != len(j.Payload) || l.Fingerprint != dlq.Fingerprint("max_attempts", out.Err.Error()) {
			t.Errorf("letter %+v", l)
		}
		if got := l.Header.Get("Workerd-Dlq-Fingerprint"); got != l.Fingerprint {
			t.Errorf("fingerprint %q in the header, want %q", got, l.Fingerprint)
		}
	}
	for l, err := range k.open().Heads(t.Context(), dlq.Filter{}) {
		if err != nil || len(l.Payload) != 0 || l.Size != len(j.Payload) || l.Header["Nats-Msg-Size"] != nil {
			t.Errorf("head %+v, %v", l, err)
		}
	}
}

func TestBox_filtersChoose(t *testing.T) {
	k := newKit(t, nil)
	k.put(1, 3, nil)
	reports := dlq.New(k.conn, k.cfg, "reports", "pdf")
	email := k.store
	k.store = reports
	k.put(4, 2, func(_ *job.Job, o *job.Outcome) { o.Reason, o.Err = job.Expired, errors.New("expired 3s ago") })
	k.store = email
	k.put(6, 1, func(j *job.Job, _ *job.Outcome) { j.Header = job.Header{"X-Tenant": {"acme"}} })
	third, err := k.open().Get(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		f    dlq.Filter
		want []uint64
	}{
		{"all", dlq.Filter{}, []uint64{1, 2, 3, 4, 5, 6}},
		{"pool", dlq.Filter{Pool: "reports"}, []uint64{4, 5}},
		{"no such pool", dlq.Filter{Pool: "repo"}, nil},
		{"reason", dlq.Filter{Reason: "expired"}, []uint64{4, 5}},
		{"fingerprint", dlq.Filter{Fingerprint: dlq.Fingerprint("expired", "expired 99s ago")}, []uint64{4, 5}},
		{"since", dlq.Filter{Since: third.Stored}, []uint64{3, 4, 5, 6}},
		{"before", dlq.Filter{Before: third.Stored}, []uint64{1, 2}},
		{"error", dlq.Filter{Match: regexp.MustCompile("failed 3")}, []uint64{1, 2, 3, 6}},
		{"id", dlq.Filter{Match: regexp.MustCompile("^order-2$")}, []uint64{2}},
		{"place", dlq.Filter{Match: regexp.MustCompile("^JOBS:6$")}, []uint64{6}},
		{"header", dlq.Filter{Match: regexp.MustCompile("X-Tenant: acme")}, []uint64{6}},
		{"limit", dlq.Filter{Limit: 2}, []uint64{1, 2}},
		{"several", dlq.Filter{Pool: "email", Since: third.Stored, Limit: 1}, []uint64{3}},
		{"nothing", dlq.Filter{Pool: "email", Reason: "expired"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := k.sequences(c.f); !slices.Equal(got, c.want) {
				t.Errorf("chose %v, want %v", got, c.want)
			}
			if n, err := k.open().Count(t.Context(), c.f); err != nil || n != len(c.want) {
				t.Errorf("counted %d, %v", n, err)
			}
		})
	}
}

// TestBox_readsThroughGapsAndBatches: more letters than are asked for at once,
// larger ones than that, and many that are gone.
func TestBox_readsThroughGapsAndBatches(t *testing.T) {
	k := newKit(t, nil)
	k.put(1, 1300, func(j *job.Job, _ *job.Outcome) {
		if j.Sequence%100 == 0 {
			j.Payload = make([]byte, 1<<20)
		}
	})
	s, err := k.js.Stream(t.Context(), k.cfg.Stream)
	if err != nil {
		t.Fatal(err)
	}
	var want []uint64
	for seq := range uint64(1300) {
		if seq++; seq%3 != 0 || seq%100 == 0 {
			want = append(want, seq)
		} else if err := s.DeleteMsg(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	var got []uint64
	for l, err := range k.open().Letters(t.Context(), dlq.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, l.Sequence)
	}
	if !slices.Equal(got, want) {
		t.Errorf("read %d letters, want %d", len(got), len(want))
	}
}

// TestBox_goesOnWhenItsConsumerIsGone, and leaves none behind.
func TestBox_goesOnWhenItsConsumerIsGone(t *testing.T) {
	k := newKit(t, nil)
	k.put(1, 1200, nil)
	s, err := k.js.Stream(t.Context(), k.cfg.Stream)
	if err != nil {
		t.Fatal(err)
	}
	consumers := func() (names []string) {
		for name := range s.ConsumerNames(t.Context()).Name() {
			names = append(names, name)
		}
		return names
	}
	n := 0
	for l, err := range k.open().Letters(t.Context(), dlq.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; l.Sequence != uint64(n) {
			t.Fatalf("letter %d is %d", n, l.Sequence)
		}
		if n%400 == 1 {
			for _, name := range consumers() {
				if err := s.DeleteConsumer(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if left := consumers(); n != 1200 || len(left) != 0 {
		t.Errorf("%d letters, consumers %v are left", n, left)
	}
}

func TestBox_showsWhatWasThereWhenItWasOpened(t *testing.T) {
	k := newKit(t, nil)
	k.put(1, 3, nil)
	b, n := k.open(), 0
	for _, err := range b.Letters(t.Context(), dlq.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		k.put(100+n, 1, nil) // a replayed job that has failed again, say
		n++
	}
	if n != 3 {
		t.Errorf("%d letters, want those 3 that were there", n)
	}
	if err := b.Purge(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if got := k.sequences(dlq.Filter{}); !slices.Equal(got, []uint64{4, 5, 6}) {
		t.Errorf("%v are left, want those that came later", got)
	}
}

func TestBox_purgesAPoolAtOnce(t *testing.T) {
	k := newKit(t, nil)
	k.put(1, 2, nil)
	k.store = dlq.New(k.conn, k.cfg, "reports", "pdf")
	k.put(3, 2, nil)
	b := k.open()
	for f, want := range map[dlq.Filter]bool{{}: true, {Pool: "email"}: true, {Reason: "expired"}: false, {Pool: "email", Limit: 1}: false} {
		if got := b.PurgesAtOnce(f); got != want {
			t.Errorf("%+v at once: %v", f, got)
		}
	}
	if err := b.Purge(t.Context(), "email"); err != nil {
		t.Fatal(err)
	}
	if got := k.sequences(dlq.Filter{}); !slices.Equal(got, []uint64{3, 4}) {
		t.Errorf("%v are left", got)
	}
}

func TestBox_whatIsNotThereIsSaid(t *testing.T) {
	k := newKit(t, nil)
	if _, err := dlq.Open(t.Context(), k.js, k.cfg.Stream); !errors.Is(err, dlq.ErrNoStream) {
		t.Errorf("no stream: %v", err)
	}
	// Reading a work queue would take jobs out of it.
	k.broker.Stream(k.js, "JOBS", "jobs.>")
	if _, err := dlq.Open(t.Context(), k.js, "JOBS"); !errors.Is(err, dlq.ErrNotLetters) {
		t.Errorf("a work queue: %v", err)
	}
	k.put(1, 2, nil)
	b := k.open()
	for _, seq := range []uint64{0, 3, 1 << 60} {
		if _, err := b.Get(t.Context(), seq); !errors.Is(err, dlq.ErrNoLetter) {
			t.Errorf("get %d: %v", seq, err)
		}
		if err := b.Remove(t.Context(), seq); !errors.Is(err, dlq.ErrNoLetter) {
			t.Errorf("remove %d: %v", seq, err)
		}
	}
	if err := errors.Join(b.Remove(t.Context(), 1), b.Remove(t.Context(), 2)); err != nil {
		t.Error(err)
	}
	if err := b.Remove(t.Context(), 2); !errors.Is(err, dlq.ErrNoLetter) {
		t.Errorf("remove twice: %v", err)
	}
}

// TestBox_strangersInTheStreamAreShown: anybody may publish there.
func TestBox_strangersInTheStreamAreShown(t *testing.T) {
	k := newKit(t, nil)
	k.put(1, 1, nil)
	nc := k.js.Conn()
	for _, m := range []*nats.Msg{
		{Subject: "workerd.dlq.x"},
		{Subject: "workerd.dlq.a.b.c", Data: bytes.Repeat([]byte{0}, 4<<20)},
		{Subject: "workerd.dlq.x", Header: nats.Header{
			"Workerd-Dlq-Sequence": {"99999999999999999999"}, "Workerd-Dlq-Attempts": {"-7"}, "Workerd-Dlq-Last-Status": {"five"},
			"Workerd-Dlq-At": {"yesterday"}, "Workerd-Dlq-Fingerprint": {"\x1b[31m"}, "Nats-Msg-Size": {"x"}, "Workerd-Orig-Nats-Msg-Id": {"a b"},
		}},
	} {
		if _, err := k.js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	// A header that no client of ours would write, by hand.
	head := "NATS/1.0\r\nno colon\r\nWorkerd-Dlq-Pool: y\r\n\r\n"
	reply := nats.NewInbox()
	sub, err := nc.SubscribeSync(reply)
	if err != nil {
		t.Fatal(err)
	}
	raw(t, k.broker.URL(), fmt.Sprintf("HPUB workerd.dlq.raw %s %d %d\r\n%sxyz\r\n", reply, len(head), len(head)+3, head))
	if m, err := sub.NextMsg(10 * time.Second); err != nil || bytes.Contains(m.Data, []byte("error")) {
		t.Fatalf("the broker does not take it: %v %v", m, err)
	}
	n := 0
	for l, err := range k.open().Letters(t.Context(), dlq.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if l.Sequence > 1 && (l.ID != "" || l.Attempts != 0 || l.LastStatus != 0 || l.At.IsZero() || !dlq.IsFingerprint(l.Fingerprint)) {
			t.Errorf("letter %+v", l)
		}
		var refusal *dlq.Refusal
		if _, err := k.open().Replay(t.Context(), l, ""); !errors.As(err, &refusal) {
			t.Errorf("replay of %d: %v, want a refusal", l.Sequence, err)
		}
	}
	if n != 5 {
		t.Errorf("%d letters, want 5", n)
	}
}

// TestBox_aStreamThatIsGoneEndsReading.
func TestBox_aStreamThatIsGoneEndsReading(t *testing.T) {
	k := newKit(t, nil)
	k.put(1, 1200, nil)
	var last error
	n := 0
	for _, err := range k.open().Letters(t.Context(), dlq.Filter{}) {
		if n++; n == 1 {
			if err := k.js.DeleteStream(t.Context(), k.cfg.Stream); err != nil {
				t.Fatal(err)
			}
		}
		last = err
	}
	if !errors.Is(last, jetstream.ErrStreamNotFound) {
		t.Errorf("after %d letters: %v", n, last)
	}
}

func TestBox_newest(t *testing.T) {
	k := newKit(t, nil)
	k.put(1, 30, nil)
	b := k.open()
	for seq := uint64(5); seq <= 29; seq++ { // the end is full of holes
		if err := b.Remove(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	for most, want := range map[int][]uint64{1: {30}, 2: {30, 4}, 3: {30, 4, 3}, 5: {30, 4, 3, 2, 1}, 50: {30, 4, 3, 2, 1}} {
		for _, f := range []dlq.Filter{{}, {Pool: "email", Limit: 1}} {
			letters, total, err := k.open().Newest(t.Context(), f, most)
			var got []uint64
			for _, l := range letters {
				got = append(got, l.Sequence)
			}
			if err != nil || total != 5 || !slices.Equal(got, want) {
				t.Errorf("newest %d of %+v: %v of %d, %v", most, f, got, total, err)
			}
		}
	}
	if err := b.Purge(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if letters, total, err := k.open().Newest(t.Context(), dlq.Filter{}, 5); len(letters) != 0 || total != 0 || err != nil {
		t.Errorf("of none: %d letters, %d, %v", len(letters), total, err)
	}
}

func TestBox_groupsByCause(t *testing.T) {
	k := newKit(t, nil)
	k.put(1, 2, nil)
	k.store = dlq.New(k.conn, k.cfg, "reports", "pdf")
	k.put(3, 2, func(j *job.Job, o *job.Outcome) {
		if j.Sequence == 4 {
			o.Reason, o.Err = job.Expired, errors.New("expired 3s ago")
		}
	})
	groups, others, err := k.open().Groups(t.Context(), dlq.Filter{})
	if err != nil || others != 0 || len(groups) != 2 {
		t.Fatalf("%+v, %d, %v", groups, others, err)
	}
	if g := groups[0]; g.Count != 3 || !slices.Equal(g.Pools, []string{"email", "reports"}) || g.Last.Before(g.First) || g.Reason != "max_attempts" {
		t.Errorf("group %+v", g)
	}
	if g := groups[1]; g.Count != 1 || g.Cause != "expired 3s ago" || g.Fingerprint != dlq.Fingerprint("expired", "expired 8s ago") {
		t.Errorf("group %+v", g)
	}
	if chosen := k.sequences(dlq.Filter{Fingerprint: groups[0].Fingerprint}); !slices.Equal(chosen, []uint64{1, 2, 3}) {
		t.Errorf("its letters are %v", chosen)
	}
}

// TestBox_canBeLeftAtAnyTime: who has had enough gets nothing more, be the
// context over or not.
func TestBox_canBeLeftAtAnyTime(t *testing.T) {
	k := newKit(t, nil)
	k.put(1, 3, nil)
	leave := func(canceled bool) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, err := range k.open().Letters(ctx, dlq.Filter{}) {
			if err != nil {
				t.Error(err)
			}
			if canceled {
				cancel()
			}
			break // panicked where it went on
		}
	}
	leave(false)
	leave(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	var last error
	for _, err := range k.open().Letters(ctx, dlq.Filter{}) {
		cancel()
		n, last = n+1, err
	}
	if !errors.Is(last, context.Canceled) && n != 3 {
		t.Errorf("%d letters, then %v", n, last)
	}
}
