package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// unknownHint says what an unknown key was probably meant to be. meant is the
// key of the same mapping, if it is one of those.
func unknownHint(key, path string, siblings []field) (hint, meant string) {
	names := make([]string, len(siblings))
	for i, f := range siblings {
		names[i] = f.name
	}
	alias := translate(key)
	for _, path := range alias {
		if name := lastKey(path); slices.Contains(names, name) {
			return fmt.Sprintf("here this is called %q", name), name
		}
	}
	if near := Nearest(key, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near), near
	}
	if elsewhere := whereIs(key, path); elsewhere != "" {
		return "it belongs to " + elsewhere, ""
	}
	if len(alias) > 0 {
		return "here this is " + alias[0], ""
	}
	return "known here: " + strings.Join(names, ", "), ""
}

// nearHint knows the keys beside the unknown one only.
func nearHint(key, _ string, siblings []field) (hint, meant string) {
	names := make([]string, len(siblings))
	for i, f := range siblings {
		names[i] = f.name
	}
	if near := Nearest(key, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near), near
	}
	return "known here: " + strings.Join(names, ", "), ""
}

// whereIs finds a key in another part of the configuration, the nearer the
// better.
func whereIs(key, path string) (parent string) {
	top, _, _ := strings.Cut(path, ".")
	for _, candidate := range keyPaths(reflect.TypeFor[File](), "") {
		p, ok := strings.CutSuffix(candidate, "."+key)
		if ok && (parent == "" || strings.HasPrefix(p, top+".") && !strings.HasPrefix(parent, top+".")) {
			parent = p
		}
	}
	return parent
}

// priorityHint says which priority a wrong key of subjects or shares means.
func priorityHint(path string) string {
	key := lastKey(path)
	if parent := strings.TrimSuffix(path, "."+key); parent != "shed.shares" && !strings.HasSuffix(parent, ".subjects") {
		return ""
	}
	switch plain(key) {
	case "critical", "high", "normal", "low":
		return ""
	case "bulk", "batch", "background", "lowest":
		return "here this is called \"low\""
	case "default", "medium", "standard":
		return "here this is called \"normal\""
	case "urgent", "highest":
		return "here this is called \"critical\""
	}
	if near := Nearest(key, []string{"critical", "high", "normal", "low"}); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}

// keyPaths lists all keys below a type, with <name> for the keys of maps.
func keyPaths(t reflect.Type, path string) (paths []string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return keyPaths(t.Elem(), path)
	case reflect.Map:
		return keyPaths(t.Elem(), join(path, "<name>"))
	case reflect.Struct:
		for _, f := range fieldsOf(t) {
			paths = append(append(paths, join(path, f.name)), keyPaths(f.typ, join(path, f.name))...)
		}
	}
	return paths
}

func lastKey(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// Nearest returns the name that key was probably meant to be, "" if none is
// near: one edit in four characters is forgiven, case and separators are free.
func Nearest(key string, names []string) string {
	if len(key) > 64 {
		return ""
	}
	best, bestDistance := "", 1+max(1, len(key)/4)
	for _, name := range names {
		if plain(name) == plain(key) {
			return name
		}
		if d := distance(key, name); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// plain is a key without case and separators: ackWait is ack_wait.
func plain(key string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(key))
}

// distance is the optimal string alignment distance: insertions, deletions,
// substitutions and swaps of neighbors.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// translate tells what a word of another system is called here: full paths,
// the likeliest first. Sources: the configuration references of Dapr,
// gobreaker, resilience4j, Polly, Envoy, Benthos, asynq, Sidekiq and NATS.
func translate(key string) []string {
	const (
		breaker    = "targets.<name>.breaker."
		retry      = "targets.<name>.retry."
		redelivery = "pools.<name>.redelivery."
		pools      = "pools.<name>."
	)
	switch plain(key) {
	case "maxrequests", "permittednumberofcallsinhalfopenstate", "halfopenrequests", "halfopenmaxcalls":
		return []string{breaker + "half_open_calls"}
	case "interval", "slidingwindowsize", "samplingduration", "slidingwindow":
		return []string{breaker + "window"}
	case "timeout", "waitdurationinopenstate", "breakduration", "durationofbreak", "cooldown":
		return []string{breaker + "open_for", pools + "job_timeout"}
	case "trip", "failurethreshold", "maxfailures":
		return []string{breaker + "consecutive_failures"}
	case "failureratethreshold", "failureratio", "errorrate":
		return []string{breaker + "failure_rate"}
	case "minimumnumberofcalls", "minimumthroughput", "minrequests":
		return []string{breaker + "min_calls"}
	case "slowcalldurationthreshold":
		return []string{breaker + "slow_call"}
	case "slowcallratethreshold":
		return []string{breaker + "slow_call_rate"}
	case "circuitbreaker", "circuitbreakers":
		return []string{"targets.<name>.breaker"}
	case "maxretries", "retries", "attempts", "maxretry", "maxdeliver":
		return []string{redelivery + "max_attempts", retry + "max_attempts"}
	case "maxinterval", "maxdelay", "maxretryinterval":
		return []string{redelivery + "max_backoff", retry + "max_backoff"}
	case "initialinterval", "basedelay", "delay", "initialdelay", "retryperiod", "duration":
		return []string{redelivery + "initial_backoff", retry + "initial_backoff"}
	case "backoff", "backoffon":
		return []string{"pools.<name>.redelivery", "targets.<name>.retry"}
	case "backoffmultiplier", "backoffcoefficient", "factor":
		return []string{redelivery + "multiplier", retry + "multiplier"}
	case "dropon":
		return []string{"targets.<name>.http.classify"}
	case "urls":
		return []string{"targets.<name>.http.url"}
	case "servers", "server":
		return []string{"nats.url"}
	case "verb":
		return []string{"targets.<name>.http.method"}
	case "maxinflight", "maxackpending", "maxpendingrequests", "workers", "maxworkers", "maxconcurrency", "parallelism", "maxconcurrentcalls", "bulkhead":
		return []string{pools + "concurrency"}
	case "queues", "queue":
		return []string{"pools"}
	case "weight", "priority", "priorities", "filtersubjects", "filtersubject", "subject", "topic", "topics":
		return []string{pools + "subjects"}
	case "durable", "consumer", "delivergroup":
		return []string{pools + "subjects (a consumer is named <pool>-<priority>)"}
	case "dead", "deadletter", "deadletters", "deadletterqueue", "deadlettertopic":
		return []string{"dlq"}
	case "visibilitytimeout", "ackdeadline":
		return []string{pools + "ack_wait"}
	case "shutdowntimeout", "gracefulshutdowntimeout", "shutdowngraceperiod":
		return []string{"drain.timeout"}
	case "logging", "logger":
		return []string{"log"}
	case "metrics", "api":
		return []string{"admin"}
	case "downstreams", "services", "endpoints", "outputs":
		return []string{"targets"}
	}
	return nil
}
