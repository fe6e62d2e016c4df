package main

// mutant is a fault of one line.
type mutant struct {
	name, file string
	old, new   string
}

// mutants are the faults, by what they are in.
func mutants() []mutant {
	const (
		settler  = "internal/queue/settler.go"
		delivery = "internal/queue/delivery.go"
		puller   = "internal/queue/puller.go"
		recent   = "internal/queue/recent.go"
		ensure   = "internal/queue/ensure.go"
		conn     = "internal/queue/conn.go"
		decode   = "internal/queue/decode.go"
		book     = "internal/queue/book.go"
		job      = "internal/pool/job.go"
		intake   = "internal/pool/intake.go"
		settle   = "internal/pool/settle.go"
		ledger   = "internal/pool/ledger.go"
		records  = "internal/attempts/attempts.go"
		pool     = "internal/pool/pool.go"
		judge    = "internal/pipeline/judge.go"
		pipe     = "internal/pipeline/pipeline.go"
		dlq      = "internal/dlq/dlq.go"
		brConfig = "internal/breaker/config.go"
		machine  = "internal/breaker/machine.go"
		wait     = "internal/pool/wait.go"
	)
	return []mutant{
		{"settle: retry is acked", settle, "return job.Nak, out.After", "return job.Ack, out.After"},
		{"settle: release is acked", settle, "case job.Release:\n\t\treturn job.Nak, 0", "case job.Release:\n\t\treturn job.Ack, 0"},
		{"settle: term instead of nak", delivery, `return []byte("-NAK")`, `return []byte("+TERM")`},
		{"settle: delay of a nak in the wrong unit", delivery, "int64(after), 10)", "int64(after)/1000, 10)"},
		{"settle: nothing is sent again", settler, "now.Sub(p.sent) >= rto &&", "now.Sub(p.sent) >= rto && rto < 0 &&"},
		{"settle: a nak is sent again", settler, " && !(p.kind == nak && p.left)", ""},
		{"settle: flush does not wait", settler, "if s.unsettled == 0 {\n\t\ts.mu.Unlock()\n\t\treturn nil", "if s.unsettled >= 0 {\n\t\ts.mu.Unlock()\n\t\treturn nil"},
		{"settle: what is finished is forgotten", delivery, "v == job.Ack || v == job.Term)", "v == job.Term)"},
		{"settle: what is given back counts as finished", delivery, "v == job.Ack || v == job.Term)", "v == job.Ack || v == job.Term || v == job.Nak)"},
		{"lease: a job in hand is run again", recent, "if first, ok := r.held[id]; ok {", "if first, ok := r.held[id]; ok && first == nil {"},
		{"lease: signs of life come too late", job, "AckWait()/3:", "AckWait()*3:"},
		{"lease: a stale nak is sent", settler, "return !p.l.ours(now) || p.left && age > nakPatience", "return p.left && age > nakPatience"},
		{"lease: nobody looks at it before the call", job, "if time.Now().After(h.LeaseUntil()) { // the process", "if time.Now().After(h.LeaseUntil()) && h == nil { // the process"},
		{"lease: what lay here while we were stopped is new", puller, "if !p.slept.IsZero() {", "if !p.slept.IsZero() && p.sub == nil {"},

		{"lease: what lay in the network is new", "internal/queue/epoch.go", "p.slept = p.lastSeen", "p.slept = time.Time{}"},
		{"lease: what lay in the network unasked for is new", "internal/queue/epoch.go", "if p.book.requests == 0 {", "if p.book.requests < 0 {"},
		{"lease: its end is noticed late", job, "h.LeaseUntil().Sub(now))+time.Millisecond)", "h.LeaseUntil().Sub(now))+time.Hour)"},
		{"lease: a short one is not looked at", intake, "if now.Sub(sent) < lease/3 {", "if now.Sub(sent) < 3*lease {"},
		{"lease: a late confirmation revives it", delivery, "if int64(time.Since(l.received)) > old ||", "if"},
		{"lease: what is of a consumer that is gone is given back", delivery, "return !l.orphan.Load() && !now.After", "return !now.After"},
		{"lease: nobody notices that the consumer is another", ensure, "was != 0 && was != now.created {", "was != 0 && was == now.created && p == nil {"},
		{"pull: what was given up is not asked for again", book, "b.wanted += b.out\n", "b.wanted += 0\n"},
		{"pull: credit that came back is lost", puller, "if n := p.book.returned(left); n > 0 {\n\t\t\tp.to.Returned(n)", "if n := p.book.returned(left); n < 0 {\n\t\t\tp.to.Returned(n)"},
		{"pull: the server counts deliveries", ensure, "MaxDeliver:    -1,", "MaxDeliver:    2,"},
		{"pull: the consumer acks all", ensure, "AckPolicy:     jetstream.AckExplicitPolicy,", "AckPolicy:     jetstream.AckAllPolicy,"},
		{"pull: returned credit is not noticed", intake, "p.requested[i.priority] = max(0, p.requested[i.priority]-n)", "p.requested[i.priority] = max(0, p.requested[i.priority]-0*n)"},
		{"retry: what succeeded is tried again", judge, "Again:     row(r.Class).again,", "Again:     row(r.Class).again || r.Class == job.Success,"},
		{"decode: the payload is cut", decode, "Payload:    m.Data,", "Payload:    m.Data[:len(m.Data)-1],"},
		{"conn: sends what is stale after a reconnect", conn, "nats.ReconnectBufSize(-1),", "nats.ReconnectBufSize(1<<20),"},
		{"pool: one more than allowed", intake, "\t\treturn p.cfg.Concurrency\n", "\t\treturn p.cfg.Concurrency + 1\n"},
		{"pool: a permit is not returned", job, "p.release(h)\n\t\t\treturn out", "return out"},
		{"pool: who is not settled has no room", "internal/pool/allocate.go", "late := max(0, -free-a.room)", "late := 0 * free"},
		{"pool: a delivery keeps its request", intake, "p.requested[i.priority] = max(0, p.requested[i.priority]-1)", "p.requested[i.priority] = max(0, p.requested[i.priority])"},
		{"pool: what has ended is still counted", job, "p.count[h.priority]--", "p.count[h.priority] += 0"},
		{"pool: unstarted jobs count as done", wait, "return job.Outcome{Action: job.Release, Reason: job.Released}\n", "return job.Outcome{Action: job.Done, Reason: job.Released}\n"},
		{"drain: interrupted jobs count as done", judge, "return job.Outcome{Action: job.Release, Reason: job.Interrupted, Err: a.Cause}", "return job.Outcome{Action: job.Done, Reason: job.Interrupted, Err: a.Cause}"},
		{"drain: jobs start while draining", pool, "close(p.draining)\n\tp.setHold(Hold{Reason: \"draining\"}, 0, time.Now())\n\tp.wakeAt(time.Time{})\n\tp.setLimit(0)\n", "p.setHold(Hold{Reason: \"draining\"}, 0, time.Now())\n\tp.wakeAt(time.Time{})\n"},
		{"judge: a failure is a success", judge, "case last.Class == job.Success:", "case last.Class == job.Success || last.Class == job.Failure:"},
		{"judge: attempts have no end", judge, "case attempts >= r.MaxAttempts && !a.knownDown():", "case attempts > 100*r.MaxAttempts:"},
		{"judge: one attempt too few", judge, "case attempts >= r.MaxAttempts && !a.knownDown():", "case attempts >= r.MaxAttempts-1:"},
		{"judge: a retry comes at once", judge, "return job.Outcome{Action: job.Retry, Reason: a.Last.Reason, After: after,", "return job.Outcome{Action: job.Retry, Reason: a.Last.Reason, After: after / 1000,"},
		{"ledger: attempts are not counted", ledger, "r.Attempts++", "r.Deferrals++"},
		{"ledger: nothing is written down", ledger, "case again && out.Reason == job.Fairness:", "case again:"},
		{"ledger: what cannot be read is taken for none", records, "sum := m.with(stored).plus(more)", "sum := m.with(more)"},
		{"settle: acked before it runs", puller, "		p.to.Deliver(d, meta.NumPending)", "		p.conn.settler.settle(d.lease, job.Ack, 0); p.to.Deliver(d, meta.NumPending)"},
		{"dead letter: ended before it is stored", settle, "		out = p.bury(h, out)", "		go p.bury(h, out)"},
		{"dead letter: not stored", settle, "if out.Action == job.DeadLetter {", "if out.Action == job.Park {"},
		{"dead letter: an error is ignored", settle, "h.Job(), out, h.record); err != nil {", "h.Job(), out, h.record); err != nil && ctx == nil {"},
		{"dead letter: stored without its id", dlq, "jetstream.WithMsgID(id), ", ""},
		{"pipeline: a panic counts as done", pipe, "out = a.judge(time.Now())\n\t\t}", "out = job.Outcome{Action: job.Done}\n\t\t}"},
		{"dead letter: the job's commands are kept", dlq, `case strings.HasPrefix(lower, "nats-"):`, `case strings.HasPrefix(lower, "nats--"):`},
		{"pipeline: calls begin after the deadline", pipe, "if n > 1 && a.expired(time.Now())", "if n > 1_000 && a.expired(time.Now())"},
		{"fallback: called after the deadline", "internal/pipeline/fallback.go", " || a.expired(time.Now()) {", " {"},
		{"fallback: a failed step counts as done", "internal/pipeline/fallback.go", "if r.Class == job.Success {\n\t\t\treturn a.done", "if r.Class == job.Success || r.Class == job.Failure {\n\t\t\treturn a.done"},
		{"hedge: a hedge that failed counts", "internal/pipeline/hedge.go", "case hedged.Class == job.Success && first.Class != job.Success:", "case hedged.Class != job.Success && first.Class == job.Failure:\n\t\tfirst.Class = job.Success\n\tcase hedged.Class == job.Success && first.Class != job.Success:"},
		{"hedge: it needs no seat", "internal/pipeline/hedge.go", "seat, ok := l.Limiter.AcquireSpare(now)\n\tif !ok {", "seat, ok := l.Limiter.AcquireSpare(now)\n\tif !ok && ctx == nil {"},
		{"probe: a bad one counts as good", "internal/probe/probe.go", "case r.Class == job.Success:", "case r.Class != job.Ignored:"},
		{"fairness: who is set aside counts as done", settle, "case job.Retry, job.Defer:\n\t\treturn job.Nak, out.After", "case job.Retry, job.Defer:\n\t\tif out.Reason == job.Fairness {\n\t\t\treturn job.Ack, 0\n\t\t}\n\t\treturn job.Nak, out.After"},
		{"drain: a job starts after its mark", job, "if p.isDraining() {", "if p.isDraining() && h == nil {"},
		{"pool: who is refused passes the permit on", job, "p.bulkhead.Yield(h.claim)", "p.bulkhead.Release(h.claim)"},
		{"pool: the least important goes first", wait, "h.claim.Priority, until = p.rank(h, now)\n", "h.claim.Priority, until = p.rank(h, now); h.claim.Priority = 3 - h.claim.Priority\n"},
		{"lease: no sign of life while waiting", job, "case now.Sub(h.extended) >= p.deps.Sources[h.priority].AckWait()/3:", "case now.Sub(h.extended) >= p.deps.Sources[h.priority].AckWait()/3 && !h.started.IsZero():"},
		{"breaker: half open admits two", brConfig, "setDefault(&c.HalfOpenConcurrent, 1)", "setDefault(&c.HalfOpenConcurrent, 2)"},
		{"breaker: one good probe is enough", brConfig, "setDefault(&c.HalfOpenCalls, 3)", "setDefault(&c.HalfOpenCalls, 1)"},
		{"breaker: jitter makes it longer", machine, "return wait - time.Duration(m.OpenJitter", "return wait + time.Duration(m.OpenJitter"},
		{"breaker: does not open", machine, "case consecutive >= m.consecutive:", "case consecutive >= 100*m.consecutive:"},
	}
}
