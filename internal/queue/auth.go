package queue

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"
)

// appendAuth adds who we are and whom we trust. Whatever is in a file is read
// again for every connection, so that it can be replaced while we run.
func appendAuth(opts []nats.Option, cfg Config) ([]nats.Option, error) {
	if cfg.Creds != "" {
		if _, err := os.Stat(cfg.Creds); err != nil {
			return nil, fmt.Errorf("creds: %w", err)
		}
		opts = append(opts, nats.UserCredentials(cfg.Creds))
	}
	if cfg.NKey != "" {
		nkey, err := nats.NkeyOptionFromSeed(cfg.NKey)
		if err != nil {
			return nil, fmt.Errorf("nkey %s: %w", cfg.NKey, err)
		}
		opts = append(opts, nkey)
	}
	if cfg.User != "" {
		opts = append(opts, nats.UserInfo(cfg.User, cfg.Password.Reveal()))
	}
	if cfg.Token != "" {
		opts = append(opts, nats.Token(cfg.Token.Reveal()))
	}
	return appendTLS(opts, cfg)
}

func appendTLS(opts []nats.Option, cfg Config) ([]nats.Option, error) {
	var client nats.TLSCertHandler
	var authorities nats.RootCAsHandler
	if cfg.Cert != "" {
		client = func() (tls.Certificate, error) { return clientCertificate(cfg.Cert, cfg.Key) }
		if _, err := client(); err != nil {
			return nil, err
		}
	}
	if cfg.CA != "" {
		authorities = func() (*x509.CertPool, error) { return readAuthorities(cfg.CA) }
		if _, err := authorities(); err != nil {
			return nil, err
		}
	}
	if client != nil || authorities != nil {
		opts = append(opts, nats.ClientTLSConfig(client, authorities))
	}
	if cfg.TLSFirst {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	return opts, nil
}

func clientCertificate(cert, key string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return pair, fmt.Errorf("client certificate %s: %w", cert, err)
	}
	return pair, nil
}

func readAuthorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca %s: no certificate in it", file)
	}
	return pool, nil
}
