package queue

import (
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Verb is what is done with a subject.
type Verb string

// The verbs NATS knows permissions for.
const (
	Publish   Verb = "publish"
	Subscribe Verb = "subscribe"
)

// Need is how much depends on a permission.
type Need uint8

// The needs, from the greatest.
const (
	// Required: without it jobs cannot be worked on.
	Required Need = iota
	// Creates something that is absent: not needed once it exists.
	Creates
	// Useful: without it something is not seen, or not warned of.
	Useful
)

// Permission is a subject workerd has to be allowed to use. Packages that talk
// to NATS state theirs; the list of all is what is checked at the start and
// what `workerd nats-permissions` prints.
type Permission struct {
	Verb    Verb
	Subject string
	// For says what it is needed for, as the end of "needed to …".
	For  string
	Need Need
	// Probe is a subject without wildcards that stands for Subject when it is
	// found out whether it is permitted. Empty: Subject itself.
	Probe string
	// Body is published there: something that has no effect, and that the
	// server does not write into its log.
	Body string
	// Overheard: somebody else may listen, so it is tried after a connection
	// was made only, and not now and then.
	Overheard bool
	// Untried: somebody else listens for sure, so it is not tried at all. That it is
	// missing shows when it is needed.
	Untried bool
}

// API is the subject of a JetStream API call.
func (c Config) API(call string) string {
	if c.JetstreamDomain != "" {
		return "$JS." + c.JetstreamDomain + ".API." + call
	}
	return jetstream.DefaultAPIPrefix + call
}

// ConnPermissions are what every connection needs.
func (c Config) ConnPermissions() []Permission {
	return []Permission{{
		Verb: Subscribe, Subject: c.InboxPrefix + ".>", Probe: c.InboxPrefix + ".probe", For: "receive jobs, answers and confirmations",
	}}
}

// StreamPermissions are what it takes to create a stream if it is absent.
func (c Config) StreamPermissions(name string) []Permission {
	return []Permission{
		{Verb: Publish, Subject: c.API("STREAM.INFO." + name), For: "look at stream " + name + ": whether it exists, and which jobs it has dropped", Need: Useful},
		c.CreatePermission("STREAM.CREATE."+name, `{"name":"-"}`, "stream "+name),
	}
}

// CreatePermission is what it takes to create something that is absent. Body is
// a request for another name than the call's, which creates nothing.
func (c Config) CreatePermission(call, body, what string) Permission {
	return Permission{Verb: Publish, Subject: c.API(call), Body: body, For: "create " + what + " if it is absent", Need: Creates, Overheard: true}
}

// SourcePermissions are what it takes to work on the jobs of a consumer.
func (c Config) SourcePermissions(s SourceConfig) []Permission {
	name := s.Stream + "." + s.Consumer
	create := "CONSUMER.CREATE." + name
	if len(s.Subjects) == 1 {
		create += "." + s.Subjects[0]
	}
	return []Permission{
		{Verb: Publish, Subject: c.API("CONSUMER.INFO." + name), For: "find consumer " + s.Consumer},
		c.CreatePermission(create, `{"stream_name":"-","config":{}}`, "consumer "+s.Consumer),
		{Verb: Publish, Subject: c.API("CONSUMER.MSG.NEXT." + name), For: "ask consumer " + s.Consumer + " for jobs"},
		{Verb: Publish, Subject: "$JS.ACK." + name + ".>", Probe: "$JS.ACK." + name + ".1.0.0.0.0", Body: "?", For: "acknowledge jobs of consumer " + s.Consumer},
		// The form newer servers can be told to use, with domain and account.
		{
			Verb: Publish, Subject: "$JS.ACK.*.*." + name + ".>", Probe: "$JS.ACK._.probe." + name + ".1.0.0.0.0", Body: "?",
			For: "acknowledge jobs of consumer " + s.Consumer + " on servers with the newer ack subjects", Need: Useful,
		},
		{Verb: Publish, Subject: c.API("STREAM.INFO." + s.Stream), For: "look at stream " + s.Stream + ": whether it exists, and which jobs it has dropped", Need: Useful},
	}
}

// CorePermissions are what it takes to serve a subject of core NATS for a pool.
// A requester with inboxes of another name is answered only if the user may
// publish there, or may publish responses.
func (c Config) CorePermissions(pool, subject string) []Permission {
	return []Permission{
		{Verb: Subscribe, Subject: subject, For: "receive the jobs of pool " + pool},
		PublishPermission(nats.InboxPrefix+">", "answer the requests to pool "+pool+" (or allow_responses)", Useful),
	}
}

// PublishPermission is what it takes to publish to the subjects of a filter, which
// belong to others.
func PublishPermission(filter, purpose string, need Need) Permission {
	return Permission{Verb: Publish, Subject: filter, For: purpose, Need: need, Untried: true}
}

// Distinct sorts permissions by verb and subject and leaves each only once, as
// the one that matters most.
func Distinct(all []Permission) []Permission {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Permission) int {
		if c := strings.Compare(string(a.Verb)+" "+a.Subject, string(b.Verb)+" "+b.Subject); c != 0 {
			return c
		}
		return int(a.Need) - int(b.Need)
	})
	return slices.CompactFunc(all, func(a, b Permission) bool { return a.Verb == b.Verb && a.Subject == b.Subject })
}

// sentence says that a permission is missing, and what it means.
func (p Permission) sentence() string {
	text := "NATS does not permit this user to " + string(p.Verb) + " to " + p.Subject
	if p.For == "" { // something the list does not have
		return text
	}
	return text + ", needed to " + p.For
}
