package main

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"

	"asterism.test/atls-peer/atls"
)

// fresh makes a new TLS configuration, and so a new nonce, for every handshake. Its Info names no server: gRPC would
// send the nonce as :authority, and base64 has a character ("/") that is not allowed there.
type fresh struct {
	options atls.Options
}

func (f fresh) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := atls.Client(f.options)
	if err != nil {
		return nil, nil, err
	}
	// Newer versions of gRPC take the server name from the authority.
	return credentials.NewTLS(config).ClientHandshake(ctx, config.ServerName, raw)
}

func (f fresh) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(atls.Server(f.options)).ServerHandshake(raw)
}

func (f fresh) Info() credentials.ProtocolInfo {
	return credentials.NewTLS(nil).Info()
}

func (f fresh) Clone() credentials.TransportCredentials {
	return f
}

func (f fresh) OverrideServerName(string) error {
	return nil
}
