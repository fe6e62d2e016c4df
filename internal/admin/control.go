package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Control is what an operator wants of a part of a running workerd.
type Control struct {
	// Verb is one of the constants below, Name that of the pool or target.
	Verb Verb
	Name string
	// For is how long it is to last. 0: until the opposite is said, or for as
	// long as the part allows.
	For time.Duration
	// At is when it is to begin. Zero: now. Only Degrade can be planned.
	At time.Time
	// Reason for people; it is shown as long as the change lasts.
	Reason string
}

// Verb of a Control.
type Verb string

// The verbs, of pools and of targets.
const (
	PausePool    Verb = "pause"
	ResumePool   Verb = "resume"
	OpenBreaker  Verb = "open"
	CloseBreaker Verb = "close"
	AutoBreaker  Verb = "auto"
	Degrade      Verb = "degrade"
	Restore      Verb = "restore"
)

// ErrUnknownName says that there is no pool or target of that name.
var ErrUnknownName = errors.New("unknown name")

// maxReason is the longest reason taken, in bytes.
const maxReason = 200

// verbs by kind of part, as they stand in paths.
func verbs() map[string][]Verb {
	return map[string][]Verb{
		"pools":   {PausePool, ResumePool},
		"targets": {OpenBreaker, CloseBreaker, AutoBreaker, Degrade, Restore},
	}
}

// parseControl reads the path /api/v1/<kind>/<name>/<verb>.
func parseControl(path string) (c Control, ok bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/api/v1/"), "/")
	if len(parts) != 3 || parts[1] == "" {
		return c, false
	}
	for _, v := range verbs()[parts[0]] {
		if string(v) == parts[2] {
			return Control{Verb: v, Name: parts[1]}, true
		}
	}
	return c, false
}

// control carries out what an operator wants, and says so in the log.
func (s *Server) control(c Control) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", "POST")
			fail(w, r, http.StatusMethodNotAllowed, "use POST")
			return
		}
		if err := readControl(r, &c); err != nil {
			fail(w, r, http.StatusBadRequest, err.Error())
			return
		}
		err := s.backend.Control(c)
		switch {
		case errors.Is(err, ErrUnknownName):
			fail(w, r, http.StatusNotFound, err.Error())
		case err != nil:
			fail(w, r, http.StatusConflict, err.Error())
		default:
			said := []any{"what", string(c.Verb), "name", c.Name, "for", c.For, "reason", c.Reason, "from", r.RemoteAddr}
			if !c.At.IsZero() {
				said = append(said, "at", c.At)
			}
			s.log.Warn("an operator has changed something", said...)
			answer(w, r, struct {
				Done bool `json:"done"`
			}{true})
		}
	}
}

// readControl reads the body: {"for": "10m", "at": "2026-01-31T02:00:00Z",
// "reason": "…"}, all optional.
func readControl(r *http.Request, c *Control) error {
	if r.ContentLength == 0 {
		return nil
	}
	var body struct{ For, At, Reason string }
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		return fmt.Errorf(`the body is not {"for": "10m", "reason": "…"}: %w`, err)
	}
	c.Reason = clean(body.Reason)
	if len(c.Reason) > maxReason {
		return fmt.Errorf("a reason of %d bytes is not allowed, use %d or less", len(c.Reason), maxReason)
	}
	if err := c.plan(body.At, time.Now()); err != nil {
		return err
	}
	if body.For == "" {
		return nil
	}
	lasts, err := time.ParseDuration(body.For)
	if err != nil || lasts <= 0 {
		return fmt.Errorf("for: %q is not allowed, use a duration like 10m", clean(body.For))
	}
	c.For = lasts
	return nil
}

// plan sets when it is to begin.
func (c *Control) plan(at string, now time.Time) (err error) {
	switch {
	case at == "":
		return nil
	case c.Verb != Degrade:
		return errors.New("at: only degrade can be planned")
	}
	if c.At, err = time.Parse(time.RFC3339, at); err != nil {
		return fmt.Errorf("at: %q is not allowed, use a time like 2026-01-31T02:00:00Z", clean(at))
	}
	if c.At.Before(now) {
		return fmt.Errorf("at: %s is over", clean(at))
	}
	return nil
}
