#!/bin/sh
# Makes or refreshes one wrapper module: a go.mod and go.sum that pin every module a program is built from.
#   add-module.sh FOLDER MODULE VERSION PACKAGE...
#   add-module.sh kubernetes-v1.37.2 k8s.io/kubernetes v1.37.2 k8s.io/kubernetes/cmd/kubelet ...
# Extra `replace` lines may be put in FOLDER/go.mod before; run it again after. Needs the go command.
set -eu
folder=$1 module=$2 version=$3
shift 3
cd "$(dirname -- "$0")"
mkdir -p "$folder"
cd "$folder"
export GOFLAGS=-mod=mod CGO_ENABLED=1
if [ ! -f go.mod ]; then
  printf 'module asterism.invalid/%s\n\ngo 1.26\n\nrequire %s %s\n' "$folder" "$module" "$version" > go.mod
  if [ "$module" = k8s.io/kubernetes ]; then
    # Its own libraries are published as v0.X.Y; the module itself refers to folders beside it.
    dir=$(go mod download -json "$module@$version" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
    sed -n -E 's#^[[:space:]]*(replace )?(k8s\.io/[^ ]+) => \./staging/src/.*#replace \2 => \2 v0.'"${version#v1.}"'#p' "$dir/go.mod" >> go.mod
  fi
fi
go list -deps "$@" > /dev/null
