package attempts_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/workerd/workerd/internal/attempts"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/natstest"
	"github.com/workerd/workerd/internal/queue"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Package-level workers of the embedded broker, started once for good.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.init.0.func1"))
}

type kit struct {
	t      *testing.T
	broker *natstest.Broker
	js     jetstream.JetStream
}

func newKit(t *testing.T) *kit {
	b := natstest.Start(t)
	_, js := b.Connect()
	return &kit{t, b, js}
}

// ledger of a replica of its own.
func (k *kit) ledger() *attempts.Ledger {
	k.t.Helper()
	conn, err := queue.Dial(queue.Config{URL: k.broker.URL()}.WithDefaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(conn.Close)
	for deadline := time.After(10 * time.Second); !conn.Connected(); {
		changed := conn.Changed()
		if conn.Connected() {
			break
		}
		select {
		case <-changed:
		case <-deadline:
			k.t.Fatal("not connected")
		}
	}
	return attempts.New(conn, attempts.Config{}.WithDefaults())
}

func (k *kit) keys() []string {
	k.t.Helper()
	kv, err := k.js.KeyValue(k.t.Context(), "WORKERD_ATTEMPTS")
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil
	}
	if err != nil {
		k.t.Fatal(err)
	}
	keys, err := kv.Keys(k.t.Context())
	if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
		k.t.Fatal(err)
	}
	return keys
}

func again(n int) *job.Job {
	return &job.Job{Stream: "JOBS", Consumer: "p-normal", Sequence: 42, Deliveries: n, Enqueued: time.Date(2026, 1, 1, 0, 0, 0, 1, time.UTC)}
}

func TestLedger_isSharedByReplicas(t *testing.T) {
	k := newKit(t)
	a, b := k.ledger(), k.ledger()
	want := job.Record{Attempts: 2, Deferrals: 1, Panics: 1, Started: 1, LastStatus: 503, Errors: []string{"first", "second"}}
	a.Save(t.Context(), again(3), want)
	if diff := cmp.Diff(want, b.Load(t.Context(), again(4))); diff != "" {
		t.Error(diff)
	}
	b.Forget(t.Context(), again(4))
	if got := a.Load(t.Context(), again(5)); !cmp.Equal(got, job.Record{}) {
		t.Errorf("%+v is known of a job that has ended", got)
	}
	if keys := k.keys(); len(keys) != 0 {
		t.Errorf("%q are left", keys)
	}
}

func TestLedger_firstDeliveryCostsNothing(t *testing.T) {
	k := newKit(t)
	l := k.ledger()
	if got := l.Load(t.Context(), again(1)); !cmp.Equal(got, job.Record{}) {
		t.Errorf("got %+v", got)
	}
	if _, err := k.js.KeyValue(t.Context(), "WORKERD_ATTEMPTS"); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("the bucket was made, or asked for: %v", err)
	}
}

func TestLedger_otherJobsUnderTheSameNumberAreOthers(t *testing.T) {
	k := newKit(t)
	l := k.ledger()
	l.Save(t.Context(), again(2), job.Record{Attempts: 2})
	anew, other := again(2), again(2)
	anew.Enqueued = anew.Enqueued.Add(time.Nanosecond) // the stream was deleted and made again
	other.Consumer = "q-normal"
	for _, j := range []*job.Job{anew, other} {
		if got := l.Load(t.Context(), j); got.Attempts != 0 {
			t.Errorf("%+v is taken for that of another job", got)
		}
	}
}

func TestLedger_remembersWithoutABroker(t *testing.T) {
	k := newKit(t)
	l := k.ledger()
	k.broker.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for n := 1; n <= 3; n++ {
		l.Save(ctx, again(n), job.Record{Attempts: n})
	}
	if got := l.Load(ctx, again(4)); got.Attempts != 3 {
		t.Errorf("%d attempts are remembered, want 3", got.Attempts)
	}
	if l.Failed() != 3 {
		t.Errorf("%d failures counted, want 3", l.Failed())
	}
	l.Forget(ctx, again(4))
	if got := l.Load(ctx, again(5)); got.Attempts != 0 {
		t.Errorf("%d attempts are remembered of a job that has ended", got.Attempts)
	}
	k.broker.Restart()
}

func TestLedger_theLaterOfMemoryAndBucketCounts(t *testing.T) {
	k := newKit(t)
	l, other := k.ledger(), k.ledger()
	l.Save(t.Context(), again(2), job.Record{Attempts: 1})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	l.Save(ended, again(3), job.Record{Attempts: 2}) // could not be written
	if got := l.Load(t.Context(), again(4)); got.Attempts != 2 {
		t.Errorf("%d attempts, want the 2 in memory", got.Attempts)
	}
	other.Save(t.Context(), again(4), job.Record{Attempts: 3})
	if got := l.Load(t.Context(), again(5)); got.Attempts != 3 {
		t.Errorf("%d attempts, want the 3 in the bucket", got.Attempts)
	}
}

// TestLedger_whatCouldNotBeReadIsNotOverwritten: as if nothing had been known, so that
// a job of many attempts had all of them again.
func TestLedger_whatCouldNotBeReadIsNotOverwritten(t *testing.T) {
	k := newKit(t)
	l, other := k.ledger(), k.ledger()
	other.Save(t.Context(), again(5), job.Record{Attempts: 4, Deferrals: 1, Errors: []string{"4th"}, LastStatus: 500})
	down, cancel := context.WithCancel(t.Context())
	cancel()
	same := func(what string, got, want job.Record) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	same("unknown", l.Load(down, again(6)), job.Record{Unread: true})
	same("marked", l.Add(down, again(6), job.Record{Started: 1}), job.Record{Started: 1, Unread: true})
	want := job.Record{Attempts: 5, Deferrals: 1, Errors: []string{"4th", "5th"}, LastStatus: 500}
	same("read at last", l.Add(t.Context(), again(6), job.Record{Started: -1, Attempts: 1, Errors: []string{"5th"}}), want)
	same("another replica", other.Load(t.Context(), again(7)), want)

	l.Add(down, again(7), job.Record{Attempts: 1})
	want.Attempts = 6
	for range 2 { // it may be given back without a word
		same("written late", l.Load(t.Context(), again(8)), want)
	}
	same("remembered meanwhile", l.Load(down, again(8)), job.Record{
		Attempts: 6, Deferrals: 1, Errors: []string{"4th", "5th"}, LastStatus: 500, Unread: true,
	})
	want.Attempts = 7
	l.Save(t.Context(), again(8), want)
	same("written", other.Load(t.Context(), again(9)), want)
}

// TestLedger_addsToTheLaterOfMemoryAndBucket, whether they can be reached or not.
func TestLedger_addsToTheLaterOfMemoryAndBucket(t *testing.T) {
	k := newKit(t)
	down, cancel := context.WithCancel(t.Context())
	cancel()
	for n, c := range []struct {
		memory, bucket, want job.Record
	}{
		{job.Record{Attempts: 5, Started: 1}, job.Record{Attempts: 1}, job.Record{Attempts: 6}},
		{job.Record{Attempts: 1, Started: 1}, job.Record{Attempts: 7, Started: 2}, job.Record{Attempts: 8, Started: 1}},
		{job.Record{Started: 3}, job.Record{Started: 2}, job.Record{Attempts: 1, Started: 2}}, // the mark could not be written
	} {
		for _, twice := range []bool{false, true} {
			l := k.ledger()
			j := again(9)
			j.Sequence = uint64(10*n + 1)
			if twice {
				j.Sequence++
			}
			l.Save(t.Context(), j, c.bucket)
			l.Save(down, j, c.memory)
			if twice { // in vain, and again
				l.Add(down, j, job.Record{Started: -1})
				l.Add(down, j, job.Record{Attempts: 1})
			} else {
				l.Add(t.Context(), j, job.Record{Started: -1, Attempts: 1})
			}
			if got := l.Load(t.Context(), j); got.Started != c.want.Started || got.Attempts != c.want.Attempts {
				t.Errorf("case %d, twice %v: %+v, want %+v", n, twice, got, c.want)
			}
		}
	}
}

// bereft is a ledger whose bucket somebody has deleted.
func (k *kit) bereft() *attempts.Ledger {
	k.t.Helper()
	l := k.ledger()
	l.Save(k.t.Context(), again(2), job.Record{Attempts: 1})
	if err := k.js.DeleteKeyValue(k.t.Context(), "WORKERD_ATTEMPTS"); err != nil {
		k.t.Fatal(err)
	}
	return l
}

func TestLedger_makesTheBucketAgainWhenItWasDeleted(t *testing.T) {
	k := newKit(t)
	l := k.bereft()
	l.Save(t.Context(), again(3), job.Record{Attempts: 2}) // notices
	l.Save(t.Context(), again(4), job.Record{Attempts: 3})
	if got := k.ledger().Load(t.Context(), again(5)); got.Attempts != 3 {
		t.Errorf("another replica knows of %d attempts, want 3", got.Attempts)
	}
}

// TestLedger_makesTheBucketAgainWhoeverNoticesFirst: a job that comes again is looked up
// before anything is written.
func TestLedger_makesTheBucketAgainWhoeverNoticesFirst(t *testing.T) {
	k := newKit(t)
	l := k.bereft()
	for n := 3; n <= 4; n++ {
		l.Load(t.Context(), again(n))
		l.Add(t.Context(), again(n), job.Record{Attempts: 1})
	}
	if got := k.ledger().Load(t.Context(), again(5)); got.Attempts != 2 {
		t.Errorf("another replica knows of %d attempts, want the 2 since", got.Attempts)
	}
}

// TestLedger_aMarkIsTakenBackAlone: by who knows no more of the job than that.
func TestLedger_aMarkIsTakenBackAlone(t *testing.T) {
	k := newKit(t)
	l := k.ledger()
	l.Add(t.Context(), again(3), job.Record{Started: -1})
	if keys := k.keys(); len(keys) != 0 {
		t.Errorf("%q were written of a job of which nothing is known", keys)
	}
	for _, want := range []job.Record{{Attempts: 2, Started: 1}, {Started: 1}, {}} {
		l.Save(t.Context(), again(3), want)
		l.Add(t.Context(), again(3), job.Record{Started: 1})
		l.Add(t.Context(), again(3), job.Record{Started: -1})
		if diff := cmp.Diff(want, k.ledger().Load(t.Context(), again(4))); diff != "" {
			t.Error(diff)
		}
	}
}

func TestLedger_entriesAreBoundedAndKeysAreValid(t *testing.T) {
	k := newKit(t)
	l := k.ledger()
	j := again(2)
	j.Stream, j.Consumer = "a b$ü", "c"
	l.Save(t.Context(), j, job.Record{Attempts: 9, Errors: strings.Split(strings.Repeat(strings.Repeat("é", 400)+"\n", 20), "\n")})
	got := k.ledger().Load(t.Context(), j)
	size := 0
	for _, e := range got.Errors {
		size += len(e)
	}
	if got.Attempts != 9 || len(got.Errors) != 5 || size > 5*500 {
		t.Errorf("%d attempts, %d errors of %d bytes", got.Attempts, len(got.Errors), size)
	}
}

func TestLedger_garbageInTheBucketIsUnknown(t *testing.T) {
	k := newKit(t)
	l := k.ledger()
	l.Save(t.Context(), again(2), job.Record{Attempts: 1})
	kv, err := k.js.KeyValue(t.Context(), "WORKERD_ATTEMPTS")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), k.keys()[0], []byte("{garbage")); err != nil {
		t.Fatal(err)
	}
	if got := l.Load(t.Context(), again(3)); !cmp.Equal(got, job.Record{}) {
		t.Errorf("got %+v", got)
	}
	l.Save(t.Context(), again(3), job.Record{Attempts: 1})
	if got := l.Load(t.Context(), again(4)); got.Attempts != 1 {
		t.Errorf("%d attempts, want the one that was written over it", got.Attempts)
	}
}

func TestConfig_everyProblemIsReported(t *testing.T) {
	var fields []string
	attempts.Config{Bucket: "a b", TTL: 1, Replicas: 9}.Validate(func(field, _ string) { fields = append(fields, field) })
	if got := strings.Join(fields, " "); got != "bucket ttl replicas" {
		t.Errorf("problems with %q", got)
	}
	attempts.Config{}.WithDefaults().Validate(func(field, message string) { t.Errorf("the default: %s: %s", field, message) })
}
