package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/workerd/workerd/internal/broker"
)

// With WORKERD_E2E_LEAST=1 each workerd connects as a user that may do what
// `workerd nats-permissions` prints for its configuration, and nothing else.
// The tests' own clients give no name and are admin.
func least() bool { return os.Getenv("WORKERD_E2E_LEAST") == "1" }

const leastUser, leastPassword = "least", "secret"

// permitted is what the command prints.
type permitted struct{ Publish, Subscribe []string }

// running are the brokers by port.
var running sync.Map

// admitted is the access of a broker, kept in its directory over restarts.
func admitted(dir string) broker.Access {
	if !least() {
		return broker.Access{}
	}
	var p permitted
	if text, err := os.ReadFile(filepath.Join(dir, "permitted.json")); err == nil {
		_ = json.Unmarshal(text, &p) // nobody may do anything then
	}
	return broker.Access{
		Users: []broker.User{
			{Name: leastUser, Password: leastPassword, Publish: append([]string{}, p.Publish...), Subscribe: append([]string{}, p.Subscribe...)},
			{Name: "admin", Password: "admin"},
			{Name: "someone", Password: canaries()["the URL's user info"]}, // whose secrets are looked for
		},
		Anonymous: "admin",
	}
}

// serveUntilEOF admits what the parent says, a line each, until it is gone.
func serveUntilEOF(s *broker.Server, dir string, in io.Reader) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		err := remember(dir, lines.Bytes())
		if err == nil {
			err = s.Admit(admitted(dir))
		}
		if err != nil {
			fmt.Println("not admitted:", err)
			continue
		}
		fmt.Println("admitted")
	}
}

// remember adds what a command has printed to what a broker permits when it
// is started.
func remember(dir string, list []byte) error {
	var more, all permitted
	file := filepath.Join(dir, "permitted.json")
	if text, err := os.ReadFile(file); err == nil {
		_ = json.Unmarshal(text, &all)
	}
	if err := json.Unmarshal(list, &more); err != nil {
		return err
	}
	all.Publish, all.Subscribe = append(all.Publish, more.Publish...), append(all.Subscribe, more.Subscribe...)
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

var plainURL = regexp.MustCompile(`nats: \{url: "(nats://127\.0\.0\.1:(\d+))"\}`)

// restrict makes a configuration connect as the least user, once its broker has
// been told what that is. One that names a user stays as it is.
func restrict(t *testing.T, file, config string) {
	t.Helper()
	m := plainURL.FindStringSubmatch(config)
	if m == nil {
		return
	}
	n, ok := running.Load(m[2])
	if !ok {
		return
	}
	list, err := exec.Command(binary, "nats-permissions", "-o", "json", file).Output()
	if err != nil {
		t.Fatalf("nats-permissions: %v", err)
	}
	n.(*natsProcess).admit(list)
	config = strings.Replace(config, m[0], fmt.Sprintf("nats: {url: %q, user: %s, password: %s}", m[1], leastUser, leastPassword), 1)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n *natsProcess) admit(list []byte) {
	n.t.Helper()
	if n.cmd == nil { // it is down
		if err := remember(n.dir, list); err != nil {
			n.t.Fatal(err)
		}
		return
	}
	if _, err := n.hold.Write(list); err != nil {
		n.t.Fatal(err)
	}
	if line, err := n.out.ReadString('\n'); line != "admitted\n" {
		n.t.Fatalf("broker says %q (%v)", line, err)
	}
}
