// Package atls is aTLS as a v2.6 peer in Go has it, written from the description of the wire. For tests.
package atls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Options say what one side of a connection does.
type Options struct {
	// OID of the own evidence; empty: a certificate without evidence.
	Issue string
	// OID of the evidence wanted of the peer; empty: none.
	Validate string
	// Bytes that the document is padded to.
	Length int
	// Name of the machine in the document.
	Machine string
	// Replaces the document.
	Document []byte
	// Document over another nonce, and over another key.
	WrongNonce, WrongKey bool
	MaxVersion           uint16
	Curves               []tls.CurveID
	// Told of the peer's machine once its evidence holds.
	Verified func(machine string)
}

type document struct {
	UserData, Nonce []byte
	Machine         string
	Padding         string
}

func (o Options) issue(userData, nonce []byte) ([]byte, error) {
	if o.Document != nil {
		return o.Document, nil
	}
	if o.WrongNonce {
		nonce = make([]byte, 32)
	}
	if o.WrongKey {
		userData = make([]byte, 32)
	}
	d := document{UserData: userData, Nonce: nonce, Machine: o.Machine}
	bare, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	if missing := o.Length - len(bare); missing > 0 {
		d.Padding = strings.Repeat("x", missing)
	}
	return json.Marshal(d)
}

func (o Options) verify(raw [][]byte, nonce []byte) error {
	if len(raw) == 0 {
		return errors.New("no certificate")
	}
	cert, err := x509.ParseCertificate(raw[0])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		return err
	}
	if o.Validate == "" {
		return nil
	}
	spki, err := x509.MarshalPKIXPublicKey(cert.PublicKey)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(spki)
	for _, extension := range cert.Extensions {
		if extension.Id.String() != o.Validate {
			continue
		}
		var d document
		if err := json.Unmarshal(extension.Value, &d); err != nil {
			return err
		}
		if !bytes.Equal(d.Nonce, nonce) {
			return errors.New("document is for another nonce")
		}
		if !bytes.Equal(d.UserData, hash[:]) {
			return errors.New("certificate hash does not match user data")
		}
		if o.Verified != nil {
			o.Verified(d.Machine)
		}
		return nil
	}
	return errors.New("certificate does not contain attestation document")
}

func (o Options) certificate(nonce []byte) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Constellation"},
		NotBefore:    now.Add(-2 * time.Hour),
		NotAfter:     now.Add(2 * time.Hour),
	}
	if o.Issue != "" {
		spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			return nil, err
		}
		hash := sha256.Sum256(spki)
		doc, err := o.issue(hash[:], nonce)
		if err != nil {
			return nil, err
		}
		var id asn1.ObjectIdentifier
		for _, arc := range strings.Split(o.Issue, ".") {
			var n int
			if _, err := fmt.Sscan(arc, &n); err != nil {
				return nil, err
			}
			id = append(id, n)
		}
		template.ExtraExtensions = []pkix.Extension{{Id: id, Value: doc}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Client makes the configuration for one connection.
func Client(o Options) (*tls.Config, error) {
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return &tls.Config{
		ServerName:         base64.StdEncoding.EncodeToString(nonce),
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS12,
		MaxVersion:         o.MaxVersion,
		CurvePreferences:   o.Curves,
		NextProtos:         []string{"h2"},
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			return o.verify(raw, nonce)
		},
		GetClientCertificate: func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(request.AcceptableCAs) != 1 {
				return nil, fmt.Errorf("%d acceptable CAs", len(request.AcceptableCAs))
			}
			var name pkix.RDNSequence
			if _, err := asn1.Unmarshal(request.AcceptableCAs[0], &name); err != nil {
				return nil, err
			}
			var parsed pkix.Name
			parsed.FillFromRDNSequence(&name)
			serverNonce, err := base64.StdEncoding.DecodeString(parsed.CommonName)
			if err != nil {
				return nil, err
			}
			return o.certificate(serverNonce)
		},
	}, nil
}

// Server makes the configuration for a listener.
func Server(o Options) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		MaxVersion: o.MaxVersion,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			clientNonce, err := base64.StdEncoding.DecodeString(hello.ServerName)
			if err != nil {
				return nil, err
			}
			cert, err := o.certificate(clientNonce)
			if err != nil {
				return nil, err
			}
			config := &tls.Config{
				Certificates:     []tls.Certificate{*cert},
				MinVersion:       tls.VersionTLS12,
				MaxVersion:       o.MaxVersion,
				CurvePreferences: o.Curves,
				NextProtos:       []string{"h2"},
			}
			if o.Validate != "" {
				nonce := make([]byte, 32)
				if _, err := rand.Read(nonce); err != nil {
					return nil, err
				}
				pool, err := nonceCA(nonce)
				if err != nil {
					return nil, err
				}
				config.ClientAuth = tls.RequireAnyClientCert
				config.ClientCAs = pool
				config.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
					return o.verify(raw, nonce)
				}
			}
			return config, nil
		},
	}
}

func nonceCA(nonce []byte) (*x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0),
		Subject:      pkix.Name{CommonName: base64.StdEncoding.EncodeToString(nonce)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, nil
}

// Flags are the options of the command line, the same for both roles and both peers.
type Flags struct {
	Issue, Validate, Machine, Curve, TLS string
	Length                               int
	WrongNonce, WrongKey                 bool
}

// Options of the flags.
func (f Flags) Options() Options {
	o := Options{
		Issue: f.Issue, Validate: f.Validate, Machine: f.Machine, Length: f.Length,
		WrongNonce: f.WrongNonce, WrongKey: f.WrongKey,
	}
	if f.TLS == "1.2" {
		o.MaxVersion = tls.VersionTLS12
	}
	switch f.Curve {
	case "P-521":
		o.Curves = []tls.CurveID{tls.CurveP521}
	case "P-256":
		o.Curves = []tls.CurveID{tls.CurveP256}
	}
	return o
}
