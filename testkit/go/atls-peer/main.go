// Command atls-peer is one end of an aTLS connection on Go's crypto/tls: it echoes one line as a server, and sends
// one as a client. It prints a line of JSON per connection.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	"asterism.test/atls-peer/atls"
)

type outcome struct {
	Address string `json:"address,omitempty"`
	Error   string `json:"error,omitempty"`
	Version string `json:"version,omitempty"`
	Peer    string `json:"peer,omitempty"`
	Echo    string `json:"echo,omitempty"`
}

func report(o outcome) {
	line, _ := json.Marshal(o)
	fmt.Println(string(line))
}

func main() {
	role := os.Args[1]
	var f atls.Flags
	set := flag.NewFlagSet(role, flag.ExitOnError)
	address := set.String("address", "127.0.0.1:0", "")
	set.StringVar(&f.Issue, "issue", "", "OID of the own evidence")
	set.StringVar(&f.Validate, "validate", "", "OID of the evidence wanted")
	set.StringVar(&f.Machine, "machine", "go", "")
	set.StringVar(&f.Curve, "curve", "", "")
	set.StringVar(&f.TLS, "tls", "", "")
	set.IntVar(&f.Length, "length", 0, "")
	set.BoolVar(&f.WrongNonce, "wrong-nonce", false, "")
	set.BoolVar(&f.WrongKey, "wrong-key", false, "")
	_ = set.Parse(os.Args[2:])
	if role == "server" {
		serve(*address, f.Options())
		return
	}
	o := f.Options()
	var got outcome
	o.Verified = func(machine string) { got.Peer = machine }
	config, err := atls.Client(o)
	if err == nil {
		var conn *tls.Conn
		conn, err = tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", *address, config)
		if err == nil {
			err = exchange(conn, &got)
		}
	}
	if err != nil {
		got.Error = err.Error()
	}
	report(got)
}

func exchange(conn *tls.Conn, got *outcome) error {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	got.Version = tls.VersionName(conn.ConnectionState().Version)
	if _, err := conn.Write([]byte("hello from Go\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	got.Echo = line
	return err
}

func serve(address string, o atls.Options) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		report(outcome{Error: err.Error()})
		os.Exit(1)
	}
	report(outcome{Address: listener.Addr().String()})
	for {
		raw, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			var got outcome
			mine := o
			mine.Verified = func(machine string) { got.Peer = machine }
			conn := tls.Server(raw, atls.Server(mine))
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if err := conn.Handshake(); err != nil {
				got.Error = err.Error()
				report(got)
				return
			}
			got.Version = tls.VersionName(conn.ConnectionState().Version)
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err == nil {
				got.Echo = line
				_, err = conn.Write([]byte(line))
			}
			if err != nil {
				got.Error = err.Error()
			}
			report(got)
		}()
	}
}
