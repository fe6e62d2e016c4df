package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// health answers 200 if every check holds and 503 otherwise. The body is "ok",
// or with ?verbose or on failure one line for each check. ?exclude=name leaves
// a check out; it may be repeated.
func health(name string, sources ...func() []Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		var lines strings.Builder
		healthy := true
		for _, checks := range sources {
			for _, c := range checks() {
				if !slices.Contains(query["exclude"], c.Name) {
					lines.WriteString(c.line())
					healthy = healthy && c.OK
				}
			}
		}
		status, body := http.StatusOK, "ok\n"
		switch {
		case !healthy:
			status, body = http.StatusServiceUnavailable, lines.String()+name+" check failed\n"
		case query.Has("verbose"):
			body = lines.String() + name + " check passed\n"
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		write(w, status, []byte(body))
	})
}

// line is the check as Kubernetes writes its own.
func (c Check) line() string {
	sign, state := "+", "ok"
	if !c.OK {
		sign, state = "-", "failed"
	}
	if c.Message != "" {
		state += ": " + clean(c.Message)
	}
	return fmt.Sprintf("[%s]%s %s\n", sign, clean(c.Name), state)
}
