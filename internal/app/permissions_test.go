package app_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/workerd/workerd/internal/app"
	"github.com/workerd/workerd/internal/broker"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/natstest"
	"github.com/workerd/workerd/internal/queue"
)

// newRestrictedKit has a broker that asks for names; whoever gives none is admin.
func newRestrictedKit(t *testing.T) *kit {
	return newKitOn(t, natstest.StartFor(t, access()))
}

func access(more ...broker.User) broker.Access {
	return broker.Access{Users: append(more, broker.User{Name: "admin", Password: "admin"}), Anonymous: "admin"}
}

// permit lets workerd in with these permissions only; the test's own client,
// which gives no name, may do everything.
func (k *kit) permit(all []queue.Permission) {
	k.t.Helper()
	u := broker.User{Name: "workerd", Password: "secret", Publish: []string{}, Subscribe: []string{}}
	for _, p := range all {
		if p.Verb == queue.Publish {
			u.Publish = append(u.Publish, p.Subject)
		} else {
			u.Subscribe = append(u.Subscribe, p.Subject)
		}
	}
	k.broker.Admit(access(u))
}

// loadRestricted is a configuration whose user is not the test's.
func (k *kit) loadRestricted() *config.File {
	k.t.Helper()
	cfg := k.load(described)
	cfg.NATS.User, cfg.NATS.Password, cfg.NATS.InboxPrefix = "workerd", "secret", "_INBOX_workerd"
	return cfg
}

// TestPermissions_areEnoughForEverything: creating what is absent, jobs, retries
// (which are counted), dead letters, a restart of the broker and a drain, as
// the user that `workerd nats-permissions` describes. Nothing is refused.
func TestPermissions_areEnoughForEverything(t *testing.T) {
	t.Parallel()
	k := newRestrictedKit(t)
	failed := map[string]bool{}
	k.decide = func(body string) int {
		k.mu.Lock()
		defer k.mu.Unlock()
		switch {
		case body == "7":
			return http.StatusUnprocessableEntity
		case (body == "3" || body == "5") && !failed[body]:
			failed[body] = true
			return http.StatusInternalServerError
		}
		return http.StatusOK
	}
	cfg := k.loadRestricted()
	k.permit(app.Permissions(cfg))
	d := k.run(cfg)
	d.awaitReady()
	k.publish(20)
	await(t, "the jobs are done", func() bool { j := d.Status().Pools[0].Jobs; return j.OK == 19 && j.Dead == 1 })
	k.broker.Restart()
	await(t, "connected again", func() bool { return d.Status().Ready })
	await(t, "more can be published", func() bool {
		_, err := k.js.Publish(t.Context(), "jobs.a", []byte("20"))
		return err == nil
	})
	await(t, "it is done", func() bool { return d.Status().Pools[0].Jobs.OK >= 20 })
	if dead, err := k.js.Stream(t.Context(), cfg.DLQ.Stream); err != nil || dead.CachedInfo().State.Msgs != 1 {
		t.Errorf("the dead letter is not stored: %v", err)
	}
	if kv, err := k.js.Stream(t.Context(), "KV_"+cfg.Attempts.Bucket); err != nil || kv.CachedInfo().State.LastSeq < 2 {
		t.Errorf("the attempts were not counted: %v", err)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(strings.ToLower(line), "permi") {
			t.Errorf("something was refused: %s", line)
		}
	}
}

// TestPermissions_eachThatIsMissingIsNamed, one after the other, while workerd
// runs; and it heals when it is given back.
func TestPermissions_eachThatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	k := newRestrictedKit(t)
	cfg := k.loadRestricted()
	all := app.Permissions(cfg)
	k.permit(all)
	d := k.run(cfg)
	d.awaitReady()
	healed := func(p queue.Permission) bool {
		return p.Subject == "" || strings.Contains(d.log.String(), fmt.Sprintf("permission=%q", "publish "+p.Subject))
	}
	var last queue.Permission
	for i, missing := range all {
		if missing.Overheard || missing.Verb == queue.Subscribe {
			continue // tried after a connection was made only: the next test
		}
		k.permit(slices.Delete(slices.Clone(all), i, i+1))
		sentence := "NATS does not permit this user to publish to " + missing.Subject + ", needed to "
		await(t, missing.Subject+" is missed", func() bool { return strings.Contains(d.log.String(), sentence) })
		await(t, last.Subject+" is permitted again", func() bool { return healed(last) })
		if missing.Need == queue.Required {
			await(t, "it is not ready", func() bool {
				code, body := d.get("/readyz")
				return code == http.StatusServiceUnavailable && strings.Contains(body, sentence)
			})
		}
		last = missing
	}
	k.permit(all)
	await(t, "all is well again", func() bool { return healed(last) && d.Status().Ready })
}

func TestPermissions_whatIsMissingAtTheStartIsNamed(t *testing.T) {
	t.Parallel()
	k := newRestrictedKit(t)
	cfg := k.loadRestricted()
	k.permit([]queue.Permission{})
	d := k.run(cfg)
	for _, p := range app.Permissions(cfg) {
		await(t, p.Subject+" is missed", func() bool {
			return strings.Contains(d.log.String(), "NATS does not permit this user to "+string(p.Verb)+" to "+p.Subject+", needed to ")
		})
	}
	k.permit(app.Permissions(cfg))
	await(t, "it heals, subscriptions too", func() bool { return d.Status().Ready })
	_, err := k.js.Publish(context.Background(), "jobs.a", nil)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "and works", func() bool { return d.Status().Pools[0].Jobs.OK == 1 })
}

// TestPermissions_tryingThemChangesNothing: no stream, no consumer, no message.
func TestPermissions_tryingThemChangesNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	heard, err := k.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "EVERYTHING", Subjects: []string{"workerd.>", "$KV.>"}})
	if err != nil {
		t.Fatal(err)
	}
	d := k.start("")
	await(t, "permissions were tried", func() bool { return strings.Contains(d.log.String(), "stream JOBS does not exist") })
	if i, err := heard.Info(t.Context()); err != nil || i.State.LastSeq != 0 {
		t.Errorf("%d messages were stored (%v)", i.State.LastSeq, err)
	}
	if _, err := k.js.Stream(t.Context(), "JOBS"); err == nil {
		t.Error("a stream was created that nobody described")
	}
}

// TestPermissions_toRequestersResultsAndShelves: whoever asks a pool of core NATS
// is answered, who published a job is told, what the target does not do is
// parked; and nobody hears that permissions are tried.
func TestPermissions_toRequestersResultsAndShelves(t *testing.T) {
	t.Parallel()
	k := newRestrictedKit(t)
	k.answer.Store(http.StatusBadRequest)
	if _, err := k.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "SHELF", Subjects: []string{"shelf.>"}}); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`
nats: {url: %q, user: workerd, password: secret, inbox_prefix: _INBOX_workerd}
streams: {JOBS: {subjects: ["jobs.>"]}}
targets:
  refuses: {http: {url: %q}, fallback: [{publish: shelf.refused, on: [permanent]}]}
pools:
  asked: {target: refuses, core: {subject: "rpc.>"}}
  told: {target: refuses, stream: JOBS, subjects: {normal: ["jobs.>"]}, results: {subjects: ["results.>"]}}
admin: {listen: "127.0.0.1:0"}`, k.broker.URL(), k.down.URL)
	cfg, problems := config.Load("test.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if cfg == nil {
		t.Fatal(problems)
	}
	k.permit(app.Permissions(cfg))
	told, err := k.js.Conn().SubscribeSync("results.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := k.js.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	d := k.run(cfg)
	d.awaitReady()
	await(t, "a request is answered", func() bool {
		_, err := k.js.Conn().Request("rpc.x", nil, time.Second)
		return err == nil
	})
	m := &nats.Msg{Subject: "jobs.a", Header: nats.Header{"Workerd-Reply-To": {"results.mine"}}}
	if _, err := k.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if m, err := told.NextMsg(15 * time.Second); err != nil || m.Header.Get("Workerd-Outcome") == "" {
		t.Fatalf("%v (%v), want what became of the job", m, err)
	}
	await(t, "both are parked", func() bool {
		s, err := k.js.Stream(t.Context(), "SHELF")
		return err == nil && s.CachedInfo().State.Msgs == 2
	})
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(strings.ToLower(line), "permi") {
			t.Errorf("something was refused: %s", line)
		}
	}
}
