package whatif

import (
	"path/filepath"
	"time"

	"github.com/workerd/workerd/internal/config"
)

// File is a file of config tests.
type File struct {
	// Config is the configuration to try, relative to this file.
	Config string `yaml:"config"`
	// Env are environment variables for its references, instead of the real ones.
	Env map[string]string `yaml:"env"`
	// Tests, each on a workerd of its own.
	Tests []Test `yaml:"tests"`
}

// Test is one scenario and what is expected of it.
type Test struct {
	// Name of the test, for people and --run. Required, unique.
	Name string `yaml:"name"`
	// Jobs that are published: one description or a list.
	Jobs []Jobs `yaml:"jobs" unit:"one"`
	// Targets say how each target behaves: one step or a list, one after the
	// other. The last one stays. A target that is left out answers 200.
	Targets map[string][]Step `yaml:"targets" unit:"one"`
	// NATS outages: the broker is restarted.
	NATS []Outage `yaml:"nats" unit:"one"`
	// Restarts of workerd itself, as by SIGTERM and a new start.
	Restarts []Restart `yaml:"restart" unit:"one"`
	// Limit of virtual time, 1s to 30d. Default: 48h.
	Limit time.Duration `yaml:"limit"`
	// Expect says what has to come out: names of numbers and what they must be
	// ("40", ">=1", "<200", "1..3"; within: 3m). Required.
	Expect map[string]string `yaml:"expect"`
}

// Jobs are jobs of a kind.
type Jobs struct {
	// Subject they are published to. Required.
	Subject string `yaml:"subject"`
	// Count of them, 1 to 100000. Default: 1.
	Count int `yaml:"count"`
	// At is when the first is published, from the start of the test.
	At time.Duration `yaml:"at"`
	// Every so often one is published. Default: all at once.
	Every time.Duration `yaml:"every"`
	// Body of each.
	Body string `yaml:"body"`
	// Headers of each.
	Headers map[string]string `yaml:"headers"`
	// ID of the job (Nats-Msg-Id), -1, -2 and so on appended if there are several.
	ID string `yaml:"id"`
}

// Step is how a target behaves for a while. Exactly one of status, hang and
// error is wanted, or disposition alone.
type Step struct {
	// For how long, from the end of the step before. Required but in the last.
	For time.Duration `yaml:"for"`
	// Status answered, 200 to 599.
	Status int `yaml:"status"`
	// Takes is how long an answer takes. Default: 10ms.
	Takes time.Duration `yaml:"takes"`
	// RetryAfter is the header of that name, in whole seconds.
	RetryAfter time.Duration `yaml:"retry_after"`
	// Disposition is the header Workerd-Disposition: ack, retry, dead or drop.
	Disposition string `yaml:"disposition"`
	// Body of the answer.
	Body string `yaml:"body"`
	// Hang: no answer comes.
	Hang bool `yaml:"hang"`
	// Error instead of an answer: connect, dns, reset or tls.
	Error string `yaml:"error"`
}

// Outage of the broker.
type Outage struct {
	// At is when it goes down, from the start of the test.
	At time.Duration `yaml:"at"`
	// Down is how long. Default: 5s.
	Down time.Duration `yaml:"down"`
}

// Restart of workerd.
type Restart struct {
	// At is when it is told to drain; another one starts as soon as it has ended.
	At time.Duration `yaml:"at"`
}

// WithDefaults fills in what was not said.
func (t Test) WithDefaults() Test {
	if t.Limit == 0 {
		t.Limit = 48 * time.Hour
	}
	for i := range t.Jobs {
		t.Jobs[i].Count = max(1, t.Jobs[i].Count)
	}
	for _, steps := range t.Targets {
		for i := range steps {
			steps[i] = steps[i].withDefaults()
		}
	}
	for i := range t.NATS {
		if t.NATS[i].Down == 0 {
			t.NATS[i].Down = 5 * time.Second
		}
	}
	return t
}

func (s Step) withDefaults() Step {
	if s.Takes == 0 {
		s.Takes = 10 * time.Millisecond
	}
	if s.Status == 0 && s.Disposition != "" {
		s.Status = 200
	}
	return s
}

// Source is a file as it was read: enough to read it again in another process.
type Source struct {
	// Name and Text of the test file, ConfigName and Config of the
	// configuration it names.
	Name, ConfigName string
	Text, Config     []byte
}

// Suite is a test file that is valid, with its configuration.
type Suite struct {
	Source Source
	Config *config.File
	Tests  []Test
}

// Load reads a test file and, by read, the configuration it names. The problems
// are those of either. The suite is nil if one of them is an error; the error is
// that of read.
func Load(name string, text []byte, lookup config.Env, read func(name string) ([]byte, error)) (*Suite, config.Problems, error) {
	var file File
	doc := config.Decode(name, text, lookup, &file)
	if file.Config == "" {
		doc.Problem(config.CodeRequired, "config", "a test file needs the configuration it tests", "add config: workerd.yaml")
		return nil, doc.Problems(), nil
	}
	source := Source{Name: name, Text: text, ConfigName: file.Config}
	if !filepath.IsAbs(file.Config) {
		source.ConfigName = filepath.Join(filepath.Dir(name), file.Config)
	}
	var err error
	if source.Config, err = read(source.ConfigName); err != nil {
		return nil, doc.Problems(), err
	}
	return source.parse(doc, file, lookup)
}

// parse reads the configuration and compares the tests with it.
func (s Source) parse(doc *config.Document, file File, lookup config.Env) (*Suite, config.Problems, error) {
	cfg, problems := config.Load(s.ConfigName, s.Config, func(name string) (string, bool) {
		if v, ok := file.Env[name]; ok {
			return v, true
		}
		return lookup(name)
	})
	suite := &Suite{Source: s, Config: cfg}
	for _, t := range file.Tests {
		suite.Tests = append(suite.Tests, t.WithDefaults())
	}
	if cfg != nil {
		suite.check(doc)
	}
	if bad := append(problems.Errors(), doc.Problems().Errors()...); len(bad) > 0 {
		return nil, bad, nil
	}
	return suite, nil, nil
}

// again reads a source that has been read before.
func (s Source) again(lookup config.Env) (*Suite, config.Problems, error) {
	return Load(s.Name, s.Text, lookup, func(string) ([]byte, error) { return s.Config, nil })
}
