// Package metrics turns what happened and how things are into Prometheus series.
//
// There are two ways in. What happens is pushed, once per event, by the hooks
// of pool, pipeline and breaker: [Metrics.Job], [Metrics.Try] and
// [Metrics.BreakerChanged]. What has a current value is pulled at each scrape
// from the snapshots given to [Metrics.Watch], so that no gauge can drift.
//
// What it guarantees:
//  1. Label values come from the configuration and from closed sets only.
//     Whatever jobs and targets send, no series is added after New.
//  2. Every series exists from New on, at zero.
//  3. Every report with a known pool counts in exactly one outcome, so that
//     received = completed + suppressed + in hand when nothing is moving.
//     What cannot be attributed is counted, never dropped in silence.
//  4. The hooks neither block nor look up labels, and never panic on input.
//
// It leaves to others: which of these matter (the dashboard and its alerts),
// and serving them (admin, with the handler of [Handler]).
package metrics
