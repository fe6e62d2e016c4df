package httptarget_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target/httptarget"
)

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// BenchmarkCall against BenchmarkPlain is the price of a Target: the same
// server, the same payload, calls in a row over one connection. cpu-ns/op is
// the CPU of the whole process, the server's share included in both.
func BenchmarkCall(b *testing.B) {
	h := newTarget(b, httptarget.Config{URL: rawServer(b, okAnswer, false) + "/jobs"})
	defer h.Close()
	r := request(string(make([]byte, 1024)))
	ctx, cancel := context.WithTimeoutCause(b.Context(), time.Hour, job.ErrTryTimeout)
	defer cancel()
	measure(b, func() {
		if result := h.Call(ctx, r); result.Class != job.Success {
			b.Fatal(result)
		}
	})
}

// BenchmarkPlain is what one writes by hand: http.Client and two headers.
func BenchmarkPlain(b *testing.B) { benchmarkPlain(b, nil) }

// BenchmarkPlainSameHeaders sends what a Target sends.
func BenchmarkPlainSameHeaders(b *testing.B) {
	benchmarkPlain(b, map[string]string{
		"User-Agent": "workerd", "Workerd-Job-Id": "order-17", "Workerd-Attempt": "3", "Workerd-Delivery": "4", "Workerd-Pool": "email",
		"Workerd-Subject": "jobs.email.normal", "Workerd-Enqueued-At": "2026-11-20T12:00:00.5Z", "Workerd-Timeout-Ms": "10000",
	})
}

func benchmarkPlain(b *testing.B, headers map[string]string) {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	address := rawServer(b, okAnswer, false) + "/jobs"
	payload := make([]byte, 1024)
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	measure(b, func() {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(payload))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/octet-stream")
		r.Header.Set("Idempotency-Key", "JOBS-42")
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		resp, err := client.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status, err)
		}
	})
}

func measure(b *testing.B, call func()) {
	b.ReportAllocs()
	call() // dials
	before := cpu(b)
	for b.Loop() {
		call()
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
