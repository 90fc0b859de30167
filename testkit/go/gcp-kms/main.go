// An emulator of Google Cloud KMS, REST v1, for tests. Its routes, its messages and their JSON are those of Google's own
// descriptors (cloud.google.com/go/kms), unknown fields are refused as Google refuses them, and the cryptography is Go's;
// the rules (versions, states, checksums, associated data) follow the reference of the API. It knows no callers.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

const maxBody = 1 << 20

// route is one google.api.http rule.
type route struct {
	verb    string
	path    *regexp.Regexp
	field   string // of the request, bound by the path: name, parent, crypto_key_version.name
	body    string // the field that the body is, or *
	request protoreflect.MessageType
}

var template = regexp.MustCompile(`^(.*)\{([a-z_.]+)=([^}]+)\}(.*)$`)

func routes() ([]route, error) {
	var found []route
	methods := kmspb.File_google_cloud_kms_v1_service_proto.Services().ByName("KeyManagementService").Methods()
	for i := range methods.Len() {
		method := methods.Get(i)
		rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
		var verb, path string
		switch pattern := rule.GetPattern().(type) {
		case *annotations.HttpRule_Get:
			verb, path = "GET", pattern.Get
		case *annotations.HttpRule_Post:
			verb, path = "POST", pattern.Post
		case *annotations.HttpRule_Patch:
			verb, path = "PATCH", pattern.Patch
		default:
			continue
		}
		parts := template.FindStringSubmatch(path)
		if parts == nil {
			return nil, fmt.Errorf("%s: %s cannot be read", method.Name(), path)
		}
		pattern := strings.ReplaceAll(regexp.QuoteMeta(parts[3]), `\*\*`, `[^:]+`)
		pattern = strings.ReplaceAll(pattern, `\*`, `[^/:]+`)
		request, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
		if err != nil {
			return nil, err
		}
		found = append(found, route{
			verb:    verb,
			path:    regexp.MustCompile("^" + regexp.QuoteMeta(parts[1]) + "(" + pattern + ")" + regexp.QuoteMeta(parts[4]) + "$"),
			field:   parts[2],
			body:    rule.Body,
			request: request,
		})
	}
	return found, nil
}

// read makes the request message of what came by path, query and body.
func (r route) read(name string, req *http.Request) (proto.Message, error) {
	fields := map[string]any{}
	for key, values := range req.URL.Query() {
		if key != "alt" && key != "$alt" {
			fields[key] = values[0]
		}
	}
	if r.body != "" {
		body, err := io.ReadAll(io.LimitReader(req.Body, maxBody))
		if err != nil {
			return nil, err
		}
		var object map[string]any
		if len(body) == 0 {
			body = []byte("{}")
		}
		if err := json.Unmarshal(body, &object); err != nil {
			return nil, err
		}
		if r.body == "*" {
			for key, value := range object {
				fields[key] = value
			}
		} else {
			fields[r.body] = object
		}
	}
	object := fields
	path := strings.Split(r.field, ".")
	for _, part := range path[:len(path)-1] {
		inner, _ := object[part].(map[string]any)
		if inner == nil {
			inner = map[string]any{}
			object[part] = inner
		}
		object = inner
	}
	object[path[len(path)-1]] = name
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	message := r.request.New().Interface()
	return message, protojson.Unmarshal(text, message)
}

var httpStatus = map[codes.Code]int{
	codes.InvalidArgument: 400, codes.FailedPrecondition: 400, codes.NotFound: 404,
	codes.AlreadyExists: 409, codes.Unimplemented: 501, codes.Internal: 500,
}

var statusName = map[codes.Code]string{
	codes.InvalidArgument: "INVALID_ARGUMENT", codes.FailedPrecondition: "FAILED_PRECONDITION",
	codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS",
	codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL",
}

func refuse(w http.ResponseWriter, err error) {
	failure := status.Convert(err)
	code := failure.Code()
	if _, known := httpStatus[code]; !known {
		code = codes.Internal
	}
	w.Header().Set("content-type", "application/json; charset=UTF-8")
	w.WriteHeader(httpStatus[code])
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{
		"code": httpStatus[code], "message": failure.Message(), "status": statusName[code],
	}})
}

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", "127.0.0.1:0", "address")
	state := flag.String("state", "", "file that keeps the keys, so that they are there after a restart")
	flag.Parse()
	keys, err := load(*state)
	if err != nil {
		log.Fatal(err)
	}
	table, err := routes()
	if err != nil {
		log.Fatal(err)
	}
	handler := func(w http.ResponseWriter, req *http.Request) {
		for _, route := range table {
			parts := route.path.FindStringSubmatch(req.URL.Path)
			if parts == nil || route.verb != req.Method {
				continue
			}
			request, err := route.read(parts[1], req)
			if err != nil {
				refuse(w, status.Error(codes.InvalidArgument, err.Error()))
				return
			}
			answer, err := keys.call(request)
			if err != nil {
				refuse(w, err)
				return
			}
			text, err := protojson.Marshal(answer)
			if err != nil {
				refuse(w, err)
				return
			}
			w.Header().Set("content-type", "application/json; charset=UTF-8")
			w.Write(text)
			return
		}
		refuse(w, status.Error(codes.NotFound, "no such method"))
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]string{"address": listener.Addr().String()})
	log.Fatal(http.Serve(listener, http.HandlerFunc(handler)))
}

func load(path string) (*service, error) {
	s := &service{Rings: map[string]bool{}, Keys: map[string]*key{}, saved: func() {}}
	if path == "" {
		return s, nil
	}
	if text, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(text, s); err != nil {
			return nil, err
		}
	}
	s.saved = func() {
		text, err := json.Marshal(s)
		if err == nil {
			err = os.WriteFile(path+".new", text, 0o600)
		}
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	return s, nil
}
