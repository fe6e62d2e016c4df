package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"
)

// streams are the two that a replay is about.
func streams(ts *testscript.TestScript) (js jetstream.JetStream, jobs, letters jetstream.Stream) {
	nc, err := nats.Connect(ts.Getenv("NATS_URL"))
	ts.Check(err)
	ts.Defer(nc.Close)
	js, err = jetstream.New(nc)
	ts.Check(err)
	ctx := context.Background()
	jobs, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs.>"}, Retention: jetstream.WorkQueuePolicy})
	ts.Check(err)
	letters, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "WORKERD_DLQ", Subjects: []string{"workerd.dlq.>"}})
	ts.Check(err)
	return js, jobs, letters
}

func letters(ts *testscript.TestScript, _ bool, args []string) {
	js, jobs, _ := streams(ts)
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	info, err := jobs.Info(context.Background())
	ts.Check(err)
	for i := range n {
		name := strconv.Itoa(int(info.State.LastSeq) + i)
		_, err := js.PublishMsg(context.Background(), &nats.Msg{Subject: "workerd.dlq.p", Data: []byte("job " + name), Header: nats.Header{
			"Workerd-Dlq-Stream": {"JOBS"}, "Workerd-Dlq-Sequence": {strconv.Itoa(1000 + i)}, "Workerd-Dlq-Subject": {"jobs.a"},
		}})
		ts.Check(err)
	}
}

func killed(ts *testscript.TestScript, _ bool, args []string) {
	times, err := strconv.Atoi(args[0])
	ts.Check(err)
	for i := range times {
		name := fmt.Sprintf("killed%d", i)
		startDaemon(ts, false, append([]string{name}, args[1:]...))
		p := started(ts, name)
		after := time.NewTimer(time.Duration(50+rand.IntN(350)) * time.Millisecond)
		select {
		case <-after.C:
		case <-p.done:
		}
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
	}
}

func underway(ts *testscript.TestScript, _ bool, args []string) {
	_, jobs, _ := streams(ts)
	want, err := strconv.ParseUint(args[0], 10, 64)
	ts.Check(err)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		info, err := jobs.Info(context.Background())
		ts.Check(err)
		if info.State.Msgs >= want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%d jobs after 20 s, want %d", info.State.Msgs, want)
		}
	}
}

func once(ts *testscript.TestScript, _ bool, args []string) {
	_, jobs, _ := streams(ts)
	info, err := jobs.Info(context.Background())
	ts.Check(err)
	seen := map[string]bool{}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := jobs.GetMsg(context.Background(), seq)
		ts.Check(err)
		if seen[string(m.Data)] {
			ts.Fatalf("%s was sent twice", m.Data)
		}
		seen[string(m.Data)] = true
	}
	if got := strconv.Itoa(len(seen)); got != args[0] {
		ts.Fatalf("%s jobs were sent, want %s", got, args[0])
	}
}

// TestRows_fitTheirTerminal: no line is longer, whatever the letters say.
func TestRows_fitTheirTerminal(t *testing.T) {
	for _, width := range []int{80, 100, 120} {
		r := newRows(nil, 2, "SEQ", "AGE", "POOL", "JOB", "CAUSE", "GROUP")
		r.add("100021", "59m ago", strings.Repeat("p", 50), strings.Repeat("日本", 40), strings.Repeat("wörter und 言葉 ", 30), "7c01f2")
		r.add("1", "now", "p", "\x1b[31mred", "line\nend\u202e", "7c01f2")
		for line := range strings.Lines(r.render(width)) {
			if n := len([]rune(line)) - 1; strings.HasPrefix(line, "╭") && n > width {
				t.Errorf("%d columns at width %d:\n%s", n, width, line)
			}
			if strings.ContainsAny(line, "\x1b\u202e") {
				t.Errorf("acts on the terminal: %q", line)
			}
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 4812: "4,812", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

func TestProgress_line(t *testing.T) {
	p := &progress{verb: "replaying", total: 4812, tty: true}
	if got, want := p.line(2914, 58*time.Second), "replaying  ████████████░░░░░░░░  2,914 / 4,812  50/s  ETA 38s"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	p.tty = false
	if got, want := p.line(9000, time.Second), "replaying  9,000 / 4,812  9000/s"; got != want { // more came than were counted
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestShown_payloads(t *testing.T) {
	long := strings.Repeat("a", shownText+7)
	for payload, want := range map[string]string{
		"": "", "a": "a\n", "a\n": "a\n", "a\tb\x1b[2J": "a\tb\\x1b[2J\n", "\xff": "00000000  ff", long: "… and 7 bytes more",
	} {
		if got := shown([]byte(payload)); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%.20q is shown as %.60q, want %q", payload, got, want)
		}
	}
}

func TestWriteFile_appearsWhenItIsComplete(t *testing.T) {
	name := t.TempDir() + "/letters.jsonl"
	err := writeFile(name, func(w io.Writer) error {
		if _, err := os.Stat(name); err == nil {
			t.Error("it is there before it is written")
		}
		return errors.New("no")
	})
	if err == nil {
		t.Error("no error")
	}
	if left, _ := os.ReadDir(filepath.Dir(name)); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	if err := writeFile(name, func(w io.Writer) error { _, err := io.WriteString(w, "x"); return err }); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(name); string(b) != "x" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
