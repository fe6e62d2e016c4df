package httptarget

import (
	"io"
	"net/http"
	"strings"

	"github.com/workerd/workerd/internal/job"
)

// longestContentType is the longest Content-Type that is passed on, in bytes.
const longestContentType = 256

// keeper keeps the beginning of what is read.
type keeper struct {
	limit     int
	body      []byte
	truncated bool
}

// keeping returns a reader that keeps what is read through it, up to a limit. A
// nil keeper if that is 0.
func keeping(body io.Reader, limit int) (io.Reader, *keeper) {
	if limit <= 0 {
		return body, nil
	}
	k := &keeper{limit: limit}
	return io.TeeReader(body, k), k
}

// Write implements io.Writer. It never fails.
func (k *keeper) Write(p []byte) (int, error) {
	fits := min(len(p), k.limit-len(k.body))
	k.body = append(k.body, p[:fits]...)
	k.truncated = k.truncated || fits < len(p)
	return len(p), nil
}

// reply is what was kept, with what the response says it is.
func (k *keeper) reply(resp *http.Response) *job.Reply {
	contentType := first(resp.Header, "Content-Type")
	if len(contentType) > longestContentType || strings.ContainsFunc(contentType, func(c rune) bool { return c < ' ' || c > '~' }) {
		contentType = ""
	}
	return &job.Reply{Status: resp.StatusCode, ContentType: contentType, Body: k.body, Truncated: k.truncated}
}
