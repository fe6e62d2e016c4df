package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/configs"
	"github.com/workerd/workerd/internal/app"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/demo"
)

// Sample jobs per second, and the most the load can publish one by one.
const (
	demoRate = 40
	maxRate  = 10000
)

func devCommand() *cli.Command {
	return &cli.Command{
		Name: "dev", Usage: "Run it all in one process: broker, downstream, jobs", ArgsUsage: "[FILE]",
		Description: "Needs nothing but this binary. With a FILE it runs that configuration on a\n" +
			"broker of its own at nats.url, without downstream and sample jobs.\n\n" +
			"Example: workerd dev\n\n" +
			"Where the usual addresses are taken, set WORKERD_DEV_ADMIN and\n" +
			"WORKERD_DEV_DOWNSTREAM (host:port), WORKERD_DEV_NATS (nats://host:port), and\n" +
			"WORKERD_DEV_STORE for another directory than ./workerd-data.",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "for", Usage: "drain and exit after this `TIME`", DefaultText: "run on"},
			&cli.Float64Flag{Name: "rate", Usage: "sample jobs per second, 0 for none", Value: demoRate},
		},
		Action: dev,
	}
}

func dev(c *cli.Context) error {
	if err := notNegative(c, "for"); err != nil {
		return err
	}
	if r := c.Float64("rate"); !(r >= 0 && r <= maxRate) {
		return fail(exitUsage, helpHint(c), "--rate: %v is not allowed, use 0 to %d", r, maxRate)
	}
	name := c.Args().First()
	if name == "" {
		return devSample(c)
	}
	file, _, err := loadConfig(c, name)
	if err != nil {
		return err
	}
	embedded := *file
	embedded.NATS.Embedded = true
	embedded.NATS = embedded.NATS.WithDefaults()
	d := &devRun{c: c, file: &embedded}
	return d.daemon(places{"admin.listen, or nats.url, where dev runs a broker of its own", "nats.store_dir"})
}

// devSample runs configs/demo.yaml and what it calls.
func devSample(c *cli.Context) error {
	file, problems := config.Load("demo.yaml", configs.Demo(), os.LookupEnv)
	if len(problems.Errors()) > 0 {
		printProblems(c, problems)
		return &coded{code: exitConfig, err: errReported}
	}
	p := places{"WORKERD_DEV_ADMIN, WORKERD_DEV_DOWNSTREAM (host:port), WORKERD_DEV_NATS (nats://host:port)", "WORKERD_DEV_STORE"}
	l, err := new(net.ListenConfig).Listen(c.Context, "tcp", downstreamAddress())
	if err != nil {
		return p.explain(fmt.Errorf("downstream: %w", err), "")
	}
	defer l.Close()
	d := &devRun{c: c, file: file, downstream: l}
	return d.daemon(p)
}

// devRun is what goes on beside the daemon: downstream, load and live view.
type devRun struct {
	c          *cli.Context
	file       *config.File
	downstream net.Listener // nil with a configuration of the user's own
}

func (d *devRun) daemon(p places) error {
	return daemon(d.c, d.file, daemonOptions{beside: d.run, log: d.logger(), limit: d.c.Duration("for"), places: p})
}

// logger writes text between the lines of the view, unless the file has asked
// for JSON.
func (d *devRun) logger() *slog.Logger {
	cfg := d.file.Log
	if cfg.Format == "auto" {
		cfg.Format = "text"
	}
	return newLogger(cfg, d.c.App.ErrWriter)
}

func (d *devRun) run(ctx context.Context, a *app.App) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if d.downstream != nil {
		down := demo.NewDownstream()
		// It answers until the drain is over: running jobs must be able to finish.
		serve, stop := context.WithCancel(context.WithoutCancel(ctx))
		wg.Go(func() { _ = down.Serve(serve, d.downstream) })
		wg.Go(func() { <-a.Drained(); stop() })
		wg.Go(func() { d.load(ctx, a) })
	}
	d.greet(a)
	watch(ctx, a, newView(d.c.App.Writer))
	return nil
}

// downstreamAddress is that of configs/demo.yaml.
func downstreamAddress() string {
	if v := os.Getenv("WORKERD_DEV_DOWNSTREAM"); v != "" {
		return v
	}
	return "127.0.0.1:8423"
}

// greet says what one can do now. Its lines fit into 80 columns.
func (d *devRun) greet(a *app.App) {
	w := d.c.App.Writer
	server := ""
	if url := a.BrokerURL(); url != nats.DefaultURL {
		server = " -s " + url
	}
	fmt.Fprintf(w, "status page  http://%s/\n", a.Addr())
	if d.downstream == nil {
		fmt.Fprintf(w, "send a job   %s publish SUBJECT BODY%s\n", os.Args[0], server)
	} else {
		fmt.Fprintf(w, "send a job   %s publish jobs.email.high hello%s\n", os.Args[0], server)
		fmt.Fprintf(w, "break it     curl -X POST '%s/script/mail?mode=down&for=20s'\n", d.downstream.Addr())
		fmt.Fprint(w, "             or mode=hang, slow, throttled, reject, ok; or pdf for mail\n")
	}
	fmt.Fprint(w, "stop         Ctrl-C drains, again hurries\n\n")
}

func (d *devRun) load(ctx context.Context, a *app.App) {
	rate := d.c.Float64("rate")
	if rate == 0 {
		return
	}
	nc, err := nats.Connect(a.BrokerURL(), nats.Name("workerd dev load"))
	if err != nil {
		return // the view shows that nothing comes
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return
	}
	demo.Load(ctx, rate, func(ctx context.Context, subject string, body []byte) error {
		_, err := js.Publish(ctx, subject, body)
		return err
	})
}

// watch prints a line per second until the drain is over.
func watch(ctx context.Context, a *app.App, v *view) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	draining := ctx.Done()
	for {
		select {
		case <-a.Drained():
			v.print(v.last(a.Status()))
			return
		case <-draining:
			draining = nil
			v.print(v.drain(a.Status()))
		case <-tick.C:
			v.print(v.second(a.Status()))
		}
	}
}

// print ends what the terminal has echoed of Ctrl-C.
func (v *view) print(text string) { _, _ = io.WriteString(v.w, text+"\n") }
