package queue

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/workerd/workerd/internal/secret"
)

// Config says how to reach NATS. The keys are those of a nats CLI context.
type Config struct {
	// URL of one or more NATS servers, separated by commas.
	// Default: nats://127.0.0.1:4222.
	URL string `yaml:"url"`
	// Embedded runs the broker inside this process instead of connecting to
	// one: for development, the edge and single machines. It listens on
	// 127.0.0.1:4222 or on the port of url. Default: false.
	Embedded bool `yaml:"embedded"`
	// StoreDir is where the embedded broker keeps its streams.
	// Default: ./workerd-data. Only with embedded.
	StoreDir string `yaml:"store_dir"`
	// Creds is the path of a credentials file (JWT and seed). It is read
	// again at every reconnect.
	Creds string `yaml:"creds"`
	// NKey is the path of an nkey seed file.
	NKey string `yaml:"nkey"`
	// User and password of a NATS account.
	User string `yaml:"user"`
	// Password that belongs to user.
	Password secret.Secret `yaml:"password"`
	// Token instead of user and password.
	Token secret.Secret `yaml:"token"`
	// CA is the path of a PEM file with the authorities that may have signed
	// the server's certificate. Default: those of the system.
	CA string `yaml:"ca"`
	// Cert is the path of the client certificate (PEM).
	Cert string `yaml:"cert"`
	// Key is the path of the client certificate's key (PEM).
	Key string `yaml:"key"`
	// TLSFirst makes the TLS handshake before the server's greeting.
	TLSFirst bool `yaml:"tls_first"`
	// JetstreamDomain names the JetStream domain of the streams, as behind a
	// leaf node. Default: none.
	JetstreamDomain string `yaml:"jetstream_domain"`
	// InboxPrefix of the reply subjects; give each application its own so
	// that it can be permitted alone. Default: _INBOX.
	InboxPrefix string `yaml:"inbox_prefix"`
	// Name of the connection as the server lists it; the host is appended.
	// Default: workerd.
	Name string `yaml:"name"`
}

// DefaultURL of the broker.
const DefaultURL = "nats://127.0.0.1:4222"

// WithDefaults fills in what was not said.
func (c Config) WithDefaults() Config {
	if c.URL == "" {
		c.URL = DefaultURL
	}
	if c.StoreDir == "" && c.Embedded {
		c.StoreDir = "./workerd-data"
	}
	if c.InboxPrefix == "" {
		c.InboxPrefix = "_INBOX"
	}
	if c.Name == "" {
		c.Name = "workerd"
	}
	return c
}

// Address is the URL without user and password, fit to be shown.
func (c Config) Address() string {
	var shown []string
	for u := range strings.SplitSeq(c.URL, ",") {
		parsed, err := url.Parse(strings.TrimSpace(u))
		if err != nil {
			continue
		}
		parsed.User = nil
		shown = append(shown, parsed.String())
	}
	return strings.Join(shown, ",")
}

// Validate reports every problem.
func (c Config) Validate(problem func(field, message string)) {
	for u := range strings.SplitSeq(c.URL, ",") {
		parsed, err := url.Parse(strings.TrimSpace(u))
		if err != nil || parsed.Host == "" {
			problem("url", fmt.Sprintf("%q is not a NATS address, use nats://host:4222", u))
			continue
		}
		switch parsed.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			problem("url", fmt.Sprintf("scheme %q is not allowed, use nats, tls, ws or wss", parsed.Scheme))
		}
	}
	if (c.Cert == "") != (c.Key == "") {
		problem("cert", "cert and key belong together: give both or none")
	}
	if c.Password != "" && c.User == "" {
		problem("password", "password needs user")
	}
	if strings.ContainsAny(c.InboxPrefix, "*> \t") || strings.HasSuffix(c.InboxPrefix, ".") {
		problem("inbox_prefix", fmt.Sprintf("%q is not a subject prefix: no wildcards, no spaces, no final dot", c.InboxPrefix))
	}
	if !c.Embedded && c.StoreDir != "" {
		problem("store_dir", "store_dir belongs to the embedded broker: set embedded: true or remove it")
	}
}

// StreamConfig describes a stream that is created if it is absent. A stream
// that exists is never changed; a difference is reported.
type StreamConfig struct {
	// Subjects the stream takes up. Required.
	Subjects []string `yaml:"subjects"`
	// Retention: workqueue (a job is deleted when it is done), limits or
	// interest. Default: workqueue.
	Retention string `yaml:"retention"`
	// Storage: file or memory. Default: file.
	Storage string `yaml:"storage"`
	// Replicas of the stream, 1 to 5. 3 survives the loss of a server and
	// confirmed work is not repeated after one. Default: 1.
	Replicas int `yaml:"replicas"`
	// MaxAge after which the stream drops a job, done or not. 0: never.
	MaxAge time.Duration `yaml:"max_age"`
	// MaxBytes the stream may hold; further publishes are refused. 0: no limit.
	MaxBytes int64 `yaml:"max_bytes" unit:"size"`
	// DuplicateWindow within which a Nats-Msg-Id is taken once. Default: 2m.
	DuplicateWindow time.Duration `yaml:"duplicate_window"`
}

// WithDefaults fills in what was not said.
func (c StreamConfig) WithDefaults() StreamConfig {
	if c.Retention == "" {
		c.Retention = "workqueue"
	}
	if c.Storage == "" {
		c.Storage = "file"
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.DuplicateWindow == 0 {
		c.DuplicateWindow = 2 * time.Minute
		if c.MaxAge > 0 {
			c.DuplicateWindow = min(c.DuplicateWindow, c.MaxAge)
		}
	}
	return c
}

// Validate reports every problem.
func (c StreamConfig) Validate(problem func(field, message string)) {
	if len(c.Subjects) == 0 {
		problem("subjects", "a stream needs at least one subject")
	}
	for i, s := range c.Subjects {
		if err := CheckSubject(s); err != nil {
			problem(fmt.Sprintf("subjects[%d]", i), err.Error())
		}
	}
	switch c.Retention {
	case "workqueue", "limits", "interest":
	default:
		problem("retention", fmt.Sprintf("%q is not allowed, use workqueue, limits or interest", c.Retention))
	}
	switch c.Storage {
	case "file", "memory":
	default:
		problem("storage", fmt.Sprintf("%q is not allowed, use file or memory", c.Storage))
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		problem("replicas", fmt.Sprintf("%d is not allowed, use 1 to 5", c.Replicas))
	}
	if c.MaxAge < 0 || c.MaxAge > 0 && c.MaxAge < time.Second {
		problem("max_age", fmt.Sprintf("%s is not allowed, use 1s or more, or leave it out", c.MaxAge))
	}
	if c.MaxBytes < 0 {
		problem("max_bytes", "a negative size is not allowed")
	}
	if c.DuplicateWindow < 0 || c.MaxAge > 0 && c.DuplicateWindow > c.MaxAge {
		problem("duplicate_window", fmt.Sprintf("%s is not allowed, use at most max_age", c.DuplicateWindow))
	}
}

// CheckSubject says what is wrong with a subject filter, nil if nothing.
// Wildcards (* for one token, > for the rest) are allowed.
func CheckSubject(s string) error {
	if s == "" {
		return fmt.Errorf("an empty subject is not allowed")
	}
	if strings.ContainsAny(s, " \t\r\n") {
		return fmt.Errorf("subject %q: spaces are not allowed", s)
	}
	tokens := strings.Split(s, ".")
	for i, token := range tokens {
		switch {
		case token == "":
			return fmt.Errorf("subject %q: an empty token is not allowed", s)
		case token == ">" && i != len(tokens)-1:
			return fmt.Errorf("subject %q: > is only allowed at the end", s)
		case len(token) > 1 && strings.ContainsAny(token, "*>"):
			return fmt.Errorf("subject %q: a wildcard stands alone in its token", s)
		}
	}
	return nil
}

// SubjectsOverlap tells whether some subject matches both filters.
func SubjectsOverlap(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := 0; i < len(as) && i < len(bs); i++ {
		if as[i] == ">" || bs[i] == ">" {
			return true
		}
		if as[i] != bs[i] && as[i] != "*" && bs[i] != "*" {
			return false
		}
	}
	return len(as) == len(bs)
}
