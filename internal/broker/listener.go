package broker

import (
	"fmt"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
)

// listener hears what the server would log. The server calls it from any of
// its goroutines.
type listener struct {
	complain func(text string) // nil: nobody wants to know

	mu    sync.Mutex
	first error // what was fatal first
}

var _ server.Logger = (*listener)(nil)

// fatal is what keeps the server from working, nil if nothing does.
func (l *listener) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// Fatalf implements server.Logger. The server's own would end the process.
func (l *listener) Fatalf(format string, v ...any) {
	l.mu.Lock()
	if l.first == nil {
		l.first = fmt.Errorf(format, v...)
	}
	l.mu.Unlock()
	l.tell(format, v)
}

// Errorf implements server.Logger.
func (l *listener) Errorf(format string, v ...any) { l.tell(format, v) }

// Warnf implements server.Logger.
func (l *listener) Warnf(format string, v ...any) { l.tell(format, v) }

// Noticef implements server.Logger.
func (l *listener) Noticef(string, ...any) {}

// Debugf implements server.Logger.
func (l *listener) Debugf(string, ...any) {}

// Tracef implements server.Logger.
func (l *listener) Tracef(string, ...any) {}

func (l *listener) tell(format string, v []any) {
	if l.complain != nil {
		l.complain(fmt.Sprintf(format, v...))
	}
}
