package pool

import (
	"fmt"
	"slices"
)

// Route sends the jobs of some subjects to a target of their own.
type Route struct {
	// Subject the jobs were published to. Wildcards are allowed. Required.
	Subject string `yaml:"subject"`
	// Target of these jobs. Required.
	Target string `yaml:"target"`
}

// maxRoutes of a pool.
const maxRoutes = 100

// Targets are all that the jobs of the pool may be sent to, that of the pool
// first.
func (c Config) Targets() []string {
	all := []string{c.Target}
	for _, r := range c.Routes {
		if !slices.Contains(all, r.Target) {
			all = append(all, r.Target)
		}
	}
	return all
}

func (c Config) validateRoutes(problem func(field, message string)) {
	if len(c.Routes) > 0 && c.Core != nil {
		problem("routes", "core NATS keeps no jobs to give back while their target is down; routes need a stream")
	}
	if len(c.Routes) > maxRoutes {
		problem("routes", fmt.Sprintf("%d routes are not allowed, use at most %d", len(c.Routes), maxRoutes))
	}
	for i, r := range c.Routes {
		if r.Subject == "" {
			problem(fmt.Sprintf("routes[%d].subject", i), "a route needs a subject")
		}
		if r.Target == "" {
			problem(fmt.Sprintf("routes[%d].target", i), "a route needs a target")
		}
	}
}
