package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/job"
)

// clientTimeout bounds one request of a client command.
const clientTimeout = 5 * time.Second

// natsFlags are those of the nats command, with its environment variables.
func natsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "server", Aliases: []string{"s"}, Usage: "NATS server", EnvVars: []string{"NATS_URL"}, Value: nats.DefaultURL},
		&cli.StringFlag{Name: "creds", Usage: "credentials file", EnvVars: []string{"NATS_CREDS"}},
		&cli.StringFlag{Name: "user", Usage: "user", EnvVars: []string{"NATS_USER"}},
		&cli.StringFlag{Name: "password", Usage: "password", EnvVars: []string{"NATS_PASSWORD"}},
	}
}

func connectNATS(c *cli.Context) (*nats.Conn, error) {
	opts := []nats.Option{nats.Name("workerd " + c.Command.Name), nats.Timeout(clientTimeout)}
	if f := c.String("creds"); f != "" {
		opts = append(opts, nats.UserCredentials(f))
	}
	if u := c.String("user"); u != "" {
		opts = append(opts, nats.UserInfo(u, c.String("password")))
	}
	nc, err := nats.Connect(c.String("server"), opts...)
	if err != nil {
		return nil, fail(exitUnavailable, "is the server running? set --server or NATS_URL", "cannot reach NATS at %s: %w", c.String("server"), err)
	}
	return nc, nil
}

func publishCommand() *cli.Command {
	return &cli.Command{
		Name: "publish", Usage: "Send a job and wait until the stream has it", ArgsUsage: "SUBJECT [BODY|@FILE|-]",
		Description: "Example: workerd publish jobs.email.normal '{\"to\":\"a@example.org\"}' --id mail-42",
		Flags: append(natsFlags(),
			&cli.StringFlag{Name: "id", Usage: "job id; the stream takes the same id only once within its duplicate window"},
			&cli.DurationFlag{Name: "ttl", Usage: "the job must start within this time", DefaultText: "no limit"},
			&cli.StringSliceFlag{Name: "header", Aliases: []string{"H"}, Usage: "header as `KEY:VALUE`, may be repeated"},
			&cli.IntFlag{Name: "count", Usage: "send it so many times (not with --id)", Value: 1}),
		Action: publish,
	}
}

func publish(c *cli.Context) error {
	if c.NArg() < 1 || c.NArg() > 2 {
		return fail(exitUsage, "see `workerd publish --help`", "publish needs a subject and at most one body")
	}
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
	for range c.Int("count") {
		ctx, cancel := context.WithTimeout(c.Context, clientTimeout)
		ack, err = js.PublishMsg(ctx, m)
		cancel()
		if err != nil {
			return fail(exitFailure, "does a stream take this subject? see `nats stream subjects`, or streams: in the configuration",
				"the job was not accepted on %s: %w", m.Subject, err)
		}
	}
	note := ""
	if ack.Duplicate {
		note = " (a duplicate: the stream had it already)"
	}
	fmt.Fprintf(c.App.Writer, "published %s to stream %s, last sequence %d%s\n", plural(c.Int("count"), "job"), ack.Stream, ack.Sequence, note)
	return nil
}

// message makes the job of the arguments.
func message(c *cli.Context) (*nats.Msg, error) {
	m := nats.NewMsg(c.Args().First())
	for _, h := range c.StringSlice("header") {
		key, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(key) == "" {
			return nil, fail(exitUsage, "", "header %q is not KEY:VALUE", h)
		}
		m.Header.Add(strings.TrimSpace(key), strings.TrimSpace(value))
	}
	if id := c.String("id"); id != "" {
		if c.Int("count") != 1 {
			return nil, fail(exitUsage, "", "--id and --count exclude each other: the stream takes an id once")
		}
		m.Header.Set(job.HeaderMsgID, id)
	}
	if c.Int("count") < 1 {
		return nil, fail(exitUsage, "", "--count %d is not allowed, use 1 or more", c.Int("count"))
	}
	if ttl := c.Duration("ttl"); ttl > 0 {
		m.Header.Set(job.HeaderTTL, ttl.String())
	}
	var err error
	switch body := c.Args().Get(1); {
	case body == "-":
		m.Data, err = io.ReadAll(c.App.Reader)
	case strings.HasPrefix(body, "@"):
		m.Data, err = os.ReadFile(filepath.Clean(body[1:]))
	default:
		m.Data = []byte(body)
	}
	if err != nil {
		return nil, fail(exitFailure, "", "read the body: %w", err)
	}
	return m, nil
}

func healthcheckCommand() *cli.Command {
	return &cli.Command{
		Name: "healthcheck", Usage: "Ask a running workerd whether it is alive (exit 0) or not (exit 1)",
		Description: "For HEALTHCHECK in images without a shell. Example: workerd healthcheck --ready",
		Flags: []cli.Flag{
			adminFlag(),
			&cli.BoolFlag{Name: "ready", Usage: "ask whether it is ready instead", DisableDefaultText: true},
			&cli.DurationFlag{Name: "timeout", Usage: "how long to wait for the answer", Value: time.Second},
		},
		Action: healthcheck,
	}
}

func adminFlag() cli.Flag {
	return &cli.StringFlag{Name: "admin", Usage: "admin listener, http://host:port or unix:/path", EnvVars: []string{"WORKERD_ADMIN"}, Value: "http://127.0.0.1:8422"}
}

func healthcheck(c *cli.Context) error {
	path := "/livez?verbose"
	if c.Bool("ready") {
		path = "/readyz?verbose"
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	status, body, err := askAdmin(ctx, c.String("admin"), path)
	if err != nil {
		return fail(exitFailure, "is workerd running? set --admin or WORKERD_ADMIN", "cannot reach the admin listener at %s: %w", c.String("admin"), err)
	}
	fmt.Fprintln(c.App.Writer, strings.TrimSpace(body))
	if status != http.StatusOK {
		return &coded{code: exitFailure, err: errReported}
	}
	return nil
}

// askAdmin gets a path of the admin listener.
func askAdmin(ctx context.Context, admin, path string) (int, string, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	if socket, ok := strings.CutPrefix(admin, "unix:"); ok {
		admin = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(admin, "/")+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(body), err
}

// build describes the binary.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

// version reads what the Go toolchain has written into the binary.
func version() build {
	b := build{Version: "devel"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Go = info.GoVersion
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}

func isEmpty(s string) bool { return s == "" }

func versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "Print version and build",
		Flags: []cli.Flag{&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "text or json", Value: "text"}},
		Action: func(c *cli.Context) error {
			b := version()
			switch c.String("output") {
			case "json":
				return json.NewEncoder(c.App.Writer).Encode(b)
			case "text":
				_, err := fmt.Fprintln(c.App.Writer, strings.Join(slices.DeleteFunc([]string{"workerd", b.Version, b.Revision, b.Go}, isEmpty), " "))
				return err
			}
			return fail(exitUsage, "", "--output %q is not allowed, use text or json", c.String("output"))
		},
	}
}
