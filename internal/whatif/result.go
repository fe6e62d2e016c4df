package whatif

import (
	"maps"
	"strings"
	"time"
)

// Result is how a test went.
type Result struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Error is why it could not be carried out, empty if it could.
	Error string `json:"error,omitempty"`
	// Stopped is why it was stopped before all jobs had come to their end.
	Stopped string `json:"stopped,omitempty"`
	// Failures are the expectations that do not hold.
	Failures []Failure `json:"failures,omitempty"`
	// Virtual time from the first job to the end of the last, and the Real time
	// that took.
	Virtual time.Duration `json:"virtual_ns"`
	Real    time.Duration `json:"real_ns"`
	// Numbers are all there are that something could be expected of.
	Numbers map[string]float64 `json:"numbers"`
	// Timeline of what happened.
	Timeline []Event `json:"timeline,omitempty"`
}

// result reads the books once all has ended.
func (w *world) result(s *Suite, stopped string) Result {
	b := w.book
	b.mu.Lock()
	defer b.mu.Unlock()
	r := Result{Name: w.test.Name, Stopped: stopped, Virtual: b.last.Sub(b.began), Numbers: map[string]float64{}, Timeline: b.events}
	for _, name := range expectable(s.Config) {
		if !strings.Contains(name, ".reason.") { // those are many, and mostly 0
			r.Numbers[name] = 0
		}
	}
	maps.Copy(r.Numbers, b.numbers)
	for name, s := range w.scripts {
		calls, most := s.counts()
		r.Numbers["target."+name+".calls"], r.Numbers["target."+name+".max_in_flight"] = float64(calls), float64(most)
	}
	r.Numbers["left"] = float64(b.wanted - len(b.ended))
	if stopped != "" {
		r.Virtual = time.Since(b.began)
	}
	r.Numbers["within"] = r.Virtual.Seconds()
	r.Failures = w.test.compare(r.Numbers)
	r.OK = len(r.Failures) == 0
	return r
}
