package httptarget_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"runtime"
	"testing"

	"github.com/workerd/workerd/internal/job"
	"github.com/workerd/workerd/internal/target/httptarget"
)

// bomb is 64 MiB of nothing, packed into 64 KiB.
func bomb(t *testing.T) []byte {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := io.CopyN(z, zeros{}, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestCall_allocatesLittleWhateverIsAnswered: neither what a bomb unpacks to,
// nor what a body without an end sends before the call gives up.
func TestCall_allocatesLittleWhateverIsAnswered(t *testing.T) {
	packed := bomb(t)
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		class   job.Class
		reason  job.Reason
	}{
		"gzip bomb": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed)
		}, job.Success, job.OK},
		"endless": {func(w http.ResponseWriter, _ *http.Request) { endless(w) }, job.Permanent, job.ResponseSize},
		"endless refusal": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			endless(w)
		}, job.Permanent, job.Status4xx},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := httptarget.Config{URL: serve(t, c.handler), MaxResponse: 8 << 20}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got := call(t, cfg)
			runtime.ReadMemStats(&after)
			if got.Class != c.class || got.Reason != c.reason {
				t.Errorf("got %s, %s (%v), want %s, %s", got.Class, got.Reason, got.Err, c.class, c.reason)
			}
			// Both sides of the connection are in this process.
			if used := after.TotalAlloc - before.TotalAlloc; used > 2<<20 {
				t.Errorf("%d bytes were allocated", used)
			}
		})
	}
}
