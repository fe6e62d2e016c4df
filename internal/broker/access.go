package broker

import (
	"crypto/tls"
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
)

// Access says who may connect to a broker, and how. The zero value lets
// everybody in, in the clear: the embedded broker listens on this machine only.
type Access struct {
	// Users that may connect. Empty: everybody may, and may do everything.
	Users []User
	// Anonymous is the user somebody without credentials is taken for. Empty:
	// nobody is let in without. Only with Users.
	Anonymous string
	// TLS of the listener. Nil: in the clear.
	TLS *tls.Config
	// MaxConnections of clients at once. 0: the server's default, 64 Ki.
	MaxConnections int
	// NoJetStream switches JetStream off: a server that cannot keep jobs.
	NoJetStream bool
}

// User of a broker.
type User struct {
	Name, Password string
	// Publish and Subscribe are the subjects the user may use. Both nil: all.
	Publish, Subscribe []string
}

// applyTo fills in the server's options.
func (a Access) applyTo(o *server.Options) {
	for _, u := range a.Users {
		o.Users = append(o.Users, &server.User{Username: u.Name, Password: u.Password, Permissions: u.permissions()})
	}
	o.NoAuthUser, o.MaxConn = a.Anonymous, a.MaxConnections
	if a.TLS != nil {
		o.TLS, o.TLSConfig, o.TLSTimeout, o.TLSVerify = true, a.TLS, 5, a.TLS.ClientAuth == tls.RequireAndVerifyClientCert
	}
	o.JetStream = !a.NoJetStream
}

func (u User) permissions() *server.Permissions {
	if u.Publish == nil && u.Subscribe == nil {
		return nil
	}
	return &server.Permissions{Publish: only(u.Publish), Subscribe: only(u.Subscribe)}
}

// only allows the given subjects. The server takes an empty list for all.
func only(subjects []string) *server.SubjectPermission {
	if len(subjects) == 0 {
		return &server.SubjectPermission{Deny: []string{">"}}
	}
	return &server.SubjectPermission{Allow: subjects}
}

// Admit changes who may connect, as a reload of the configuration does: those
// who may no longer are thrown out, those who may do less are not asked.
func (s *Server) Admit(a Access) error {
	cfg := s.cfg
	cfg.Access = a
	cfg.Port = s.Port()
	if err := s.s.ReloadOptions(options(cfg)); err != nil {
		return fmt.Errorf("broker: reload: %w", err)
	}
	s.cfg = cfg
	return nil
}
