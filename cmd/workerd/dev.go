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

// demoRate is how many sample jobs are published per second.
const demoRate = 40

func devCommand() *cli.Command {
	return &cli.Command{
		Name: "dev", Usage: "Run everything in this process: broker, downstream, sample jobs, live view", ArgsUsage: "[FILE]",
		Description: "Needs nothing but this binary. With a FILE it runs that configuration on an embedded broker, without downstream and sample jobs.\n" +
			"Example: workerd dev",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "for", Usage: "drain and exit after this time instead of on a signal", DefaultText: "run on"},
			&cli.Float64Flag{Name: "rate", Usage: "sample jobs per second, 0 for none", Value: demoRate},
		},
		Action: dev,
	}
}

func dev(c *cli.Context) error {
	name := c.Args().First()
	var file *config.File
	if name == "" {
		loaded, problems := config.Load("demo.yaml", configs.Demo(), os.LookupEnv)
		if len(problems.Errors()) > 0 {
			_ = problems.Format(c.App.ErrWriter, false) // stderr is all there is to tell it to
			return &coded{code: exitConfig, err: errReported}
		}
		file = loaded
	} else {
		loaded, _, err := loadConfig(c, name)
		if err != nil {
			return err
		}
		embedded := *loaded
		embedded.NATS.Embedded = true
		embedded.NATS = embedded.NATS.WithDefaults()
		file = &embedded
	}
	d := &devRun{c: c, file: file, sample: name == ""}
	return daemon(c, file, daemonOptions{beside: d.run, log: d.logger(), limit: c.Duration("for")})
}

// devRun is what goes on beside the daemon: downstream, load and live view.
type devRun struct {
	c      *cli.Context
	file   *config.File
	sample bool
}

// logger keeps the live view readable: only warnings, in text.
func (d *devRun) logger() *slog.Logger {
	cfg := d.file.Log
	cfg.Format = "text"
	return newLogger(cfg, d.c.App.ErrWriter)
}

func (d *devRun) run(ctx context.Context, a *app.App) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if d.sample {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", downstreamAddress())
		if err != nil {
			return fmt.Errorf("demo downstream: %w", err)
		}
		down := demo.NewDownstream()
		// It answers until the drain is over: running jobs must be able to finish.
		serve, stop := context.WithCancel(context.WithoutCancel(ctx))
		wg.Go(func() { _ = down.Serve(serve, l) })
		wg.Go(func() { <-a.Drained(); stop() })
		wg.Go(func() { d.load(ctx, a) })
	}
	d.greet(a)
	watch(a, d.c.App.Writer)
	return nil
}

// downstreamAddress is that of configs/demo.yaml.
func downstreamAddress() string {
	if v := os.Getenv("WORKERD_DEV_DOWNSTREAM"); v != "" {
		return v
	}
	return "127.0.0.1:8423"
}

func (d *devRun) greet(a *app.App) {
	w := d.c.App.Writer
	fmt.Fprintf(w, "status page   http://%s/\n", a.Addr())
	fmt.Fprintf(w, "broker        %s  (try: workerd publish jobs.email.high hello -s %s)\n", a.BrokerURL(), a.BrokerURL())
	if d.sample {
		fmt.Fprintf(w, "break it      curl -X POST 'http://%s/script/mail?mode=down&for=20s'   (or mode=hang, slow, throttled, reject)\n", downstreamAddress())
	}
	fmt.Fprintf(w, "stop          Ctrl-C drains; again hurries\n\n")
}

func (d *devRun) load(ctx context.Context, a *app.App) {
	rate := d.c.Float64("rate")
	if rate <= 0 {
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
func watch(a *app.App, w io.Writer) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var v view
	for {
		select {
		case <-a.Drained():
			fmt.Fprintln(w, v.last(a))
			return
		case <-tick.C:
			fmt.Fprintln(w, v.line(a))
		}
	}
}
