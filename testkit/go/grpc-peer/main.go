// Command grpc-peer speaks kms.API/GetDataKey with google.golang.org/grpc over aTLS, as a server or a client. The
// messages are the well-known wrappers: their field 1 is the field 1 of GetDataKey's request and response.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"asterism.test/atls-peer/atls"
)

type outcome struct {
	Address string `json:"address,omitempty"`
	Error   string `json:"error,omitempty"`
	Peer    string `json:"peer,omitempty"`
	Answer  string `json:"answer,omitempty"`
	Calls   int    `json:"calls,omitempty"`
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
	calls := set.Int("calls", 1, "")
	set.StringVar(&f.Issue, "issue", "", "OID of the own evidence")
	set.StringVar(&f.Validate, "validate", "", "OID of the evidence wanted")
	set.StringVar(&f.Machine, "machine", "go", "")
	set.IntVar(&f.Length, "length", 0, "")
	_ = set.Parse(os.Args[2:])
	if role == "server" {
		serve(*address, f.Options())
		return
	}
	got, err := call(*address, *calls, f.Options())
	if err != nil {
		got.Error = err.Error()
	}
	report(got)
}

func call(address string, calls int, o atls.Options) (outcome, error) {
	var got outcome
	o.Verified = func(machine string) { got.Peer = machine }
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(fresh{o}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 15 * time.Second}))
	if err != nil {
		return got, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for ; got.Calls < calls; got.Calls++ {
		var answer wrapperspb.BytesValue
		request := wrapperspb.String(fmt.Sprintf("go-%d", got.Calls))
		if err := conn.Invoke(ctx, "/kms.API/GetDataKey", request, &answer); err != nil {
			return got, err
		}
		got.Answer = string(answer.Value)
	}
	return got, nil
}

func serve(address string, o atls.Options) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		report(outcome{Error: err.Error()})
		os.Exit(1)
	}
	report(outcome{Address: listener.Addr().String()})
	o.Verified = func(machine string) { report(outcome{Peer: machine}) }
	server := grpc.NewServer(grpc.Creds(fresh{o}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "kms.API",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "GetDataKey",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var request wrapperspb.StringValue
				if err := decode(&request); err != nil {
					return nil, err
				}
				return wrapperspb.Bytes([]byte("go:" + request.Value)), nil
			},
		}},
	}, struct{}{})
	if err := server.Serve(listener); err != nil {
		report(outcome{Error: err.Error()})
	}
}
