package queue_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/workerd/workerd/internal/broker"
	"github.com/workerd/workerd/internal/natstest"
	"github.com/workerd/workerd/internal/queue"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// sign makes a certificate, signed by itself if the authority has none yet.
func (a *authority) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	by, with := a.cert, a.key
	if by == nil {
		by, with = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, with)
	if err != nil {
		a.t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return signed, key
}

func (a *authority) issue(name string) tls.Certificate {
	a.t.Helper()
	cert, key := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// server is what a broker with a certificate of this authority asks for.
func (a *authority) server() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{a.issue("nats")}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

// files are where workerd reads certificates from.
type files struct{ ca, cert, key string }

func (a *authority) write(f files) {
	a.t.Helper()
	client := a.issue("workerd")
	key, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		f.ca: {Type: "CERTIFICATE", Bytes: a.cert.Raw}, f.cert: {Type: "CERTIFICATE", Bytes: client.Certificate[0]}, f.key: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

// TestSupervision_certificatesAreRotatedOnBothSides: the files are read again for
// each connection. Until they fit it stays up and says what is wrong.
func TestSupervision_certificatesAreRotatedOnBothSides(t *testing.T) {
	old, renewed := newAuthority(t, "old"), newAuthority(t, "renewed")
	dir := t.TempDir()
	f := files{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	old.write(f)
	k := &kit{t: t, broker: natstest.StartFor(t, broker.Access{TLS: old.server()})}
	c, _ := k.dialAs(queue.Config{URL: k.broker.URL(), CA: f.ca, Cert: f.cert, Key: f.key})
	k.awaitFor("connected", c.Connected)
	k.broker.Stop()
	k.broker.Admit(broker.Access{TLS: renewed.server()})
	k.broker.Restart()
	k.awaitFor("it says that the certificate is not trusted", func() bool {
		c.Remind(time.Now())
		return strings.Contains(c.Outage(time.Now()), "certificate")
	})
	renewed.write(f)
	k.awaitFor("connected with the renewed ones", c.Connected)
	if text := c.Outage(time.Now()); text != "" {
		t.Errorf("connected, and still: %s", text)
	}
}

func TestDial_certificatesThatCannotBeReadAreAnError(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]queue.Config{
		"no such file":          {CA: "/nowhere.pem"},
		"no certificate in it":  {CA: empty},
		"client certificate":    {Cert: empty, Key: empty},
		"creds: stat /nowhere:": {Creds: "/nowhere"},
	} {
		c, err := queue.Dial(cfg.WithDefaults(), nil)
		if err == nil {
			c.Close()
			t.Errorf("%+v: no error", cfg)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func named(users ...string) broker.Access {
	a := broker.Access{Users: []broker.User{{Name: "admin", Password: "admin"}}, Anonymous: "admin"}
	for _, u := range users {
		a.Users = append(a.Users, broker.User{Name: u, Password: "secret"})
	}
	return a
}

// TestSupervision_aUserThatIsTakenAwayIsWaitedFor: the client library would give
// up for good at the second refusal.
func TestSupervision_aUserThatIsTakenAwayIsWaitedFor(t *testing.T) {
	k := &kit{t: t, broker: natstest.StartFor(t, named("workerd"))}
	c, _ := k.dialAs(queue.Config{URL: k.broker.URL(), User: "workerd", Password: "secret"})
	k.awaitFor("connected", c.Connected)
	k.broker.Admit(named())
	k.awaitFor("it says why it is not connected", func() bool {
		c.Remind(time.Now())
		return strings.Contains(c.Outage(time.Now()), "Authorization Violation")
	})
	k.broker.Admit(named("workerd"))
	k.awaitFor("connected again", c.Connected)
}

func TestSupervision_aServerThatIsFullIsWaitedFor(t *testing.T) {
	k := &kit{t: t, broker: natstest.StartFor(t, broker.Access{MaxConnections: 1})}
	first, err := nats.Connect(k.broker.URL())
	k.do(err)
	c, _ := k.dialAs(queue.Config{URL: k.broker.URL()})
	k.awaitFor("it says why", func() bool {
		c.Remind(time.Now())
		return strings.Contains(c.Outage(time.Now()), "maximum connections exceeded")
	})
	first.Close()
	k.awaitFor("connected", c.Connected)
}

func TestSupervision_jetStreamSwitchedOffIsSaid(t *testing.T) {
	k := &kit{t: t, broker: natstest.StartFor(t, broker.Access{NoJetStream: true})}
	c, _ := k.dialAs(queue.Config{URL: k.broker.URL()})
	s := k.source(c, 30*time.Second)
	t.Cleanup(run(s, newCatcher()))
	k.awaitFor("it says so", func() bool {
		return strings.HasPrefix(s.Stats().Problem, "nobody answers for JetStream: it is not enabled on the NATS server")
	})
}
