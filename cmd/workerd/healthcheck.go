package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

func healthcheckCommand() *cli.Command {
	return &cli.Command{
		Name: "healthcheck", Usage: "Ask a running workerd whether it is well: exit 0 or 1",
		Description: "Asks whether it is alive. For HEALTHCHECK in images without a shell.\n\nExample: workerd healthcheck --ready",
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name: "admin", Usage: "its admin.listen, host:port or unix:/path", EnvVars: []string{"WORKERD_ADMIN"},
				Value: "127.0.0.1:8422",
			},
			&cli.BoolFlag{Name: "ready", Usage: "ask whether it takes jobs instead", DisableDefaultText: true},
			&cli.DurationFlag{Name: "timeout", Usage: "how long to wait for the answer", Value: time.Second},
		},
		Action: healthcheck,
	}
}

func healthcheck(c *cli.Context) error {
	if err := notNegative(c, "timeout"); err != nil {
		return err
	}
	path := "/livez?verbose"
	if c.Bool("ready") {
		path = "/readyz?verbose"
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	status, body, err := askAdmin(ctx, c.String("admin"), adminRequest{method: http.MethodGet, path: path})
	if errors.Is(err, context.DeadlineExceeded) {
		return fail(exitFailure, "", "no answer from %s within %s", c.String("admin"), c.Duration("timeout"))
	}
	if err != nil {
		return fail(exitFailure, "is workerd running? set --admin or WORKERD_ADMIN to its admin.listen", "cannot reach workerd at %s: %w", c.String("admin"), err)
	}
	fmt.Fprintln(c.App.Writer, strings.TrimSpace(body))
	if status != http.StatusOK {
		return &coded{code: exitFailure, err: errReported}
	}
	return nil
}

// adminRequest is what is asked of the admin listener.
type adminRequest struct{ method, path, body, token string }

// askAdmin makes a request to the admin listener and reads the answer.
func askAdmin(ctx context.Context, admin string, r adminRequest) (int, string, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	if socket, ok := strings.CutPrefix(admin, "unix:"); ok {
		admin = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}
	}
	if !strings.Contains(admin, "://") {
		admin = "http://" + admin
	}
	req, err := http.NewRequestWithContext(ctx, r.method, strings.TrimSuffix(admin, "/")+r.path, strings.NewReader(r.body))
	if err != nil {
		return 0, "", inner(err)
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", inner(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(body), err
}

// inner leaves out the address, which the message has already.
func inner(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
