package admin

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// view is the page as texts and figures; the template only places them.
type view struct {
	Instance, Version, Uptime, Time string
	Health                          mark
	Troubles                        []string // of checks, as sentences
	NATS                            mark
	NATSNote                        string
	Cards                           []card
	Drain                           *drainView
	Pools                           []poolView
	Targets                         []targetView
	Failures                        []failureView
}

// mark is a word with a sign and a tone, so that it can be told without colours.
type mark struct{ Sign, Word, Tone string }

// The tones.
const (
	calm  = "calm"  // as it should be
	warn  = "warn"  // on its way, or by intention
	alarm = "alarm" // not as it should be
	quiet = "quiet" // of no concern
)

// card is one figure.
type card struct{ Label, Value, Note, Tone string }

// bar is a part of a whole, in percent.
type bar struct{ Percent, Limit int }

func newView(s Status) view {
	v := view{
		Instance: clean(s.Instance), Version: clean(s.Version),
		Uptime: span(seconds(s.UptimeSeconds)), Time: s.Now.UTC().Format("15:04:05") + " UTC",
		Health: s.health(), NATS: mark{"●", "NATS", calm}, NATSNote: clean(s.NATS.URL),
		Cards: s.cards(), Drain: s.Drain.view(),
	}
	if !s.NATS.Connected {
		v.NATS, v.NATSNote = mark{"○", "NATS", alarm}, "not connected"
	}
	for _, c := range s.Checks {
		if !c.OK && (s.Drain == nil || c.Name != "shutdown") { // the drain has a line of its own
			v.Troubles = append(v.Troubles, clean(c.Name+": "+orUnknown(c.Message)))
		}
	}
	for i := range s.Pools {
		v.Pools = append(v.Pools, s.Pools[i].view())
	}
	for i := range s.Targets {
		v.Targets = append(v.Targets, s.Targets[i].view(s.Now))
	}
	for i := range s.Failures {
		v.Failures = append(v.Failures, s.Failures[i].view())
	}
	return v
}

func orUnknown(s string) string {
	if s == "" {
		return "does not hold"
	}
	return s
}

func (s *Status) health() mark {
	switch {
	case s.Drain != nil:
		return mark{"◐", "draining", warn}
	case s.Ready:
		return mark{"●", "ready", calm}
	}
	return mark{"○", "not ready", alarm}
}

// cards are the figures of the whole process.
func (s *Status) cards() []card {
	var inFlight, concurrency int
	var waiting, pending, retry, dead, settled uint64
	oldest, oldestIn, perSecond, measured := 0.0, "", 0.0, false
	for _, p := range s.Pools {
		inFlight, concurrency = inFlight+p.InFlight, concurrency+p.Concurrency
		waiting, pending = waiting+uint64(max(0, p.Waiting)), pending+p.pending()
		retry, dead, settled = retry+p.Jobs.Retry, dead+p.Jobs.Dead, settled+p.Jobs.settled()
		if p.OldestJobAgeSeconds > oldest {
			oldest, oldestIn = p.OldestJobAgeSeconds, "in "+short(p.Name)
		}
		if p.JobsPerSecond != nil {
			perSecond, measured = perSecond+*p.JobsPerSecond, true
		}
	}
	jobs := card{"jobs/s", none, number(settled) + " total", quiet}
	if measured {
		jobs.Value = rate(&perSecond)
	}
	cards := []card{
		{"in flight", number(inFlight), "of " + number(concurrency), quiet},
		jobs,
		{"in the stream", number(pending), number(waiting) + " waiting here", quiet},
		{"oldest in hand", age(oldest), oldestIn, quiet},
		{"retried", percent(retry, settled), number(retry) + " jobs", quiet},
		{"dead letters", number(dead), "since start", quiet},
	}
	if dead > 0 {
		cards[5].Tone = alarm
	}
	if c := s.Cache; c != nil {
		cards = append(cards, card{"kept replies", number(c.Entries), "used " + number(c.Hits) + " times", quiet})
	}
	return cards
}

func age(s float64) string {
	if s <= 0 {
		return none
	}
	return span(seconds(s))
}

func (j Jobs) settled() uint64 {
	return j.OK + j.Retry + j.Deferred + j.Released + j.Dead + j.Dropped
}

func (p *Pool) pending() (n uint64) {
	for _, c := range p.Consumers {
		n += c.Pending
	}
	return n
}

// poolView is a row of the pools, and its sentence.
type poolView struct {
	Name, Target                                  string
	State                                         mark
	Bar                                           bar
	InFlight, Limit                               string
	Waiting, Pending, Oldest, Rate, Retried, Dead string
	DeadTone                                      string
	Why                                           string
}

func (p *Pool) view() poolView {
	v := poolView{
		Name: clean(p.Name), Target: clean(cmp.Or(strings.Join(p.Targets, ", "), p.Target)), State: p.State.mark(),
		Bar:      bar{share(p.InFlight, p.Concurrency), share(p.Limit, p.Concurrency)},
		InFlight: number(p.InFlight) + "/" + number(p.Concurrency),
		Waiting:  number(p.Waiting), Pending: number(p.pending()), Oldest: age(p.OldestJobAgeSeconds),
		Rate: rate(p.JobsPerSecond), Retried: percent(p.Jobs.Retry, p.Jobs.settled()), Dead: number(p.Jobs.Dead),
		Why: clean(p.Why),
	}
	if 0 < p.Limit && p.Limit < p.Concurrency {
		v.Limit = "limit " + number(p.Limit)
	}
	if p.Jobs.Dead > 0 {
		v.DeadTone = alarm
	}
	if p.State == PoolRunning && p.Why != "" {
		v.State.Tone = warn
	}
	return v
}

func (s PoolState) mark() mark {
	switch s {
	case PoolRunning:
		return mark{"●", "running", calm}
	case PoolHeld:
		return mark{"○", "held", alarm}
	case PoolDraining:
		return mark{"◐", "draining", warn}
	case PoolStarting:
		return mark{"◔", "starting", warn}
	case PoolStopped:
		return mark{"○", "stopped", quiet}
	}
	return mark{"?", short(string(s)), warn}
}

// share is n of all in percent, 0 to 100.
func share(n, all int) int {
	if all <= 0 || n <= 0 {
		return 0
	}
	return min(100, int(100*float64(n)/float64(all)))
}

// targetView is a row of the targets, and its sentence.
type targetView struct {
	Name, URL           string
	Breaker             mark
	Degraded            *mark
	Next                string
	Rate, Failed, Total string
	Budget              *bar
	Rejected, Why       string
}

func (t *Target) view(now time.Time) targetView {
	v := targetView{
		Name: clean(t.Name), URL: clean(strings.TrimSpace(t.Kind + " " + t.URL)), Breaker: t.Breaker.mark(),
		Rate: rate(t.CallsPerSecond), Failed: percent(t.Failed, t.Calls), Total: number(t.Calls),
		Rejected: number(t.Breaker.Rejected), Why: clean(t.Why),
	}
	if d := t.Degraded; d != nil && d.On {
		v.Degraded = &mark{"⤳", "degraded", warn}
	}
	next := t.Breaker.Until
	if v.Degraded != nil { // its breaker has to wait
		next = t.Degraded.Until
	}
	if next.After(now) {
		v.Next = span(next.Sub(now))
	}
	if r := t.RetryBudgetRatio; r != nil {
		v.Budget = &bar{Percent: share(int(*r*1000), 1000), Limit: 100}
	}
	return v
}

func (b Breaker) mark() mark {
	switch b.State {
	case BreakerClosed:
		return mark{"●", "closed", calm}
	case BreakerOpen:
		return mark{"○", "open", alarm}
	case BreakerHalfOpen:
		return mark{"◐", "half open", warn}
	case BreakerForcedOpen:
		return mark{"⊘", "forced open", alarm}
	case BreakerDisabled:
		return mark{"–", "disabled", warn}
	case BreakerMetricsOnly:
		return mark{"–", "metrics only", warn}
	}
	return mark{"?", short(words(b.State)), warn}
}

// failureView is one of the last failures.
type failureView struct {
	Time, Stamp, Pool, Job, Subject, What, Error, Next string
	Outcome                                            mark
}

func (f *Failure) view() failureView {
	v := failureView{
		Time: f.At.UTC().Format("15:04:05"), Stamp: f.At.UTC().Format(time.RFC3339),
		Pool: clean(f.Pool), Job: clean(f.JobID), Subject: clean(f.Subject), What: clean(words(f.Reason)), Error: clean(f.Error),
		Outcome: mark{"↻", short(words(f.Outcome)), quiet},
	}
	if f.Attempt > 0 {
		v.What = fmt.Sprintf("%s, attempt %d", v.What, f.Attempt)
	}
	if f.Outcome == "dead" {
		v.Outcome = mark{"✕", "dead letter", alarm}
	}
	if f.NextSeconds > 0 {
		v.Next = "in " + span(seconds(f.NextSeconds))
	}
	return v
}

// drainView is the line that shows a shutdown under way.
type drainView struct {
	Phase, Time, Jobs string
	Bar               bar
}

func (d *Drain) view() *drainView {
	if d == nil {
		return nil
	}
	v := &drainView{
		Phase: clean(words(d.Phase)), Time: fmt.Sprintf("%.1f of %.0f s", max(0, d.Elapsed), max(0, d.Timeout)),
		Jobs: fmt.Sprintf("%s of %s still running, %s handed back", number(d.Running), number(d.AtStart), number(d.HandedBack)),
		Bar:  bar{share(int(d.Elapsed*1000), int(d.Timeout*1000)), 100},
	}
	if d.Interrupted > 0 {
		v.Jobs += fmt.Sprintf(" (%s interrupted)", number(d.Interrupted))
	}
	return v
}
