package whatif

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// shortTimeline is how many events are shown of a test that failed; the first
// and the last of them.
const shortTimeline = 24

// Text writes a line for people, what does not hold, and a timeline: all of it
// if verbose, else the beginning and end of it for a test that failed.
func (r Result) Text(w io.Writer, verbose bool) error {
	var b strings.Builder
	word := "ok  "
	if !r.OK {
		word = "FAIL"
	}
	fmt.Fprintf(&b, "%s  %s  (virtual %s in %.1fs)\n", word, r.Name, short(r.Virtual), r.Real.Seconds())
	for _, line := range r.complaints() {
		fmt.Fprintf(&b, "      %s\n", line)
	}
	if verbose || !r.OK {
		b.WriteString(r.timeline(verbose))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// complaints say in a line each what is wrong.
func (r Result) complaints() (lines []string) {
	if r.Error != "" {
		lines = append(lines, r.Error)
	}
	if r.Stopped != "" {
		lines = append(lines, "stopped: "+r.Stopped)
	}
	for _, f := range r.Failures {
		lines = append(lines, fmt.Sprintf("%s: expected %s, got %s", f.What, f.Want, f.Got))
	}
	return lines
}

func (r Result) timeline(all bool) string {
	events, hidden := r.Timeline, 0
	head := len(events)
	if !all && len(events) > shortTimeline {
		hidden = len(events) - shortTimeline
		head = shortTimeline / 2
	}
	var b strings.Builder
	for i, e := range events {
		switch {
		case i == head:
			fmt.Fprintf(&b, "      %10s  … %s more, see them with -v\n", "", plural(hidden, "event"))
		case i > head && i < head+hidden:
			continue
		}
		if i < head || i >= head+hidden {
			fmt.Fprintf(&b, "      %10s  %s\n", "+"+clock(e.At), e.Text)
		}
	}
	return b.String()
}

// clock is a time since the start, to the tenth of a second while that matters.
func clock(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return short(d.Round(time.Second))
}

// plural is "1 job" or "2 jobs".
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure,omitempty"`
	Error   *junitFailure `xml:"error,omitempty"`
	Out     string        `xml:"system-out,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

// JUnit writes the results of a file as the XML that CI systems read.
func JUnit(w io.Writer, name string, results []Result) error {
	suite := junitSuite{Name: name, Tests: len(results)}
	var total time.Duration
	for _, r := range results {
		total += r.Real
		c := junitCase{Name: r.Name, Time: fmt.Sprintf("%.3f", r.Real.Seconds())}
		told := &junitFailure{Message: strings.Join(r.complaints(), "; "), Text: r.timeline(true)}
		switch {
		case r.Error != "":
			suite.Errors++
			c.Error = told
		case !r.OK:
			suite.Failures++
			c.Failure = told
		}
		suite.Cases = append(suite.Cases, c)
	}
	suite.Time = fmt.Sprintf("%.3f", total.Seconds())
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
