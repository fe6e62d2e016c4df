package whatif

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/workerd/workerd/internal/app"
	"github.com/workerd/workerd/internal/config"
	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/pipeline"
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/retry"
	"github.com/workerd/workerd/internal/target"
	"github.com/workerd/workerd/internal/target/httptarget"
)

// Route is who takes the jobs of a subject.
type Route struct {
	Taker
	Stream   string `json:"stream"`
	Consumer string `json:"consumer"`
	Target   string `json:"target"`
	// Fallback steps the target has.
	Fallback int `json:"fallback,omitempty"`
	// Fate of a job, if it was asked for.
	Fate *Fate `json:"fate,omitempty"`
}

// Routes lists who takes the jobs of a subject.
func Routes(cfg *config.File, subject string) (all []Route) {
	for _, t := range Takers(cfg, subject) {
		p := cfg.Pools[t.Pool]
		target := config.TargetOf(p, subject)
		all = append(all, Route{Taker: t, Stream: p.Stream, Consumer: t.Pool + "-" + t.Priority, Target: target, Fallback: len(cfg.Targets[target].Fallback)})
	}
	return all
}

// Answer of a target.
type Answer struct {
	Status int
	Header http.Header
}

// CloseIdleConnections implements httptarget.Wire.
func (Answer) CloseIdleConnections() {}

// RoundTrip implements httptarget.Wire.
func (a Answer) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.Status, Header: a.Header, Body: http.NoBody, Request: r}, nil
}

// Fate is what becomes of a job if every call ends with the same answer, breaker,
// budget and fallback left aside.
type Fate struct {
	// Class and Reason of the answer.
	Class  string `json:"class"`
	Reason string `json:"reason"`
	// Breaker is what the call tells the target's breaker: good, bad, throttled
	// or ignored. Charged: the job pays with an attempt.
	Breaker string `json:"breaker"`
	Charged bool   `json:"charged"`
	// Tries in an attempt, and the Waits between them.
	Tries int    `json:"tries"`
	Waits []Span `json:"waits,omitempty"`
	// Next is what the first attempt ends with: ok, retry, deferred, dead, dropped.
	Next string `json:"next"`
	// Redeliveries are the delays between attempts.
	Redeliveries []Span `json:"redeliveries,omitempty"`
	// End and EndReason are what it all comes to.
	End       string `json:"end"`
	EndReason string `json:"end_reason"`
	// Calls at most, and how long it takes.
	Calls int  `json:"calls"`
	Takes Span `json:"takes"`
}

// Span is from the least to the most.
type Span struct {
	Min time.Duration `json:"min_ns"`
	Max time.Duration `json:"max_ns"`
}

// String writes a span as 2.5s–5s.
func (s Span) String() string {
	if s.Min.Round(time.Millisecond) == s.Max.Round(time.Millisecond) {
		return short(s.Max)
	}
	return short(s.Min) + "–" + short(s.Max)
}

// Foretell says what becomes of a job on a route if its target always answers the
// same. The judgements are those of the daemon, made for the shortest and for the
// longest waits that chance may bring.
func Foretell(cfg *config.File, r Route, a Answer) (Fate, error) {
	p, t := cfg.Pools[r.Pool], cfg.Targets[r.Target]
	over, err := httptarget.NewOver(*t.HTTP, a)
	if err != nil {
		return Fate{}, err
	}
	defer over.Close()
	j := &job.Job{ID: "1", Stream: p.Stream, Sequence: 1, Deliveries: 1, Enqueued: time.Now()}
	result := over.Call(context.Background(), target.Request{Job: j, Pool: r.Pool, Attempt: 1, Try: 1, Timeout: t.Timeout})
	const almostOne = 1 - 1e-12
	longest, shortest := live(p, t, result, 0), live(p, t, result, almostOne)
	says, charged := pipeline.Account(result.Class)
	f := Fate{
		Class: result.Class.String(), Reason: string(result.Reason), Breaker: says.String(), Charged: charged,
		Tries: max(longest.plan.Tries, shortest.plan.Tries), Next: longest.first, End: longest.end.Action.String(), EndReason: string(longest.end.Reason),
		Waits: spans(shortest.plan.Waits, longest.plan.Waits), Redeliveries: spans(shortest.delays, longest.delays),
		Calls: max(longest.calls, shortest.calls), Takes: Span{min(shortest.took, longest.took), max(shortest.took, longest.took)},
	}
	return f, nil
}

// lifeOf is one way it may go.
type lifeOf struct {
	plan   retry.Plan
	first  string // action the first attempt ended with
	delays []time.Duration
	end    job.Outcome
	calls  int
	took   time.Duration
}

// live goes through the attempts of a job, for one random number.
func live(p pool.Config, t config.TargetConfig, result job.Result, u float64) (l lifeOf) {
	rules, began := app.Rules(p), time.Now()
	j := &job.Job{Enqueued: began, Deliveries: 1}
	l.plan = retry.New(t.Retry).Plan(pipeline.Verdict(result), p.JobTimeout, u)
	for before := (job.Record{}); ; j.Deliveries++ {
		if out, stop := rules.Refuse(j, before, began.Add(l.took)); stop {
			l.end = out
			return l
		}
		l.calls += l.plan.Tries
		for _, wait := range l.plan.Waits {
			l.took += wait
		}
		out := rules.Judge(pipeline.Attempt{Last: result, Stop: l.plan.Stop, Rest: l.plan.Rest, Before: before, Enqueued: began}, began.Add(l.took), u)
		if l.first == "" {
			l.first = out.Action.String()
		}
		switch out.Action {
		case job.Retry:
			before.Attempts++
		case job.Defer:
			before.Deferrals++
		case job.Done, job.Release, job.DeadLetter, job.Drop, job.Park:
			l.end = out
			return l
		}
		l.delays = append(l.delays, out.After)
		l.took += out.After
	}
}

// spans pairs what two ways have in common; of the longer one the rest.
func spans(a, b []time.Duration) (all []Span) {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			all = append(all, Span{b[i], b[i]})
		case i >= len(b):
			all = append(all, Span{a[i], a[i]})
		default:
			all = append(all, Span{min(a[i], b[i]), max(a[i], b[i])})
		}
	}
	return all
}

// Text writes a route, and what becomes of a job if that was asked for.
func (r Route) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "pool %s, priority %s, as %s matches\n", r.Pool, r.Priority, r.Filter)
	fmt.Fprintf(&b, "  from    stream %s, consumer %s\n", r.Stream, r.Consumer)
	fmt.Fprintf(&b, "  to      target %s\n", r.Target)
	if r.Fate != nil {
		r.Fate.text(&b)
	}
	if r.Fallback > 0 && r.Fate != nil {
		fmt.Fprintf(&b, "  unless  its fallback does the job: %s, left aside here\n", plural(r.Fallback, "step"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (f *Fate) text(b *strings.Builder) {
	pays := "the job pays nothing"
	if f.Charged {
		pays = "the job pays with an attempt"
	}
	means := f.Class
	if f.Reason != f.Class {
		means += " (" + f.Reason + ")"
	}
	fmt.Fprintf(b, "  means   %s: the breaker counts it as %s, %s\n", means, f.Breaker, pays)
	if f.Tries > 1 {
		fmt.Fprintf(b, "  again   at once, %d calls in an attempt, after %s\n", f.Tries, list(f.Waits))
	}
	if len(f.Redeliveries) > 0 {
		fmt.Fprintf(b, "  later   by any replica, after %s\n", list(f.Redeliveries))
	}
	fmt.Fprintf(b, "  ends    %s\n", f.ending())
}

func (f *Fate) ending() string {
	end := map[string]string{"ok": "done", "dead": "as a dead letter (" + f.EndReason + ")", "dropped": "dropped (" + f.EndReason + ")"}[f.End]
	if f.Calls == 1 {
		return end + ", after 1 call"
	}
	return fmt.Sprintf("%s, after %d calls at most, in %s", end, f.Calls, f.Takes)
}

// list writes some spans, and how many more there are.
func list(spans []Span) string {
	const most = 12
	var texts []string
	for _, s := range spans[:min(len(spans), most)] {
		texts = append(texts, s.String())
	}
	text := strings.Join(texts, ", ")
	if more := len(spans) - most; more > 0 {
		text += fmt.Sprintf(", and %s more", plural(more, "time"))
	}
	return text
}
