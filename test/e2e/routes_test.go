package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestRoutes_oneOfTwoTargetsOfAPoolIsDown: the jobs of the other are done as if
// there were none before them for the one that is down, which is left alone, and
// has its own done when it is back.
func TestRoutes_oneOfTwoTargetsOfAPoolIsDown(t *testing.T) {
	for kind, ill := range map[string]func(*http.Request) int{
		"503":     func(*http.Request) int { return http.StatusServiceUnavailable },
		"hanging": func(r *http.Request) int { <-r.Context().Done(); return 0 },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			n := startNATS(t)
			var well atomic.Bool
			us := startDownstream(t, func(r *http.Request) int {
				if !well.Load() {
					return ill(r)
				}
				return http.StatusOK
			})
			eu := startDownstream(t, func(r *http.Request) int { return after(r, 2*time.Millisecond, http.StatusOK) })
			c := connect(t, n)
			var forEU, forUS []string
			for i := range 20 { // a third of those in the stream are for the target that is down
				forUS = append(forUS, c.publish("jobs.hooks.us", fmt.Sprintf("us-%d", i), 50)...)
				forEU = append(forEU, c.publish("jobs.hooks.eu", fmt.Sprintf("eu-%d", i), 100)...)
			}
			config := configure(n, 10*time.Second, lane{
				name: "hooks", url: eu.url,
				pool: `concurrency: 16, routes: [{subject: "jobs.hooks.us", target: us}]`,
			})
			config = strings.Replace(config, "pools:\n", fmt.Sprintf(
				"  us: {http: {url: %q}, timeout: 2s, breaker: {open_for: 1s, max_open_for: 2s}, concurrency: {max: 8}}\npools:\n", us.url), 1)
			w := startWorker(t, config)

			await(t, 30*time.Second, "all is done that can be", func() bool { return eu.books().done == len(forEU) })
			reconcile(t, forEU, eu, nil)
			if calls, most := us.books().total, us.books().most; calls > 40 || most > 8 {
				t.Errorf("the target that is down was called %d times, by %d at once", calls, most)
			}
			if c.left() < len(forUS) {
				t.Errorf("%d jobs are in the stream, with %d undone", c.left(), len(forUS))
			}

			well.Store(true)
			c.awaitEmpty(60 * time.Second)
			reconcile(t, forUS, us, nil)
			if dead := c.deadLetters(); len(dead) > 0 {
				t.Errorf("%d dead letters: %v", len(dead), dead)
			}
			if b := us.books(); b.done != len(forUS) || b.twice > 0 {
				t.Errorf("%d of %d done, %d of them twice", b.done, len(forUS), b.twice)
			}
			if b := eu.books(); b.done != len(forEU) || b.twice > 0 {
				t.Errorf("the healthy target got %d of its %d jobs, %d of them twice, and others", b.done, len(forEU), b.twice)
			}
			if calls := w.metric("workerd_target_attempts_total", `target="us"`); calls > float64(len(forUS)+60) {
				t.Errorf("%v calls for %d jobs", calls, len(forUS))
			}
		})
	}
}
