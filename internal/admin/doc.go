// Package admin is the window into a running workerd: health, metrics, the
// status document and a page that shows it.
//
//	/                      the page; works without JavaScript
//	/livez /readyz         200 or 503; ?verbose lists the checks, ?exclude=name leaves one out
//	/healthz               both together; /-/healthy and /-/ready are other names for the first two
//	/metrics               Prometheus
//	/api/v1/status         the document the page is made of
//	/version               what is running
//	/debug/pprof/          only with pprof, see [Config]
//
// What it guarantees:
//  1. It changes nothing: every route answers GET and HEAD only.
//  2. Whatever jobs and targets say is shown as text, never as markup.
//  3. Connections, requests and their time are bounded, and a client that
//     does not send its request gives way to one that does.
//  4. On a loopback address it answers to loopback names only, so that no
//     web page can read it through a DNS name of its own.
//  5. Whatever does not run has a sentence: why, since when, what comes next.
//  6. It shows no secrets, as the document has none.
//
// It imports nothing of workerd but secret: it declares the [Status] it shows,
// and whoever runs it fills that in through a [Backend].
package admin
