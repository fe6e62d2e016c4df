package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/queue"
	"github.com/workerd/workerd/internal/secret"
)

// clientTimeout bounds one request of a client command.
const clientTimeout = 5 * time.Second

func publishCommand() *cli.Command {
	return &cli.Command{
		Name: "publish", Usage: "Send a job and wait until the stream has it", ArgsUsage: "SUBJECT [BODY|@FILE|-]",
		Description: "The body is an argument, a file or standard input. The subject decides on\npool and priority.\n\n" +
			"Example: workerd publish jobs.email.normal '{\"to\":\"a@b.org\"}' --id mail-42",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "id", Usage: "job `ID`, taken once within the stream's duplicate window"},
			&cli.DurationFlag{Name: "ttl", Usage: "start it within this `TIME`", DefaultText: "no limit"},
			&cli.GenericFlag{Name: "header", Aliases: []string{"H"}, Usage: "header as `KEY:VALUE`, may be repeated", Value: &headers{}},
			&cli.IntFlag{Name: "count", Usage: "send it `N` times (not with --id)", Value: 1},
		}, natsFlags()...),
		Action: publish,
	}
}

// natsFlags are those of the nats command, with its environment variables.
func natsFlags() []cli.Flag {
	text := func(name, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Usage: usage, EnvVars: []string{"NATS_" + strings.ToUpper(name)}}
	}
	return []cli.Flag{
		&cli.StringFlag{Name: "server", Aliases: []string{"s"}, Usage: "of the NATS server", EnvVars: []string{"NATS_URL"}, Value: nats.DefaultURL},
		text("creds", "credentials `FILE`"), text("nkey", "nkey seed `FILE`"),
		text("user", "user `NAME`"), text("password", "password of the user"), text("token", "token"),
		text("ca", "`FILE` with the CA to trust"), text("cert", "client certificate `FILE`"), text("key", "its key `FILE`"),
	}
}

// headers is a flag that may be repeated.
type headers struct{ h nats.Header }

// Set implements [flag.Value].
func (h *headers) Set(s string) error {
	key, value, ok := strings.Cut(s, ":")
	if key = strings.TrimSpace(key); !ok || key == "" {
		return errors.New("want KEY:VALUE")
	}
	if h.h == nil {
		h.h = nats.Header{}
	}
	h.h.Add(key, strings.TrimSpace(value))
	return nil
}

// String implements [flag.Value]. There is no default to show.
func (h *headers) String() string { return "" }

func (h *headers) kind() string { return "KEY:VALUE" }

func publish(c *cli.Context) error {
	m, err := message(c)
	if err != nil {
		return err
	}
	nc, err := connectNATS(c)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	var ack *jetstream.PubAck
	for n := range c.Int("count") {
		if ack, err = send(c.Context, js, m); err != nil {
			return refused(m.Subject, n, err)
		}
	}
	note := ""
	if ack.Duplicate {
		note = " (a duplicate: the stream had it already)"
	}
	fmt.Fprintf(c.App.Writer, "published %s to stream %s, last sequence %d%s\n", plural(c.Int("count"), "job"), ack.Stream, ack.Sequence, note)
	return nil
}

func send(ctx context.Context, js jetstream.JetStream, m *nats.Msg) (*jetstream.PubAck, error) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	return js.PublishMsg(ctx, m)
}

// refused explains why a job is not in a stream, after n others that are.
func refused(subject string, n int, err error) error {
	before := ""
	if n > 0 {
		before = fmt.Sprintf(" (%s before it were)", plural(n, "job"))
	}
	hint := ""
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		hint = "no stream takes this subject: describe one under streams: in the configuration and run workerd, or see `nats stream subjects`"
	}
	return fail(exitFailure, hint, "the job was not accepted on %s%s: %w", subject, before, err)
}

// message makes the job of the arguments.
func message(c *cli.Context) (*nats.Msg, error) {
	m := nats.NewMsg(c.Args().First())
	if m.Subject == "" {
		return nil, fail(exitUsage, helpHint(c), "publish needs a subject")
	}
	if strings.ContainsAny(m.Subject, " \t\r\n*>") {
		return nil, fail(exitUsage, helpHint(c), "subject %q is not allowed: no spaces, and no * and > in a job's own subject", m.Subject)
	}
	if err := notNegative(c, "ttl"); err != nil {
		return nil, err
	}
	if h, ok := c.Generic("header").(*headers); ok && h.h != nil {
		m.Header = h.h
	}
	switch id, count := c.String("id"), c.Int("count"); {
	case count < 1:
		return nil, fail(exitUsage, helpHint(c), "--count: %d is not allowed, use 1 or more", count)
	case id != "" && count != 1:
		return nil, fail(exitUsage, helpHint(c), "--id and --count exclude each other: the stream takes an id once")
	case id != "":
		m.Header.Set(job.HeaderMsgID, id)
	}
	if ttl := c.Duration("ttl"); ttl > 0 {
		m.Header.Set(job.HeaderTTL, ttl.String())
	}
	var err error
	m.Data, err = body(c)
	return m, err
}

func body(c *cli.Context) (data []byte, err error) {
	switch text := c.Args().Get(1); {
	case text == "-":
		data, err = io.ReadAll(c.App.Reader)
	case strings.HasPrefix(text, "@"):
		data, err = os.ReadFile(filepath.Clean(text[1:]))
	default:
		return []byte(text), nil
	}
	if err != nil {
		return nil, fail(exitFailure, "", "cannot read the body: %w", err)
	}
	return data, nil
}

// connectNATS connects as the flags say.
func connectNATS(c *cli.Context) (*nats.Conn, error) { return dialNATS(c, flagConfig(c)) }

func flagConfig(c *cli.Context) queue.Config {
	return queue.Config{
		URL: c.String("server"), Creds: c.String("creds"), NKey: c.String("nkey"), User: c.String("user"), Password: secret.Secret(c.String("password")),
		Token: secret.Secret(c.String("token")), CA: c.String("ca"), Cert: c.String("cert"), Key: c.String("key"),
	}
}

// dialNATS connects once: a command does not wait for a server that is away.
func dialNATS(c *cli.Context, cfg queue.Config) (*nats.Conn, error) {
	opts := []nats.Option{nats.Name(c.Command.HelpName), nats.Timeout(clientTimeout)}
	if cfg.Creds != "" {
		opts = append(opts, nats.UserCredentials(cfg.Creds))
	}
	if cfg.NKey != "" {
		nkey, err := nats.NkeyOptionFromSeed(cfg.NKey)
		if err != nil {
			return nil, fail(exitFailure, "", "nkey %s: %w", cfg.NKey, err)
		}
		opts = append(opts, nkey)
	}
	if cfg.User != "" {
		opts = append(opts, nats.UserInfo(cfg.User, cfg.Password.Reveal()))
	}
	if cfg.Token != "" {
		opts = append(opts, nats.Token(cfg.Token.Reveal()))
	}
	if cfg.CA != "" {
		opts = append(opts, nats.RootCAs(cfg.CA))
	}
	if cfg.Cert != "" {
		opts = append(opts, nats.ClientCert(cfg.Cert, cfg.Key))
	}
	if cfg.TLSFirst {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	if cfg.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(cfg.InboxPrefix))
	}
	nc, err := nats.Connect(cfg.URL, opts...)
	if err != nil {
		return nil, unreachable(cfg.URL, err)
	}
	return nc, nil
}

func unreachable(server string, err error) error {
	hint := "is the server running? set --server or NATS_URL"
	if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) {
		hint = "it is there but does not let us in: check --user and --password, --creds, --nkey or --token"
	}
	return fail(exitUnavailable, hint, "cannot reach NATS at %s: %w", address(server), err)
}

// address is where servers are, without passwords and tokens.
func address(servers string) string {
	if !strings.Contains(servers, "://") {
		servers = "nats://" + servers // as the client takes it
	}
	return queue.Config{URL: servers}.Address()
}
